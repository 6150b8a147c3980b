"""Worlds to plant misconfigurations in, and the doctor's visit to one: a real host, real agents, an emulated provider.

The lock in use and the lock that came with the program are the project's own,
each provider at its emulated site, so that nobody is asked beyond loopback.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from overnight import keyshape, lockfile
from overnight.doctor import words
from overnight.doctor.records import Checkup, Finding
from overnight.doctor.visit import Visit
from overnight.failures import BadInput
from overnight.harnesses import HARNESSES
from overnight.lockfile import Header
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.route import Route
from overnight.spec import HostSpec
from tests.overnight.nights import Evening, commit, loopback, make_repo
from tests.sshd import serving

BOTH = frozenset(Header)
REAL: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
SITES = {
    site.name: replace(site, models=tuple(REAL["providers"][site.name]["models"]))
    for site in (
        Site("zai", "0123456789abcdef.rehearsal", BOTH, shape="zhipu"),
        Site("anthropic", "sk-ant-api03-rehearsal-0123456789", frozenset({Header.X_API_KEY}), shape="anthropic"),
        Site("deepseek", "sk-rehearsal-deepseek-0123456789", BOTH, shape="deepseek"),
        Site("minimax", "sk-cp-rehearsal-intl-0123456789", BOTH, shape="minimax"),
        Site("minimax-cn", "sk-cp-rehearsal-home-0123456789", BOTH, shape="minimax"),
        Site("openrouter", "sk-or-rehearsal-0123456789", BOTH, shape="openrouter"),
        Site("alibaba-coding", "sk-sp-rehearsal-0123456789", BOTH, shape="dashscope"),
    )
}
_PLACE = re.compile(r"https?://127\.0\.0\.1:\d+| at /\S+")
DEAD = "http://127.0.0.1:9"
"""Where nobody listens."""
OF_THE_MACHINE = frozenset(
    ("disk-low", "memory-low", "open-files-low", "processes-low", "home-on-network", "tmp-not-writable")
)
"""Findings that may be true of whatever machine the tests run on."""


@dataclass
class World:
    """All that can be got wrong, as it is when nothing is.

    `lock` and `shipped` are whole locks as JSON data, `host` the fields of the
    host in the batch file, `agents` the folder of the agents on it.
    """

    home: Path
    repo: Path
    agents: Path
    provider: str
    harness: str
    urls: Mapping[str, str]
    key: str
    model: str
    lock: dict[str, Any]
    shipped: dict[str, Any]
    host: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.urls[self.provider]

    @property
    def wiring(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lock["providers"][self.provider]["harnesses"][self.harness]
        return found

    @property
    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lock["harnesses"][self.harness]
        return found

    def at(self, url: str, *, everywhere: bool = False) -> None:
        """Move the provider's endpoint, also in the lock that came with the program if it is so `everywhere`."""
        for lock in (self.lock, self.shipped) if everywhere else (self.lock,):
            lock["providers"][self.provider]["endpoints"]["anthropic"]["url"] = url

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file in the home of the host's user."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def commit(self, name: str, text: str) -> None:
        """A file in the repository, at its base."""
        (self.repo / name).parent.mkdir(parents=True, exist_ok=True)
        commit(self.repo, name, text)

    def reveal(self, provider: str) -> str:
        """The key as it is stored; refused as a stored one is."""
        flaw = keyshape.flaw(self.key)
        if flaw is not None:
            raise BadInput("environment", keyshape.variable(provider), flaw.problem, flaw.mend)
        return self.key


@dataclass(frozen=True, eq=False)
class Case:
    """One thing that is wrong, and what must be named of it.

    Args:
        plant: Changes the world.
        named: Everything of this must be named (as `named` makes it).
        says: Each of these must stand in what the doctor prints.
        also: What else is true of this world and may be named.
        provider: As the lock names it; empty for the harness's usual one.
        site: How the provider is, other than well.
        tls: It is reached by https, with a certificate that nobody trusts.
        find: The doctor was told to search (`--find`).
        set_env: What a real sshd's SetEnv adds, `{url}` being the provider's; empty for our own loopback host.
    """

    name: str
    harness: str
    where: str
    plant: Callable[[World], object]
    named: frozenset[str] = frozenset()
    says: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    provider: str = ""
    site: Mapping[str, Any] = field(default_factory=dict)
    tls: bool = False
    find: bool = False
    set_env: str = ""

    def __str__(self) -> str:
        return f"{self.harness}: {self.where}: {self.name}"


@dataclass(frozen=True)
class Seen:
    """What a visit brought. `calls` are all that the provider was asked, the agents' own included."""

    checkup: Checkup
    text: str
    seconds: float
    calls: int

    def missing(self, case: Case) -> list[str]:
        """What should have been named, or said, and was not."""
        return [*sorted(case.named - named(self.checkup)), *(each for each in case.says if each not in self.text)]

    def wrong(self, case: Case) -> list[str]:
        """What was named and is not so. A shadow tells of what is there, and blames nothing."""
        blamed = {each for each in named(self.checkup) if not each.startswith("shadow:")}
        return sorted(blamed - case.named - case.also - {f"finding:{each}" for each in OF_THE_MACHINE})


def row(case: Case, seen: Seen) -> str:
    """One line of the table: what was planted where, what was to be named, what was not or wrongly, and the cost."""
    expected = ", ".join([*sorted(case.named), *(f'"{each}"' for each in case.says)])
    verdict = "; ".join(
        [f"NOT NAMED {each}" for each in seen.missing(case)] + [f"WRONG {each}" for each in seen.wrong(case)]
    )
    place = f"{case.harness:12}{case.where:14}{case.name:44}"
    return f"{place}{seen.seconds:6.1f} s {seen.calls:3} calls  {verdict or 'named'}: {expected}"


def named(checkup: Checkup) -> set[str]:
    """Everything that the doctor named, without what each machine and each test has otherwise: ports, folders."""
    found: set[str] = set()
    for each in checkup.diagnoses:
        if each.route.failure is not None:
            found.add(f"kind:{each.route.failure.kind}")
        if each.layer:
            found.add(f"layer:{each.layer}")
        if each.mend is not None:
            found.add(f"mend:{each.mend.factor}={each.mend.works}")
        found |= set(map(_finding, each.findings))
    for look in checkup.hosts:
        found |= set(map(_finding, look.findings))
        found |= {f"shadow:{each.name}@{each.source}" for each in look.shadows}
    return {_PLACE.sub("", each) for each in found if each}


def _finding(each: Finding) -> str:
    return f"finding:{each.id}" if each.weight != "note" else ""


def visited(case: Case, folder: Path, agents: Path) -> Seen:
    """Plant, and let the doctor come: host and route at the same time, as the flow does."""
    provider = case.provider or {"goose": "anthropic"}.get(case.harness, "zai")
    vendor = REAL["providers"][provider].get("vendor")
    others = [each for each in SITES if vendor and REAL["providers"][each].get("vendor") == vendor and each != provider]
    sites = [replace(SITES[provider], **case.site), *(SITES[each] for each in others)]
    repo = make_repo(folder / "repo")
    with (
        EmulatedProvider(sites, tls=case.tls) as running,
        _host(case, folder, agents, running.url(provider)) as (home, spec),
    ):
        urls = {site.name: running.url(site.name) for site in sites}
        lock = _emulated(urls)
        world = World(
            home=home,
            repo=repo.path,
            agents=agents,
            provider=provider,
            harness=case.harness,
            urls=urls,
            key=SITES[provider].key,
            model=SITES[provider].models[0],
            lock=lock,
            shipped=copy.deepcopy(lock),
        )
        case.plant(world)
        return _visited(case, world, folder, spec, lambda: len(running.calls))


def _visited(case: Case, world: World, folder: Path, spec: dict[str, Any], asked: Callable[[], int]) -> Seen:
    paths = {"lock": world.lock, "shipped": world.shipped}
    for name, lock in paths.items():
        (folder / f"{name}.json").write_text(json.dumps(lock), encoding="utf-8")
    host = HostSpec(**{**spec, **world.host})
    evening = Evening(folder, str(world.repo), host, folder / "lock.json", harness=case.harness)
    route = Route(host="box", harness=case.harness, provider=world.provider, model=world.model)
    task = evening.task("t1", "Add a greeting").model_copy(update={"route": route})
    began = time.monotonic()
    with evening.night(task, reveal=world.reveal) as night:
        visit = Visit(night, lockfile.load(folder / "shipped.json"), find=case.find)
        looking = threading.Thread(target=visit.look, args=("box",))
        looking.start()
        visit.examine(task)
        looking.join()
        checkup = visit.checkup()
    seconds = time.monotonic() - began
    return Seen(checkup, "\n".join(words.details(checkup)), seconds, asked())


@contextmanager
def _host(case: Case, folder: Path, agents: Path, url: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    place = folder / "host"
    if not case.set_env:
        with loopback(place, path=[str(agents)], env={"SHELL": shutil.which("bash") or "/bin/sh"}) as (_, box):
            yield place / "home", box.model_dump(exclude_defaults=True)
        return
    home = place / "home"
    home.mkdir(parents=True)
    with serving(place, f'SetEnv "HOME={home}" {case.set_env.format(url=url)}') as server:
        spec = {**server.described(home / ".overnight", str(agents), 1), "python": sys.executable}
        yield home, spec


def _emulated(urls: Mapping[str, str]) -> dict[str, Any]:
    """The project's lock with the emulated providers alone, each at its site."""
    lock = copy.deepcopy(REAL)
    lock["providers"] = {name: lock["providers"][name] for name in urls}
    for name, provider in lock["providers"].items():
        real = provider["endpoints"]["anthropic"]["url"]
        for each in provider.get("free_probes", ()):
            below = each["url"].removeprefix(real) if each["url"].startswith(real) else _path(each["url"])
            each["url"] = urls[name] + below
        for endpoint in provider["endpoints"].values():
            endpoint["url"] = urls[name]
        provider.pop("other_urls", None)
        provider["harnesses"] = {each: wiring for each, wiring in provider["harnesses"].items() if each in HARNESSES}
    lock["harnesses"]["opencode"]["env"]["npm_config_registry"] = DEAD  # which it asks at each start (1.18.33)
    return lock


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3]

"""The parts that a matrix stands on, up while it runs: providers, hosts, a repository, and one night for all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from overnight import lockfile
from overnight.git import Repo
from overnight.ledger import Ledger, write
from overnight.lockfile import Header
from overnight.night import Night, now
from overnight.preflight import Checked
from overnight.rehearsal.badways import NOWHERE, refused, unreachable
from overnight.rehearsal.certificate import Flaw
from overnight.rehearsal.matrix.altered import harnesses, hastened, known_as, limits, lock_text
from overnight.rehearsal.matrix.case import Place, Way
from overnight.rehearsal.matrix.cell import Bench, Cell
from overnight.rehearsal.matrix.rootly import small_disk
from overnight.rehearsal.model import Shell, Step, Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Call, Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.route import Route
from overnight.spec import AUTHOR, BatchSpec, HostSpec, Limits, TaskSpec

_KEY = "sk-rehearsal-fake-0123456789abcdef"
_MODEL = "rehearsal-large"
_BATCH, _USER, _BOX = "matrix", "dev", "box"
_DISK_MB = 420
_SHORT_OF_A_TOOL_LIMIT_S = 100.0
_NO_GIT = "#!/bin/sh\necho 'sh: 1: git: not found' >&2\nexit 127\n"
_SERVER_OF: Mapping[Way, Flaw | bool] = {Way.SELF_SIGNED: True, Way.EXPIRED: Flaw.EXPIRED}


@dataclass(frozen=True)
class World:
    """All of it, and the task of each cell by the cell's name."""

    bench: Bench
    tasks: Mapping[str, TaskSpec]


@contextmanager
def world(
    cells: Sequence[Cell], directory: Path, agents: Path, search_path: str, tell: Callable[[str, str, str], None]
) -> Iterator[World]:
    """Everything up and the night ready; nothing runs yet.

    Args:
        directory: An empty one for homes, keys, the repository and the record of every run.
        agents: Where the commands of the agents are.
        search_path: Where git is looked for on this machine.

    Raises:
        OSError: a port, a mount or a folder cannot be had.
    """
    cells = list(cells)
    with ExitStack() as up:
        servers = _servers(cells, up)
        dead, far = up.enter_context(refused()), up.enter_context(unreachable())
        urls = {cell.name: _url(cell, servers, dead, far) for cell in cells}
        path = directory / "lock.json"
        write(path, lock_text(cells, urls, dead))
        lock = lockfile.load(path)
        hosts, host_of = _hosts(cells, directory, agents, up)
        repo = _repository(directory / "repo", search_path)
        tasks = {cell.name: _task(cell, lock, host_of[cell.name], repo) for cell in cells}
        batch = BatchSpec(name=_BATCH, source="matrix", author=AUTHOR, hosts=hosts, tasks=tuple(tasks.values()))
        ledger = Ledger(directory / "state", _BATCH)
        ledger.open_new(batch, path.read_text(encoding="utf-8"), now())
        night = Night(
            batch=batch,
            ledger=ledger,
            lock=lock,
            lock_path=path,
            harnesses=harnesses(cells),
            reveal=lambda _provider: _KEY,
            search_path=search_path,
            tell=tell,
        )
        up.callback(night.close)
        for route in batch.routes:
            night.settle(Checked(route, 0.0))
        server_of = {cell.name: servers[_SERVER_OF.get(cell.case.way, False)] for cell in cells}

        def calls(site: str) -> list[Call]:
            return server_of[site].calls_of(site)

        yield World(Bench(night, calls), tasks)


def _servers(cells: Sequence[Cell], up: ExitStack) -> dict[Flaw | bool, EmulatedProvider]:
    timings = {name: entry.timing for name, entry in lockfile.load().harnesses.items()}
    quiet = {cell.name: limits(cell.case, hastened(timings[cell.harness])).quiet_s for cell in cells}
    servers = {}
    for tls in dict.fromkeys(_SERVER_OF.get(cell.case.way, False) for cell in cells):
        own = [cell for cell in cells if _SERVER_OF.get(cell.case.way, False) == tls]
        tapes = [Tape(cell.matched, _steps(cell, quiet[cell.name])) for cell in own]
        servers[tls] = up.enter_context(EmulatedProvider([_site(cell) for cell in own], tapes, tls=tls))
    return servers


def _site(cell: Cell) -> Site:
    settings = {"accepts": frozenset(Header), **cell.case.site}
    return Site(cell.name, _KEY, fault=cell.case.fault, **settings)


def _steps(cell: Cell, quiet_s: float | None) -> tuple[Step, ...]:
    busy = f"{min((quiet_s or 0) + 20, _SHORT_OF_A_TOOL_LIMIT_S):g}"
    return tuple(
        replace(step, command=step.command.replace("{busy_s}", busy)) if isinstance(step, Shell) else step
        for step in cell.case.steps
    )


def _url(cell: Cell, servers: Mapping[Flaw | bool, EmulatedProvider], dead: str, far: str) -> str:
    own = servers[_SERVER_OF.get(cell.case.way, False)].url(cell.name)
    return {
        Way.WRONG_PATH: f"{own}/v1",
        Way.REFUSED: dead,
        Way.UNRESOLVED: NOWHERE,
        Way.BLACKHOLE: far,
        Way.TLS_TO_PLAIN: own.replace("http://", "https://"),
    }.get(cell.case.way, own)


def _hosts(
    cells: Sequence[Cell], directory: Path, agents: Path, up: ExitStack
) -> tuple[dict[str, HostSpec], dict[str, str]]:
    """The hosts by name, and which of them each cell has: a small disk is shared with nobody."""
    host_of = {cell.name: _host_of(cell) for cell in cells}
    hosts = {}
    key = directory / "id_ed25519"
    public = make_key(key)
    shims = directory / "no-git"
    shims.mkdir()
    (shims / "git").write_text(_NO_GIT, encoding="ascii")
    (shims / "git").chmod(0o755)
    python = str(Path(shutil.which("python3", path=os.defpath) or sys.executable).parent)
    for cell in cells:
        name = host_of[cell.name]
        if name in hosts:
            continue
        home = directory / "hosts" / name
        home.mkdir(parents=True)
        if cell.case.place is Place.SMALL_DISK:
            up.enter_context(small_disk(home, _DISK_MB))
        host = up.enter_context(LoopbackHost(_USER, [public], home=home))
        first = [str(shims)] if cell.case.place is Place.NO_GIT else []
        hosts[name] = HostSpec(
            address=host.address,
            port=host.port,
            user=_USER,
            key_file=key,
            host_key=host.host_key,
            slots=100,
            path=(*first, str(agents), python),
            min_free_bytes=0,  # a small disk is there to be filled
        )
    return hosts, host_of


def _host_of(cell: Cell) -> str:
    match cell.case.place:
        case Place.SMALL_DISK:
            return cell.name
        case Place.NO_GIT:
            return "no-git"
    return _BOX


def _task(cell: Cell, lock: lockfile.ProviderLock, host: str, repo: Repo) -> TaskSpec:
    known = known_as(cell)
    bounds: Limits = limits(cell.case, lock.harnesses[known].timing)
    return TaskSpec(
        id=cell.name,
        repo=str(repo.path),
        base="main",
        instruction=f"Add a greeting. {cell.matched}",
        route=Route(host=host, harness=known, provider=cell.name, model=_MODEL),
        limits=bounds,
        ask_for_commit=False,
        field=f"tasks.{cell.name}",
    )


def _repository(path: Path, search_path: str) -> Repo:
    path.mkdir()
    repo = Repo(path, search_path)
    repo.run("init", "-q", "-b", "main")
    (path / "README").write_text("hello\n", encoding="utf-8")
    repo.run("add", "-A")
    repo.run("-c", "user.name=You", "-c", "user.email=you@localhost", "commit", "-q", "-m", "Begin")
    return repo

"""Builds nights on emulated parts: a repository, a lock that knows the emulated sites, a batch, and its stages."""

from __future__ import annotations

import atexit
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from overnight import lockfile
from overnight.failures import FailureError
from overnight.git import Repo
from overnight.harnesses import HARNESSES
from overnight.ledger import Ledger
from overnight.lockfile import Header
from overnight.night import Night, Stages
from overnight.rehearsal.model import Shell, Tape
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.report import RunReport
from overnight.route import Route
from overnight.spec import BatchSpec, Budget, HostSpec, Limits, Peak, TaskSpec

KEY = "sk-rehearsal-fake-0123456789abcdef"
MODEL = "rehearsal-large"
SEARCH_PATH = os.defpath
PYTHON = str(Path(shutil.which("python3", path=os.defpath) or sys.executable).parent)
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "You"), ("EMAIL", "you@example.invalid"))
}
COMMIT = "echo hello > greeting.txt && git add -A && git commit -qm 'Add greeting'"
STEPS = tuple(Shell(f"echo {n} > {n}.txt && git add -A && git commit -qm 'Step {n}' && sleep 0.4") for n in range(6))
TAPES = (Tape("Add a greeting", (Shell(COMMIT),)), Tape("Do nothing", ()), Tape("Go six steps", STEPS))


def git(place: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """git as its user would call it, with an empty HOME."""
    variables = {"HOME": "/nonexistent", "PATH": os.defpath, **IDENTITY, **(env or {})}
    argv = ["git", "-C", str(place), *arguments]
    return subprocess.run(argv, env=variables, capture_output=True, check=True, text=True, timeout=60).stdout.strip()


def make_repo(path: Path) -> Repo:
    """A repository with one commit on main."""
    shutil.copytree(_template(), path)
    return Repo(path, SEARCH_PATH)


@cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="overnight-repo-"))
    atexit.register(shutil.rmtree, path)
    git(path, "init", "-q", "-b", "main")
    (path / "README").write_text("hello\n")
    (path / ".gitignore").write_text("ignored/\n")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "base")
    return path


def commit(place: Path, name: str, text: str = "text\n") -> str:
    """A commit that adds one file; its sha."""
    (place / name).write_text(text)
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", f"add {name}")
    return git(place, "rev-parse", "HEAD")


def untouched(repo: Path) -> tuple[str, bytes, str, list[str]]:
    """All that collecting must leave as it is: HEAD, index, status, and the names in the work tree."""
    index = (repo / ".git" / "index").read_bytes()
    head = (repo / ".git" / "HEAD").read_text()
    status = git(repo, "status", "--porcelain", env={"GIT_OPTIONAL_LOCKS": "0"})
    return head, index, status, sorted(p.name for p in repo.iterdir())


def make_lock(
    path: Path,
    url: str,
    *,
    probe_s: float = 15,
    wrong_variable: bool = False,
    change: Mapping[str, Any] | None = None,
) -> Path:
    """The project's lock with the rehearsal provider at `url`.

    Args:
        probe_s: How long probes of every harness wait for an answer.
        wrong_variable: Write the key to the variable that sends the other header, as in the incident.
        change: Written over the harness entries: name -> field -> value.
    """
    lock: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
    provider = copy.deepcopy(lock["providers"]["rehearsal"])
    for endpoint in provider["endpoints"].values():
        endpoint["url"] = url
    for name, wiring in provider["harnesses"].items():
        if wrong_variable:
            right = next(v for v, text in wiring["set"].items() if "{key}" in text)
            other = next((v for v, h in HARNESSES[name].HEADER_OF.items() if h is Header.X_API_KEY), right)
            wiring["set"][other] = wiring["set"].pop(right)
            wiring["empty"], wiring["absent"] = {}, {}
    lock["providers"] = {"rehearsal": provider}
    for name, entry in lock["harnesses"].items():
        entry["probe"]["timing"]["request_timeout_s"] = probe_s
        entry.update((change or {}).get(name, {}))
    path.write_text(json.dumps(lock), encoding="utf-8")
    return path


@contextmanager
def loopback(
    directory: Path, *, path: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[tuple[LoopbackHost, HostSpec]]:
    """A host with a fresh home, and its entry in a batch file. `env` is added to what its sshd gives."""
    home = directory / "home"
    home.mkdir(parents=True)
    public = make_key(directory / "key")
    with LoopbackHost("dev", [public], home=home, env=env) as host:
        spec = HostSpec(
            address=host.address,
            port=host.port,
            user="dev",
            key_file=directory / "key",
            host_key=host.host_key,
            path=(*path, PYTHON),
        )
        yield host, spec


@dataclass
class Evening:
    """All that a night needs, so that a test says only what is special about its own."""

    directory: Path
    repo: str
    host: HostSpec
    lock: Path
    key: str = KEY
    harness: str = "scripted"
    base: str = "main"
    limits: Limits = field(default_factory=lambda: Limits(total_s=120, first_event_s=None, quiet_s=None, grace_s=0.5))
    budget: Budget = field(default_factory=Budget)
    peak: Peak = "allow"
    told: list[str] = field(default_factory=list)
    state: Path = Path()

    def task(self, id: str, instruction: str, verify: str | None = None, harness: str = "") -> TaskSpec:
        route = Route(host="box", harness=harness or self.harness, provider="rehearsal", model=MODEL)
        return TaskSpec(
            id=id,
            repo=self.repo,
            base=self.base,
            instruction=instruction,
            route=route,
            limits=self.limits,
            verify=verify,
            ask_for_commit=False,
            field="tasks[0]",
        )

    @contextmanager
    def night(
        self, *tasks: TaskSpec, batch_id: str = "b1", reveal: Callable[[str], str] | None = None
    ) -> Iterator[Night]:
        named = {"name": "t", "source": "t.yaml", "author": "Agent <a@b.c>"}
        batch = BatchSpec(**named, hosts={"box": self.host}, tasks=tasks, budget=self.budget, peak=self.peak)
        self.state = self.directory / "state"
        ledger = Ledger(self.state, batch_id)
        if not ledger.directory.exists():
            ledger.open_new(batch, self.lock.read_text(encoding="utf-8"), datetime.now(UTC))
        night = Night(
            batch=batch,
            ledger=ledger,
            lock=lockfile.load(self.lock),
            lock_path=self.lock,
            harnesses=HARNESSES,
            reveal=reveal or (lambda _provider: self.key),
            search_path=SEARCH_PATH,
            tell=lambda *words: self.told.append(" | ".join(words)),
        )
        try:
            yield night
        finally:
            night.close()


def carry_out(night: Night, task: TaskSpec, attempt: int = 1) -> RunReport:
    """One attempt from dispatch to its outcome: what the batch flow does, without Prefect."""
    plan, stages = night.planner.resolve(task, attempt, None), Stages(0.0)
    failure = None
    try:
        with stages.timed("start"):
            plan, stages.handle = night.dispatch(plan)
        with stages.timed("run"):
            stages.watched = night.monitor(plan)
        assert not stages.watched.undecided
        proven = night.diagnose(plan, stages)
        if proven is not None and proven.shuts_route:
            night.shut(plan.route, proven)
        with stages.timed("collect"):
            stages.collected = night.collect(plan, stages.handle)
        if plan.verify and stages.collected.tip:
            stages.checked = night.verify(plan, stages.handle, stages.collected.tip)
    except FailureError as error:
        failure = error.failure
    run = night.report(plan, stages, failure)
    night.decide(run)
    return run


def script(*steps: str) -> str:
    """An instruction that our own agent follows step by step."""
    return "\n".join(["```script", *steps, "```"])


def stop_when(night: Night, true: Callable[[], bool]) -> None:
    """Cancel the night, from a thread, as soon as something is true."""

    def wait() -> None:
        while not true():
            time.sleep(0.05)
        night.stop("cancel")

    threading.Thread(target=wait, daemon=True).start()

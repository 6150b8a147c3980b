"""Everything one schedule plays in: three machines, a provider, a repository, a state directory, a batch file."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.chaos.machine import Machine, pids
from tests.chaos.schedule import HOSTS, Schedule, Work
from tests.overnight.nights import KEY, MODEL, make_lock, make_repo, script

ROOT = Path(__file__).resolve().parents[2]
TOTAL_S, ENDLESS_S, LOUD_BYTES = 90, 7, 150_000


@dataclass
class World:
    """One folder, and what lives in it. `known` are the processes that were there before."""

    folder: Path
    schedule: Schedule
    machines: dict[str, Machine]
    lock: Path
    file: Path
    known: frozenset[int]
    ports: frozenset[int] = frozenset()
    controllers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    twins: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ending: bool = False
    """It was cancelled: whoever goes on with it must start nothing."""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def side(self) -> Path:
        return self.folder / "side"

    @property
    def batch_id(self) -> str:
        """Empty until the batch is recorded."""
        found = sorted(self.state.glob("batches/*/batch.json"))
        return found[0].parent.name if found else ""

    @property
    def batch_folder(self) -> Path:
        return self.state / "batches" / self.batch_id

    @property
    def controller(self) -> subprocess.Popen[bytes] | None:
        """The newest one, whether it lives or not."""
        return self.controllers[-1] if self.controllers else None

    def running(self) -> bool:
        """Whether the agent of some task, not of a probe, ever started."""
        task_run = re.compile(rf"{re.escape(self.batch_id)}\.t\d+\.\d+\.notes")
        return bool(self.batch_id) and any(task_run.fullmatch(path.name) for path in self.side.iterdir())

    def start(self) -> None:
        """The batch's next controller: its first, one that resumes it, or one that only ends it."""
        self.controllers.append(self._start(self._words(), f"controller-{len(self.controllers)}.log"))

    def start_twin(self) -> None:
        self.twins.append(self._start(self._words(), f"twin-{len(self.twins)}.log"))

    def _words(self) -> list[str]:
        real = self.schedule.controller == "batch"
        common = ["--state", str(self.state)]
        if self.ending and self.batch_id and real:
            return [str(Path(sys.executable).with_name("overnight")), "cancel", self.batch_id, *common]
        module = "flows.batch" if real else "tests.chaos.light"
        what = ["--resume", self.batch_id] if self.batch_id else [str(self.file)]
        more = ["--ending"] if self.ending and self.batch_id else []
        locked = ["--lock", str(self.lock), "--on-interrupt", "cancel"]
        return [sys.executable, "-m", module, *what, *common, *locked, *more]

    def _start(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "LANG": "C.UTF-8", "DO_NOT_TRACK": "1"}
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                argv,
                preexec_fn=_heed_interrupts,
                cwd=ROOT,
                env={**env, "OVERNIGHT_KEY_REHEARSAL": KEY},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def prefect(self) -> dict[str, Any]:
        """What the server of the state directory recorded of itself."""
        path = self.state / "prefect" / "server.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def close(self) -> None:
        for process in (*self.controllers, *self.twins):
            process.kill()
            process.wait()


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a runner in the background ignores it, and children inherit that


@contextmanager
def world(folder: Path, schedule: Schedule, prefect: Path | None) -> Iterator[World]:
    """The world of one schedule, up and ready; gone afterwards but for what lies in its folder.

    Args:
        prefect: Folder of a Prefect server that is kept up for several schedules.
    """
    known = frozenset(pids())
    for name in ("home", "side", "agents", "state"):
        (folder / name).mkdir(parents=True)
    agent = folder / "agents" / "python3"
    agent.write_text("#!/usr/bin/python3 -IS\n" + Path(__file__).with_name("agent.py").read_text())
    agent.chmod(0o755)
    if prefect is not None:
        (folder / "state" / "prefect").symlink_to(prefect)
    make_repo(folder / "repo")
    with ExitStack() as stack:
        provider = stack.enter_context(EmulatedProvider([Site("well", KEY)]))
        lock = make_lock(folder / "lock.json", provider.url("well"))
        offsets = {name: 1000 * (number + schedule.seed % 90) for number, name in enumerate(HOSTS)}
        jumping = {fault.host for fault in schedule.faults if fault.kind == "jump-clock"}
        made = {name: Machine(name, folder / name, offsets[name], name in jumping) for name in HOSTS}
        machines = {name: stack.enter_context(machine) for name, machine in made.items()}
        here = World(folder, schedule, machines, lock, folder / "batch.yaml", known)
        here.file.write_text(json.dumps(_batch(here)))
        stack.callback(here.close)
        yield here


def _batch(here: World) -> dict[str, Any]:
    route = {"harness": "scripted", "provider": "rehearsal", "model": MODEL}
    limits = {"total_s": TOTAL_S, "first_event_s": None, "quiet_s": None, "grace_s": 0.5}
    limits |= {"attempts": here.schedule.attempts}
    return {
        "schema": 1,
        "name": "chaos",
        "hosts": {n: m.described(here.schedule.slots, here.folder / "agents") for n, m in here.machines.items()},
        "defaults": {"repo": str(here.repo), "base": "main", "ask_for_commit": False, "route": route, "limits": limits},
        "tasks": [_task(work) for work in here.schedule.work],
    }


def _task(work: Work) -> dict[str, Any]:
    limits = {"endless": {"total_s": ENDLESS_S}, "loud": {"max_log_bytes": LOUD_BYTES}}.get(work.shape, {})
    return {
        "id": work.task_id,
        "instruction": script(*map(json.dumps, _steps(work))),
        "route": {"host": work.host},
        "limits": limits,
        **({"verify": f"test -s {work.task_id}-0.txt"} if work.verified else {}),
    }


def _steps(work: Work) -> Iterator[dict[str, Any]]:
    if work.shape == "daemon":
        yield {"daemon": True}
    for number, wait_s in enumerate(work.waits):
        yield {"sleep": wait_s}
        if work.blob:
            yield {"blob": work.blob // len(work.waits), "seed": work.seed + number}
        if work.shape != "idle":
            yield {"commit": f"{work.task_id}-{number}"}
    if work.shape == "crash":
        yield {"exit": 3}
    if work.shape == "endless":
        yield {"sleep": 300}
    if work.shape == "loud":
        yield {"blob": 4 * LOUD_BYTES, "seed": work.seed}
        yield {"sleep": 300}


def keep(folder: Path, place: Path) -> Path:
    """Move a schedule's folder to where somebody can look at it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    shutil.move(folder, place)
    return place


def settled(here: World, since: float) -> bool:
    """Whether a controller that was started at `since` (wall clock) brought the batch to a report with no run left."""
    path = here.batch_folder / "report.json"
    if not here.batch_id or not path.exists() or path.stat().st_mtime < since:
        return False
    return not any(run["left_running"] for run in json.loads(path.read_text())["runs"])

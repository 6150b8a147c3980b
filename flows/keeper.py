"""`overnight up` in the background: keeps the private server and its workers running until it is told to stop.

What it was told and what it started stands in `<state>/prefect/keeper.json`, so
that `overnight up` and `overnight down` can clean up after one that was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flows.private_server import Door, PrivateServer, private_server, revived
from flows.processes import end, living
from overnight.failures import BadInput
from overnight.ledger import write
from overnight.night import now
from overnight.report import EXIT_BAD_INPUT

POOL = "overnight"
PROJECT = Path(__file__).resolve().parent.parent
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FLOWS_S, LONGEST_WAIT_S, STEADY_S = 60.0, 60.0, 60.0


@dataclass(frozen=True)
class Orders:
    """What to keep running; `bootstrap` are the arguments of `python -m deployments.bootstrap`."""

    door: Door = field(default_factory=Door)
    workers: int = 1
    limit: int = 5
    bootstrap: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Orders:
        return cls(Door(**data["door"]), data["workers"], data["limit"], tuple(data["bootstrap"]))


class Backoff:
    """How long to wait before something that keeps dying is started again: 1, 2, 4 ... 60 s; steady life resets it."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._started = -STEADY_S
        self._allowed = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._allowed

    def started(self) -> None:
        at = time.monotonic()
        self._wait_s = 1.0 if at - self._started >= STEADY_S else min(2 * self._wait_s, LONGEST_WAIT_S)
        self._started, self._allowed = at, at + self._wait_s


@dataclass
class Worker:
    """One worker process; `process` may be one that an earlier keeper left behind."""

    name: str
    process: psutil.Process | None = None
    backoff: Backoff = field(default_factory=Backoff)

    def lives(self) -> bool:
        if self.process is None:
            return False
        with suppress(psutil.TimeoutExpired):
            self.process.wait(0)  # also what lets a dead child of ours leave the process table
            return False
        return self.process.is_running()


class Keeper:
    """Runs in one process for one state directory.

    Args:
        workers: Those that run already, left by a keeper that was killed, stay.
    """

    def __init__(
        self, server: PrivateServer, orders: Orders, workers: Sequence[Worker], environ: Mapping[str, str]
    ) -> None:
        self._server = server
        self._orders = orders
        self._workers = workers
        self._environ = environ
        self._backoff = Backoff()
        self._ready = False

    def keep(self) -> None:
        """Deploy; then start what is missing, now and whenever it dies. Ends with KeyboardInterrupt only.

        Raises:
            BadInput: the bootstrap refused.
        """
        words = bootstrap(self._server, self._orders.bootstrap, self._environ)
        while True:
            if not self._server.lives() and self._backoff.due():
                self._revive()
            missing = [w for w in self._workers if not w.lives() and w.backoff.due()]
            for worker in missing:
                worker.backoff.started()
                _say(f"starting worker {worker.name}")
                worker.process = psutil.Process(self._start(worker.name).pid)
            if not self._ready:
                _say(f"ready: {self._server.url}")
            if missing or not self._ready:
                self._ready = True
                note(self._server.directory, self._orders, "ready", self._workers, words)
            time.sleep(0.5)

    def _revive(self) -> None:
        self._backoff.started()
        _say("the server died: starting it again")
        try:
            self._server = revived(self._server, self._environ)
        except BadInput as error:
            _say(f"{error.where}: {error.field}: {error.problem}")

    def stop(self) -> None:
        """Ask flow runs to leave their agents to the hosts, for up to 60 s; then end the workers.

        Flow runs first: a worker that ends kills them at once, and what they follow would stay Running.
        """
        workers = [w.process for w in self._workers if w.process is not None and w.lives()]
        asked: set[psutil.Process] = set()
        deadline = time.monotonic() + FLOWS_S
        while (running := _flow_processes(workers)) and time.monotonic() < deadline:
            for process in running - asked:  # one more may have been started meanwhile
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            asked |= running
            time.sleep(0.2)
        end(workers)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", POOL]
        argv += ["--name", name, "--limit", str(self._orders.limit), "--install-policy", "never"]
        # Prefect's own 10 s are long for somebody who just pressed a button
        env = {"PREFECT_WORKER_QUERY_SECONDS": "3", **self._server.environment(self._environ)}
        with (self._server.directory / f"worker-{name}.log").open("ab") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )


def _flow_processes(workers: Sequence[psutil.Process]) -> set[psutil.Process]:
    """Flow runs are children of their worker, in process groups of their own."""
    found: set[psutil.Process] = set()
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            for child in worker.children():
                words = " ".join(child.cmdline())
                if "prefect.engine" in words or "_workspace_supervisor" in words:
                    found.add(child)
    return found


def note(directory: Path, orders: Orders, stage: str, workers: Sequence[Worker], words: str = "") -> None:
    """Write `keeper.json` in the name of this process: what the next `overnight up` or `down` has to know."""
    own = psutil.Process()
    alive = [(w.name, w.process) for w in workers if w.process is not None and w.lives()]
    record = {
        "schema": 1,
        "pid": own.pid,
        "born": own.create_time(),
        "stage": stage,
        "words": words,
        "orders": orders.to_json(),
        "workers": [{"name": name, "pid": each.pid, "born": each.create_time()} for name, each in alive],
    }
    write(directory / "keeper.json", json.dumps(record, indent=2))


def noted(directory: Path) -> dict[str, Any] | None:
    """What the last keeper wrote; it may be dead: ask `living` about it."""
    try:
        found: dict[str, Any] = json.loads((directory / "keeper.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def bootstrap(server: PrivateServer, arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """Deploy what workers run; what it said. A program of its own: deployments know flows, never the other way round.

    Raises:
        BadInput: it refused; its words are the problem.
    """
    argv = [sys.executable, "-m", "deployments.bootstrap", *arguments]
    done = subprocess.run(
        argv, cwd=PROJECT, env=server.environment(environ), capture_output=True, text=True, check=False
    )
    (server.directory / "bootstrap.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        if done.returncode == EXIT_BAD_INPUT and len(lines) == 2 and lines[0].count(": ") >= 2:
            where, field, problem = lines[0].split(": ", 2)
            raise BadInput(where, field, problem, lines[1].strip().removeprefix("mend: "))
        raise BadInput(str(server.directory), "bootstrap", lines[-1], f"Read {server.directory / 'bootstrap.log'}")
    return done.stdout


def keep(state: Path, orders: Orders, environ: Mapping[str, str]) -> int:
    """Be the keeper of a state directory until SIGTERM, SIGINT or SIGHUP; 0, or 2 when nothing could be started.

    What went wrong before it was ready stands in `keeper.json`, stage `refused`; `overnight up` reads it there.
    """
    for number in HEEDED:  # also what makes children heed them again
        signal.signal(number, signal.default_int_handler)
    directory = state / "prefect"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    workers = [Worker(f"overnight-{number}") for number in range(1, orders.workers + 1)]
    with _the_only_one(directory) as alone:
        if not alone:
            return 0
        for left in (noted(directory) or {}).get("workers", []):
            for worker in workers:
                if worker.name == left["name"]:
                    worker.process = living(left)
        try:
            note(directory, orders, "starting", workers)
            with private_server(state, environ, orders.door) as server:
                keeper = Keeper(server, orders, workers, environ)
                try:
                    keeper.keep()
                finally:
                    for number in HEEDED:
                        signal.signal(number, signal.SIG_IGN)  # once is enough
                    _say("stopping")
                    keeper.stop()
        except KeyboardInterrupt:
            (directory / "keeper.json").unlink(missing_ok=True)
        except BadInput as error:
            refusal = json.dumps([error.where, error.field, error.problem, error.mend])
            note(directory, orders, "refused", workers, refusal)
            return EXIT_BAD_INPUT
    return 0


@contextmanager
def _the_only_one(directory: Path) -> Iterator[bool]:
    with (directory / "keeper.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _say(words: str) -> None:
    sys.stderr.write(f"{now():%Y-%m-%d %H:%M:%S} {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":  # python -m flows.keeper STATE, orders on standard input
    sys.exit(keep(Path(sys.argv[1]), Orders.from_json(json.load(sys.stdin)), os.environ))

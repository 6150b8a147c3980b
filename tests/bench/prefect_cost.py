"""What Prefect costs per coding task: in one process, spread on SQLite, spread on PostgreSQL and Redis.

    python -m tests.bench.prefect_cost [--tasks 16] [--at-once 5]
    python -m tests.bench.prefect_cost --threshold

The agent is our own, on a real sshd, and has nothing to do: what is measured is
everything around it. `--threshold` asks instead how many flow runs at once a
server stands, on SQLite and on PostgreSQL. Processor seconds tell more than
wall time on a busy machine. About 4 minutes on 2 cores, the threshold 10.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType

from overnight.rehearsal.model import Shell, Tape, Wait
from tests.flows.teamed import Team, team
from tests.flows.world import start_batch
from tests.overnight.nights import COMMIT, MODEL

TASK, LASTING = "Add a greeting", "Take five seconds"
TAPES = (Tape(TASK, (Shell(COMMIT),)), Tape(LASTING, (Shell(COMMIT), Wait(5))))
LIMITS = {"first_event_s": None, "quiet_s": None, "total_s": 600, "grace_s": 1, "attempts": 1}
ACCESS = re.compile(r'"(GET|POST|PUT|PATCH|DELETE) /api/')
AT_ONCE = (5, 10, 20)
IN_PROCESS, SQLITE, POSTGRESQL = "in process, SQLite", "spread, SQLite", "spread, PostgreSQL + Redis"


@dataclass(frozen=True)
class Seen:
    """Counters of a server and its clients at one moment; after `per_task` what one coding task added."""

    flow_runs: float
    task_runs: float
    calls: float
    database_bytes: float
    server_cpu_s: float
    backend_cpu_s: float
    client_cpu_s: float
    wall_s: float

    def per_task(self, before: Seen, tasks: int) -> Seen:
        return Seen(*((getattr(self, name) - getattr(before, name)) / tasks for name in self.__dataclass_fields__))


def cpu_s(processes: list[psutil.Process]) -> float:
    """Processor seconds of these and of children they have buried."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def backends() -> list[psutil.Process]:
    tree = psutil.Process().children(recursive=True)
    return [process for process in tree if process.name() in ("postgres", "redis-server")]


def database_bytes(here: Team) -> float:
    if here.ask is not None:
        return float(here.ask("select pg_database_size('prefect')"))
    with sqlite3.connect(here.directory / "prefect" / "prefect.db") as link:
        (pages,), (size,) = link.execute("pragma page_count").fetchone(), link.execute("pragma page_size").fetchone()
    link.close()
    return float(pages * size)


def look(here: Team) -> Seen:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    with here.client() as client:
        flow_runs = client.request("POST", "/flow_runs/count", json={}).json()
        task_runs = client.request("POST", "/task_runs/count", json={}).json()
    return Seen(
        flow_runs=flow_runs,
        task_runs=task_runs,
        calls=sum(len(ACCESS.findall(api.log.read_text())) for api in here.apis),
        database_bytes=database_bytes(here),
        server_cpu_s=cpu_s([process for each in (*here.apis, *here.services) for process in each.tree()]),
        backend_cpu_s=cpu_s(backends()),
        # a batch of this terminal is a buried child of ours; flow runs are children of their worker
        client_cpu_s=cpu_s([p for each in here.workers for p in each.tree()]) + children.ru_utime + children.ru_stime,
        wall_s=time.monotonic(),
    )


class Memory(threading.Thread):
    """The most memory that the clients ever held together, looked at every half second."""

    def __init__(self, clients: Callable[[], list[psutil.Process]]) -> None:
        super().__init__(daemon=True)
        self._clients = clients
        self._ended = threading.Event()
        self.peak_bytes = 0
        self.before_bytes = self._now()

    def _now(self) -> int:
        total = 0
        for process in self._clients():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_info().rss
        return total

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, self._now())

    def grown_mb(self) -> float:
        self._ended.set()
        self.join()
        return (self.peak_bytes - self.before_bytes) / 1e6


def batch_file(here: Team, name: str, tasks: int, *, spread: bool, instruction: str = TASK) -> Path:
    route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": MODEL}
    defaults = {"repo": str(here.repo), "base": "main", "route": route, "limits": LIMITS, "ask_for_commit": False}
    wanted = [{"id": f"t{i}", "instruction": instruction} for i in range(tasks)]
    whole = {"schema": 1, "name": name, "spread": spread, "hosts": here.hosts, "defaults": defaults, "tasks": wanted}
    path = here.directory / f"{name}.yaml"
    path.write_text(json.dumps(whole))
    return path


def in_process(here: Team, tasks: int) -> float:
    """Carry a batch out in one process; the memory it took in MB."""
    args: list[str | Path] = [batch_file(here, "within", tasks, spread=False), "--lock", here.directory / "lock.json"]
    process = start_batch([*args, "--state", here.directory / "state"], here.env)
    memory = Memory(lambda: [psutil.Process(process.pid)] if process.poll() is None else [])
    memory.before_bytes = 0
    memory.start()
    said = process.communicate()
    if process.returncode:
        raise SystemExit("".join(said))
    return memory.grown_mb()


def spread(here: Team, tasks: int) -> float:
    """Carry a batch out on the worker; the memory all its flow runs took in MB."""
    memory = Memory(lambda: [process for each in here.workers for process in each.tree()])
    memory.start()
    run = here.ended(here.start("batch/batch", files=[str(batch_file(here, "wide", tasks, spread=True))]), 900)
    if run.state is None or not run.state.is_completed():
        raise SystemExit(f"the batch did not succeed: {run.state}")
    return memory.grown_mb()


@contextmanager
def served(at_once: int, apis: int) -> Iterator[Team]:
    with (
        tempfile.TemporaryDirectory(prefix="overnight-bench-") as place,
        team(Path(place), TAPES, ("box",), at_once, apis, PREFECT_SERVER_LOGGING_LEVEL="INFO") as here,
    ):
        yield here


def settled(here: Team) -> Seen:
    """A look once the server has recorded all task runs, which it does late."""
    seen, before = look(here), -1.0
    while seen.task_runs != before:
        before = seen.task_runs
        time.sleep(3)
        seen = look(here)
    return seen


def measure(carry_out: Callable[[Team, int], float], here: Team, tasks: int) -> tuple[Seen, float]:
    before = settled(here)
    memory_mb = carry_out(here, tasks)
    wall_s = time.monotonic() - before.wall_s
    after = settled(here)
    return Seen(**{**vars(after), "wall_s": before.wall_s + wall_s}).per_task(before, tasks), memory_mb


def cost(tasks: int, at_once: int) -> None:
    found: dict[str, tuple[Seen, float]] = {}
    with served(at_once, apis=0) as here:
        found[IN_PROCESS] = measure(in_process, here, tasks)
        here.add_worker(0, at_once + 1)
        found[SQLITE] = measure(spread, here, tasks)
    with served(at_once, apis=1) as here:
        here.add_worker(0, at_once + 1)
        found[POSTGRESQL] = measure(spread, here, tasks)
    rows: dict[str, Callable[[Seen], float]] = {
        "flow runs": lambda seen: seen.flow_runs,
        "task runs": lambda seen: seen.task_runs,
        "API calls": lambda seen: seen.calls,
        "database, kB": lambda seen: seen.database_bytes / 1e3,
        "server, CPU s": lambda seen: seen.server_cpu_s,
        "PostgreSQL and Redis, CPU s": lambda seen: seen.backend_cpu_s,
        "client, CPU s": lambda seen: seen.client_cpu_s,
        f"wall s, {at_once} at once": lambda seen: seen.wall_s,
    }
    show(["per coding task", *found])
    show(["---"] * (len(found) + 1))
    for name, of in rows.items():
        values = [of(seen) for seen, _ in found.values()]
        show([name, *(f"{value:.2f}{_times(value, values[0])}" for value in values)])
    memory = [most for _, most in found.values()]
    show(["clients together, peak RSS MB", *(f"{most:.0f}{_times(most, memory[0])}" for most in memory)])


def _times(value: float, first: float) -> str:
    return f" (x{value / first:.1f})" if first and value != first else ""


def threshold() -> None:
    """So many tasks as flow runs at once, each five seconds of work."""
    show(["flow runs at once", "database", "wall s", "server CPU s", "flow runs crashed", "locked", "API errors"])
    show(["---"] * 7)
    for apis, name in ((0, "SQLite"), (1, "PostgreSQL")):
        with served(max(AT_ONCE), apis) as here:
            here.add_worker(0, max(AT_ONCE) + 1)
            for at_once in AT_ONCE:
                before, said, dead = look(here), len(logged(here)), crashed(here)
                path = batch_file(here, f"n{at_once}", at_once, spread=True, instruction=LASTING)
                run = here.ended(here.start("batch/batch", files=[str(path)]), 900)
                if run.state is None or not run.state.is_completed():
                    raise SystemExit(f"the batch did not succeed: {run.state}")
                after, log = look(here), logged(here)[said:]
                show(
                    [
                        str(at_once),
                        name,
                        f"{after.wall_s - before.wall_s:.0f}",
                        f"{after.server_cpu_s - before.server_cpu_s:.0f}",
                        f"{crashed(here) - dead}",
                        str(log.count("database is locked")),
                        str(len(re.findall(r'HTTP/1.1" 5\d\d', log))),
                    ]
                )


def logged(here: Team) -> str:
    return "".join(api.log.read_text() for api in here.apis)


def crashed(here: Team) -> int:
    dead = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])))
    return len(here.call(lambda client: client.read_flow_runs(flow_run_filter=dead)))


def show(cells: list[str]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="What Prefect costs per coding task.")
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument("--threshold", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped on the way out
    machine = f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, {platform.machine()}"
    load = f"load {os.getloadavg()[0]:.1f} before"
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}, {load}\n\n")
    if options.threshold:
        threshold()
    else:
        cost(options.tasks, options.at_once)


if __name__ == "__main__":
    main()

"""What it costs to follow many living runs: one 300-byte event each per 0.5 s, on two hosts.

    python -m tests.bench.streams [--seconds 15] [--most 1000]

Two real sshd and the real follower on each. One writer stands in for the agents
and their supervisors of both hosts: it holds every run's lock, appends to every
run's output and beats every run's heart every 2 s, as a supervisor does; 1,000
interpreters would measure this machine's memory. Our side is whole: a process
with Prefect loaded, which follows, stores, reads and judges every run with a
thread for each, as a batch does. The latency of an event is from the moment
before it was written until it was judged.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from overnight.events import Output, RunEvent
from overnight.guard import Guard
from overnight.harnesses import HARNESSES
from overnight.ledger import Ledger
from overnight.monitor import watched
from overnight.plan import RunPlan
from overnight.spec import HostSpec
from overnight.station import Station
from overnight.supervisor import RECORD_BYTES, boot_id
from overnight.transcript import Said
from overnight.watch import Watch
from tasks.calls import in_thread
from tests import sshd
from tests.bench.fit import line, percentile
from tests.bench.rig import Part, Row, command_of, folder, parser, quiet, tell, within
from tests.flows.world import ROOT
from tests.overnight.desks import plan_of
from tests.overnight.nights import KEY, PYTHON

EVERY_S, EVENT_BYTES, BEAT_S = 0.5, 300, 2.0
COUNTS = (10, 100, 500, 1000)
SETTLE_S = 60.0


Judged = tuple[float, bytes]
"""A moment, and the bytes that had been judged by then."""


class Clocked(Watch):
    """A watch that notes when its events came to be judged."""

    def __init__(self, plan: RunPlan, judged: list[Judged]) -> None:
        super().__init__(plan, HARNESSES["scripted"], ())
        self._judged = judged

    def take(self, event: RunEvent) -> list[Said]:
        found = super().take(event)
        if isinstance(event, Output):
            self._judged.append((time.monotonic(), event.data))
        return found


def ages(judged: Sequence[Judged]) -> list[float]:
    """How old each event was then; reckoned afterwards, so that it costs the measured process nothing meanwhile."""
    return [at_s - float(part.split(b'"', 1)[0]) for at_s, data in judged for part in data.split(b'"at": "')[1:]]


def write(root: Path, run_ids: Sequence[str]) -> None:
    """Be all agents and all supervisors of a host, until told to end. Every run's turn comes at its own moment."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    began, locks = time.monotonic(), []
    for run_id in run_ids:
        place = root / "runs" / run_id
        place.mkdir(parents=True)
        (place / "claim").write_text('{"digest": "d"}')
        locks.append((place / "lock").open("w"))
        fcntl.flock(locks[-1], fcntl.LOCK_EX)
        (place / "err").touch()
        started = {"schema": 1, "pid": os.getpid(), "supervisor": os.getpid(), "boot_id": boot_id(), "boot_s": began}
        (place / "started.json").write_text(json.dumps(started))
    outs = [os.open(root / "runs" / each / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for each in run_ids]
    beats = [os.open(root / "runs" / each / "hb", os.O_WRONLY | os.O_CREAT) for each in run_ids]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    step, turn = EVERY_S / len(run_ids), 0
    while not ending.is_set():
        number, at_s = turn % len(run_ids), time.monotonic()
        text = json.dumps({"type": "text", "at": f"{at_s:.6f}", "text": ""})
        os.write(outs[number], (text[:-2] + "x" * (EVENT_BYTES - len(text) - 1) + '"}\n').encode())
        if turn // len(run_ids) % round(BEAT_S / EVERY_S) == 0:
            beat = {"at_s": at_s, "cpu_s": 1.0, "processes": 2, "spoke_at_s": at_s, "work_changed_at_s": at_s}
            os.pwrite(beats[number], json.dumps({"schema": 1, **beat}).encode().ljust(RECORD_BYTES), 0)
        turn += 1
        time.sleep(max(0.0, began + turn * step - time.monotonic()))
    record = {"reason": "exited", "code": 0, "signal": None, "seconds": 1.0, "max_rss_bytes": 0, "oom_kills": 0}
    more = {"oom_kills_own": 0, "survivors": 0, "exec_error": None, "disk_free_bytes": 1}
    for run_id in run_ids:
        (root / "runs" / run_id / "exit.new").write_text(json.dumps(record | more))
        (root / "runs" / run_id / "exit.new").rename(root / "runs" / run_id / "exit.json")


def follow(directory: Path, seconds: float) -> None:
    """Our side, in a process of its own: what it took is printed as JSON."""
    import flows.batch  # noqa: F401  # as heavy as a batch

    gc.freeze()  # as a batch does
    hosts = json.loads((directory / "hosts.json").read_text())
    stations = {n: Station(n, HostSpec.model_validate(each["spec"]), lambda _: None) for n, each in hosts.items()}
    ledger, judged, me = Ledger(directory / "state", "b"), list[Judged](), psutil.Process()
    empty_rss = me.memory_info().rss

    def one(station: Station, run_id: str) -> None:
        plan = plan_of("/nowhere", task=run_id.split(".")[1])
        watched(Guard(Clocked(plan, judged)), station, ledger, KEY, lambda _: None, lambda: None)

    runs = [(stations[name], run_id) for name, each in hosts.items() for run_id in each["runs"]]

    async def look() -> dict[str, Any]:
        deadline = time.monotonic() + SETTLE_S
        while not _caught_up(judged, len(runs)) and time.monotonic() < deadline:  # noqa: ASYNC110  # threads fill it
            await asyncio.sleep(0.5)
        judged.clear()
        began, before = time.monotonic(), sum(me.cpu_times()[:2])
        await asyncio.sleep(seconds)
        wall_s, cpu_s = time.monotonic() - began, sum(me.cpu_times()[:2]) - before
        seen = ages(judged)
        rss, threads = me.memory_info().rss, me.num_threads()
        ports = {each["spec"]["port"] for each in hosts.values()}
        links = [c for c in me.net_connections("tcp") if c.raddr and c.raddr[1] in ports]
        for each in hosts.values():
            os.kill(each["writer"], signal.SIGTERM)
        figures = {"cpu": cpu_s / wall_s, "rss": rss, "empty_rss": empty_rss, "threads": threads, "links": len(links)}
        rate = len(seen) / wall_s
        return {**figures, "p50": percentile(seen, 0.5), "p99": percentile(seen, 0.99), "rate": rate}

    async def everything() -> dict[str, Any]:
        looking = asyncio.ensure_future(look())
        await asyncio.gather(*(in_thread(one, *each) for each in runs))
        return await looking

    found = asyncio.run(everything())
    for station in stations.values():
        station.close()
    sys.stdout.write(json.dumps(found))


def _caught_up(judged: Sequence[Judged], runs: int) -> bool:
    """Whether what was written before anybody listened has been read: the newest two events of each run are young."""
    newest = ages(judged[-2 * runs :])[-2 * runs :]
    return len(newest) == 2 * runs and percentile(newest, 0.9) < 1.0


@contextmanager
def writers(directory: Path, runs: int) -> Iterator[None]:
    """Two hosts with half of the runs each, all of them at work."""
    hosts = {}
    with ExitStack() as leave:
        for number, name in enumerate(("box-1", "box-2")):
            (directory / name).mkdir()
            server = leave.enter_context(sshd.serving(directory / name))
            mine = [f"b.t{each}.1" for each in range(number, runs, 2)]
            root = directory / name / "host"
            argv = [sys.executable, "-m", "tests.bench.streams", "--write", str(root), *mine]
            writer = leave.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT))
            leave.callback(writer.terminate)
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            spec = server.described(root, PYTHON, 500)
            hosts[name] = {"spec": spec, "writer": writer.pid, "runs": mine}
        (directory / "hosts.json").write_text(json.dumps(hosts))
        yield


def measured(runs: int, seconds: int) -> dict[str, Any]:
    with folder() as directory, quiet(), writers(directory, runs):
        argv = [sys.executable, "-m", "tests.bench.streams", "--follow", str(directory), str(seconds)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(found: dict[int, dict[str, Any]]) -> list[Row]:
    """What was found by number of runs; the bars are those for 500."""
    made = []
    for runs, seen in found.items():
        bars = {"cpu": 5.0, "rss": 300.0, "p99": 1.0} if runs == 500 else {}
        made += [
            within(f"{runs} runs: controller CPU, of one core", 100 * seen["cpu"], "%", bars.get("cpu")),
            within(f"{runs} runs: RSS of the process", seen["rss"] / 1e6, "MB", bars.get("rss"), 0),
            within(f"{runs} runs: p99 event latency", seen["p99"], "s", bars.get("p99"), 2),
            Row(
                f"{runs} runs: SSH connections to 2 hosts; threads; events read a second",
                f"{seen['links']}; {seen['threads']}; {seen['rate']:.0f}",
                bar="2 connections",
                met=seen["links"] == 2,
            ),
        ]
    if len(found) > 1:
        memory = line([(runs, seen["rss"] / 1e3) for runs, seen in found.items()])
        busy = line([(runs, 100 * seen["cpu"]) for runs, seen in found.items()])
        made.append(within(f"memory per run, fitted, r2 {memory.r2:.3f}", memory.slope, "kB", 150.0, 0))
        made.append(Row(f"CPU per 100 runs, fitted, r2 {busy.r2:.3f}", f"{100 * busy.slope:.2f} % of a core"))
    return made


def main() -> None:
    if sys.argv[1:2] == ["--write"]:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        return write(Path(sys.argv[2]), sys.argv[3:])
    if sys.argv[1:2] == ["--follow"]:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        return follow(Path(sys.argv[2]), float(sys.argv[3]))
    options = parser(__doc__, seconds=15, most=1000).parse_args()
    began = datetime.now(UTC)
    found = {runs: measured(runs, options.seconds) for runs in COUNTS if runs <= options.most}
    notes = (
        f"Windows of {options.seconds} s from {began:%H:%M} UTC on, one for each number of runs; the bars are for 500.",
        "One writer a host stands in for agents and supervisors; follower, sshd and our side are real.",
    )
    tell(Part("Live streams", command_of("streams", options), tuple(rows(found)), notes), options.json)
    return None


if __name__ == "__main__":
    main()

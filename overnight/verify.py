"""Runs a task's check on what came home: a fresh clone on the host, none of our secrets, the same supervisor."""

from __future__ import annotations

import queue
from pathlib import Path

from overnight.events import Exited, Killed, Lost, RunEvent
from overnight.follow import RunCopy
from overnight.handle import RunHandle
from overnight.plan import RunPlan
from overnight.remote import StartOrder
from overnight.report import Verify
from overnight.station import Station, bounds

_TAIL_BYTES = 2000


def verify(plan: RunPlan, handle: RunHandle, tip: str, station: Station, directory: Path) -> Verify:
    """Run `plan.verify` in a clone of `tip`, bounded by the run's own `total_s`; blocks.

    The exit code is the command's own, None when its time limit ended it.

    Raises:
        WorkspaceError: the clone could not be made.
        HostError: the connection failed.
    """
    command = plan.verify or "true"
    run_id = f"{plan.run_id}.verify"
    cwd = station.workspaces.fresh_clone(handle, tip, f"{handle.run_dir}/verify")
    keyless = {n: v for n, v in plan.env.values().items() if n in ("PATH", "HOME", "TMPDIR", "LANG", "TERM")}
    order = StartOrder(
        run_id=run_id,
        digest=plan.digest,
        argv=("/bin/sh", "-c", command),
        limits=bounds(plan.limits),
        env=keyless,
        cwd=cwd,
    )
    station.remote.start(order)
    ending = _wait(station, run_id, directory)
    seconds = getattr(ending, "seconds", 0.0)
    code = ending.code if isinstance(ending, Exited) else None
    tail = b"".join(_tail(directory / name) for name in ("out", "err")).decode("utf-8", "replace")
    return Verify(command=command, exit_code=code, seconds=round(seconds, 1), tail=tail)


def _wait(station: Station, run_id: str, directory: Path) -> Exited | Killed | Lost:
    events: queue.Queue[RunEvent] = queue.Queue()
    copy = RunCopy(directory, [])
    station.follower.watch(run_id, copy, events.put)
    try:
        while True:
            event = events.get()
            if isinstance(event, Exited | Killed | Lost):
                return event
    finally:
        station.follower.unwatch(run_id)
        copy.close()


def _tail(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()

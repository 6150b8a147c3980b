"""Runs a task's check on what came home: a fresh clone on the host, none of our secrets, the same supervisor."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from overnight.events import Ending, Exited, Killed, Lost, RunEvent
from overnight.failures import Evidence, FailureError, FailureKind, HostError, fail
from overnight.follow import RunCopy
from overnight.handle import RunHandle
from overnight.plan import RunPlan
from overnight.remote import StartOrder
from overnight.report import Verify
from overnight.spec import Limits
from overnight.station import GIVE_UP_S, GONE_S, TICK_S, Interrupt, Station, bounds

_K = FailureKind
_TAIL_BYTES = 2000
_SIGNALLED = 128  # what shells add to the number of the signal that ended a command


def verify(
    plan: RunPlan,
    handle: RunHandle,
    tip: str,
    station: Station,
    directory: Path,
    *,
    secrets: Sequence[bytes] = (),
    interrupted: Callable[[], Interrupt | None] = lambda: None,
) -> Verify | None:
    """Run `plan.verify` in a clone of `tip`, bounded by the run's own `total_s`; blocks.

    The exit code is the command's own, 128 + N when signal N ended it, None
    when its time limit did. Repeating it follows the check that was started.

    Args:
        secrets: Masked in our copy of its output, should the commits hold one.
        interrupted: Asked every half second; `cancel` ends the check, `detach` leaves it.

    Returns:
        None when the check was left to itself; repeating this follows it.

    Raises:
        WorkspaceError: the clone could not be made.
        HostError: the connection failed, or the check's end was lost.
        FailureError: cancelled, since it was interrupted.
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
    copy = RunCopy(directory, secrets)
    try:
        ending = _wait(station, run_id, copy, plan.limits, interrupted)
    finally:
        station.follower.unwatch(run_id)
        copy.close()
    if ending is None:
        return None
    if isinstance(ending, Lost):
        raise HostError(fail(_K.LOST, Evidence(source="host", seen=f"the check: {ending.why}"), names=plan.route.names))
    if isinstance(ending, Killed) and ending.by in ("request", "orphan"):
        raise FailureError(fail(_K.CANCELLED, Evidence(source="host", seen="the check was ended on request")))
    tail = b"".join(_tail(directory / name) for name in ("out", "err")).decode("utf-8", "replace")
    return Verify(command=command, exit_code=_code(ending), seconds=round(ending.seconds, 1), tail=tail)


def _wait(
    station: Station, run_id: str, copy: RunCopy, limits: Limits, interrupted: Callable[[], Interrupt | None]
) -> Ending | None:
    events: queue.Queue[RunEvent] = queue.Queue()
    station.follower.watch(run_id, copy, events.put)
    began = time.monotonic()
    deadline = began + limits.total_s + GIVE_UP_S
    asked = False
    while time.monotonic() < deadline:
        wish = interrupted()
        if wish == "detach" or station.closed:
            return None
        if wish == "cancel" and not asked:
            asked = True
            station.follower.cancel(run_id)
            deadline = min(deadline, time.monotonic() + limits.grace_s + GONE_S)
        try:
            event = events.get(timeout=TICK_S)
        except queue.Empty:
            continue
        if isinstance(event, Exited | Killed | Lost):
            return event
    seen = Evidence(
        source="host", seen=f"no end of the check after {time.monotonic() - began:.0f} s", where=station.name
    )
    raise HostError(fail(_K.HOST_UNREACHABLE, seen, names={"host": station.name}))


def _code(ending: Exited | Killed) -> int | None:
    if isinstance(ending, Killed):
        return None
    return ending.code if ending.signal is None else _SIGNALLED + ending.signal


def _tail(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()

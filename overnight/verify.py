"""Runs a task's check on what came home: a fresh clone, there or here, none of our secrets, the same supervisor."""

from __future__ import annotations

import queue
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from overnight.events import Ending, Exited, Killed, Lost, RunEvent
from overnight.failures import Evidence, FailureError, FailureKind, HostError, WorkspaceError, fail
from overnight.follow import RunCopy
from overnight.git import GitError, Repo
from overnight.handle import RunHandle
from overnight.plan import RunPlan
from overnight.remote import StartOrder
from overnight.report import Check, Verify
from overnight.spec import HostSpec, Limits
from overnight.station import GIVE_UP_S, GONE_S, TICK_S, Interrupt, Station, bounds

_K = FailureKind
_HERE = "here"
_TAIL_BYTES = 2000
_SIGNALLED = 128  # what shells add to the number of the signal that ended a command


def verify(
    plan: RunPlan,
    handle: RunHandle,
    tip: str,
    station: Station,
    directory: Path,
    home: Repo,
    *,
    secrets: Sequence[bytes] = (),
    interrupted: Callable[[], Interrupt | None] = lambda: None,
) -> Verify | None:
    """Run `plan.verify` in a clone of `tip`, bounded by the run's own limits; blocks.

    With `verify_twice` a check that failed runs once more, in another clone. The
    first run decides: one that fails and then passes says nothing of the
    commit, and nothing is what nobody may build on.

    The exit code is the command's own, 128 + N when signal N ended it, None
    when its time limit did. Repeating it follows the check that was started.

    Args:
        directory: Where our copy of its output grows; beside it, that of a second run.
        home: The repository on this machine that holds `tip`, for `verify_on: here`.
        secrets: Masked in our copy of its output, should the commits hold one.
        interrupted: Asked every half second; `cancel` ends the check, `detach` leaves it.

    Returns:
        None when the check was left to itself; repeating this follows it.

    Raises:
        WorkspaceError: the clone could not be made.
        HostError: the connection failed, or the check's end was lost.
        FailureError: cancelled, since it was interrupted.
    """
    with _ground(plan, handle, station, directory, home) as ground:
        check = partial(_checked, plan, tip, ground, secrets=secrets, interrupted=interrupted)
        first = check("verify", directory)
        if first is None:
            return None
        found = Verify(command=plan.verify or "true", on=plan.verify_on, **first.model_dump())
        if plan.verify_twice and first.exit_code != 0:
            again = check("verify2", directory.with_name("verify2"))
            if again is None:
                return None
            found = found.model_copy(update={"again": again, "flaky": again.exit_code == 0})
    if plan.verify_on == "here":
        shutil.rmtree(directory / _HERE, ignore_errors=True)
    return found


@dataclass(frozen=True)
class _Ground:
    """Where checks run: on a host, which has the run's own clone, or on this machine, which has what came home."""

    station: Station
    git_dir: str
    folder: str
    path: str


@contextmanager
def _ground(plan: RunPlan, handle: RunHandle, station: Station, directory: Path, home: Repo) -> Iterator[_Ground]:
    """On this machine the same supervisor works, in a folder below `directory`: the same limits, the same end."""
    if plan.verify_on == "host":
        path = str(plan.env.values().get("PATH", ""))
        yield _Ground(station, f"{handle.work_dir}/.git", handle.run_dir, path)
        return
    root = directory / _HERE
    try:
        common = home.run("rev-parse", "--git-common-dir")
    except GitError as error:
        raise WorkspaceError(fail(_K.WORKSPACE, Evidence(source="git", seen=str(error)))) from error
    spec = HostSpec(kind="local", directory=str(root), python=sys.executable)
    with closing(Station("this machine", spec, lambda _: None)) as here:
        yield _Ground(here, str((home.path / common).resolve()), str(root / "clones"), home.search_path)


def _checked(
    plan: RunPlan,
    tip: str,
    ground: _Ground,
    name: str,
    directory: Path,
    *,
    secrets: Sequence[bytes],
    interrupted: Callable[[], Interrupt | None],
) -> Check | None:
    """One run of the check, in a clone called `name`."""
    directory.mkdir(exist_ok=True)
    station, run_id = ground.station, f"{plan.run_id}.{name}"
    cwd = station.workspaces.fresh_clone(ground.git_dir, tip, f"{ground.folder}/{name}")
    keyless = {n: v for n, v in plan.env.values().items() if n in ("HOME", "TMPDIR", "LANG", "TERM")}
    order = StartOrder(
        run_id=run_id,
        digest=plan.digest,
        argv=("/bin/sh", "-c", plan.verify or "true"),
        limits=bounds(plan.limits),
        env={"PATH": ground.path, **keyless},
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
    return Check(exit_code=_code(ending), seconds=round(ending.seconds, 1), tail=tail)


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

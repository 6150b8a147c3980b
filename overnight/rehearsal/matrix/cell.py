"""One case with one agent, carried out by the stages of a night."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from overnight.failures import Failure, FailureError, FailureKind
from overnight.night import Night, Stages, now
from overnight.plan import RunPlan
from overnight.rehearsal.matrix.case import Case, Place
from overnight.rehearsal.matrix.rootly import in_small_memory, main_process, read_only_home
from overnight.rehearsal.matrix.verdict import Result, over, score, shown
from overnight.rehearsal.site import Call
from overnight.report import RunReport
from overnight.spec import TaskSpec

_POLL_S = 0.2
_UP_S = 25.0


@dataclass(frozen=True)
class Cell:
    """A case with an agent. Its name is that of its task, its site and its entry in the lock."""

    case: Case
    harness: str

    @property
    def name(self) -> str:
        return f"{self.case.name}-{self.harness}"

    @property
    def matched(self) -> str:
        """What stands in its instruction alone."""
        return f"Rehearse {self.name}."


@dataclass(frozen=True)
class Bench:
    """What cells are run with."""

    night: Night
    calls: Callable[[str], list[Call]]

    def calls_of(self, cell: Cell) -> list[Call]:
        """Every request of the cell's agent, and of our own probes, so far."""
        return self.calls(cell.name)


def run(cell: Cell, task: TaskSpec, bench: Bench, gate: threading.Semaphore) -> Result:
    """Blocks until its commits are at home, or it is known why there are none.

    Args:
        gate: Held while the agent starts, which is what costs processor time.
    """
    night, stages = bench.night, Stages(0.0)
    plan = night.planner.resolve(task, 1, None)
    failure: Failure | None = None
    with _gated(cell, bench, gate):
        began_at = now()
        try:
            with _place(cell, night, plan):
                with stages.timed("start"):
                    plan, stages.handle = night.dispatch(plan)
                with _deed(cell, bench, plan):
                    stages.watched = night.monitor(plan)
                stages.collected = night.collect(plan, stages.handle)
        except FailureError as error:
            failure = error.failure
        report = night.report(plan, stages, failure)
        known_at = now()
        night.decide(report)
    for part in ("home", "work"):  # some agents unpack hundreds of MB for every run
        shutil.rmtree(_run_dir(night, plan) / part, ignore_errors=True)
    return _result(cell, report, _Moments(began_at, known_at, bench.calls_of(cell)))


def broken(cell: Cell, error: BaseException) -> Result:
    """What is said of a cell that a fault of ours kept from an end."""
    seen = f"host: {type(error).__name__}: {error}"
    truth = tuple(sorted(cell.case.truth_for(cell.harness)))
    return Result(cell.case.name, cell.case.says, cell.harness, truth, "wrong", str(FailureKind.INTERNAL), (seen,))


@dataclass(frozen=True)
class _Moments:
    began_at: datetime
    known_at: datetime
    calls: list[Call]

    def sign_at(self, cell: Cell) -> datetime:
        """The first sign of the fault: on the wire, or, where there is none, the call that led to the silence."""
        chats = [call for call in self.calls if call.model and not call.is_probe]
        bad = [call for call in chats if call.faulty or call.status is None or call.status >= 400]
        if bad:
            return bad[0].at
        return chats[0].at if chats and cell.case.silent else self.began_at


def _result(cell: Cell, report: RunReport, moments: _Moments) -> Result:
    failure, case = report.failure, cell.case
    sign_at = moments.sign_at(cell)
    named_at = report.named_at or moments.known_at
    ended_s = report.seconds.run
    ended_at = moments.began_at + timedelta(seconds=(report.seconds.start or 0) + ended_s) if ended_s else None
    return Result(
        case=case.name,
        says=case.says,
        harness=cell.harness,
        truth=tuple(sorted(case.truth_for(cell.harness))) or ("succeeded",),
        score=score(case, cell.harness, failure),
        verdict="succeeded" if failure is None else str(failure.kind),
        evidence=tuple(map(str, failure.evidence)) if failure else (),
        shown=shown(case, failure),
        silent=case.silent,
        on_the_wire=case.on_the_wire,
        sign_s=_between(moments.began_at, sign_at),
        to_verdict_s=_between(sign_at, named_at) if failure else None,
        late_s=_between(ended_at, named_at) if failure and ended_at else None,
        seconds=_between(moments.began_at, now()),
        over_s=over(tuple(map(str, failure.evidence))) if failure else None,
        version=report.harness_version,
        log=report.log or "",
    )


def _between(early: datetime, late: datetime) -> float:
    return round((late - early).total_seconds(), 2)


@contextmanager
def _gated(cell: Cell, bench: Bench, gate: threading.Semaphore) -> Iterator[None]:
    """Hold the gate until the agent is up: its first request, its end, or half a minute."""
    gate.acquire()
    deadline = time.monotonic() + _UP_S
    ended = threading.Event()

    def wait() -> None:
        while time.monotonic() < deadline and not bench.calls_of(cell) and not ended.wait(_POLL_S):
            pass
        gate.release()

    threading.Thread(target=wait, name=f"gate of {cell.name}", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _run_dir(night: Night, plan: RunPlan) -> Path:
    """Where the run lies on its host, which is this machine."""
    return Path(night.stations[plan.route.host].run_dir(plan.run_id))


@contextmanager
def _place(cell: Cell, night: Night, plan: RunPlan) -> Iterator[None]:
    with ExitStack() as made:
        if cell.case.place is Place.READ_ONLY_HOME:
            made.enter_context(read_only_home(_run_dir(night, plan) / "home"))
        yield


@contextmanager
def _deed(cell: Cell, bench: Bench, plan: RunPlan) -> Iterator[None]:
    """What somebody else does to the run while it is followed."""
    run_dir = _run_dir(bench.night, plan)
    with ExitStack() as made:
        if cell.case.place is Place.SMALL_MEMORY:
            made.enter_context(in_small_memory(cell.name, run_dir))
        if cell.case.killed:
            ended = made.enter_context(_event_set_at_the_end())
            threading.Thread(target=_kill, args=(cell, bench, run_dir, ended), daemon=True).start()
        yield


@contextmanager
def _event_set_at_the_end() -> Iterator[threading.Event]:
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def _kill(cell: Cell, bench: Bench, run_dir: Path, ended: threading.Event) -> None:
    """As soon as it waits for an answer of the model."""
    while not ended.wait(_POLL_S):
        if any(call.model for call in bench.calls_of(cell)):
            os.kill(main_process(run_dir), signal.SIGKILL)
            return

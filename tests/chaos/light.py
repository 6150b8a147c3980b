"""A controller without Prefect: `python -m tests.chaos.light`, for schedules that would spend their time on its start.

It carries a batch out with the stages of `overnight.night` in the order of
`flows.attempts`, keeps the same state directory, and takes the same words on
its command line as far as the chaos suite says them.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from overnight import batchfile, lockfile
from overnight.failures import BadInput, Evidence, Failure, FailureError, FailureKind, Retry, fail
from overnight.harnesses import HARNESSES
from overnight.ledger import Ledger, write
from overnight.night import Night, Stages, now
from overnight.preflight import Checked
from overnight.report import EXIT_BAD_INPUT, BatchReport, RunReport, count, exit_code, kills
from overnight.spec import TaskSpec

T = TypeVar("T")
WIRE_DELAYS_S = (1.0, 3.0, 6.0)  # the real ones are 2, 8 and 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.light", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--resume")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--on-interrupt", choices=("cancel", "detach"), default="cancel")
    parser.add_argument("--ending", action="store_true", help="start nothing, end what runs, as `overnight cancel`")
    options = parser.parse_args()
    try:
        ledger = _recorded(options) if options.file else Ledger(options.state, options.resume)
        ledger.reopen()
        with ledger.held():
            return carry_out(ledger, ending=options.ending)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_INPUT


def _recorded(options: argparse.Namespace) -> Ledger:
    batch = batchfile.load([options.file], {})
    ledger = Ledger(options.state, f"{batch.name}-{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
    ledger.open_new(batch, options.lock.read_text(encoding="utf-8"), now())
    return ledger


def carry_out(ledger: Ledger, *, ending: bool) -> int:
    batch, started_at = ledger.reopen()
    lock_path = ledger.directory / "lock.json"
    night = Night(
        batch=batch,
        ledger=ledger,
        lock=lockfile.load(lock_path),
        lock_path=lock_path,
        harnesses=HARNESSES,
        reveal=lambda _provider: os.environ["OVERNIGHT_KEY_REHEARSAL"],
        search_path=os.environ["PATH"],
        tell=_tell,
    )
    # not in the handler itself: it may have interrupted the very thread that holds the night's lock
    signal.signal(signal.SIGINT, lambda *_: threading.Thread(target=night.stop, args=("cancel",)).start())
    if ending:
        night.stop("cancel")
    try:
        runs = _every_task(night, probed=ending)
    finally:
        night.close()
    report = BatchReport(
        batch_id=ledger.batch_id,
        name=batch.name,
        started_at=started_at,
        ended_at=now(),
        exit_code=exit_code(runs, interrupted=night.interrupt is not None),
        routes=night.routes(),
        runs=tuple(runs),
        counts=count(runs),
        kills=kills(runs),
    )
    write(ledger.directory / "report.json", report.to_json())
    return report.exit_code


def _tell(where: str, stage: str, words: str) -> None:
    sys.stderr.write(f"{where}  {stage}: {words}\n")


def _every_task(night: Night, *, probed: bool) -> list[RunReport]:
    open_ = [task for task in night.batch.tasks if _undecided(night.ledger.attempts(task.id), task)]
    firsts = {task.route: task for task in reversed(open_)}
    rooms = {name: threading.BoundedSemaphore(host.slots) for name, host in night.batch.hosts.items()}
    with ThreadPoolExecutor(16) as pool:
        if probed:
            for route in firsts:
                night.settle(Checked(route, 0.0))
        else:
            list(pool.map(lambda task: _preflight(night, task), firsts.values()))
        tries = list(pool.map(lambda task: _attempts(night, task, rooms[task.route.host]), night.batch.tasks))
    return [run for runs in tries for run in runs]


def _preflight(night: Night, task: TaskSpec) -> None:
    began = time.monotonic()
    try:
        again(lambda: night.preflight(task), WIRE_DELAYS_S[:1])
    except FailureError as error:
        night.settle(Checked(task.route, time.monotonic() - began, error.failure))


def _attempts(night: Night, task: TaskSpec, room: threading.BoundedSemaphore) -> list[RunReport]:
    runs = night.ledger.attempts(task.id)
    while _undecided(runs, task):
        with room:
            refused = _refusal(night, task)
            plan = night.planner.resolve(task, len(runs) + 1, None)
            if refused is not None and not night.begun(plan):
                return runs or [night.skipped(task, refused, "cancelled" if night.interrupt else "skipped")]
            runs.append(_attempt(night, task, len(runs) + 1))
        if night.ledger.outcome(runs[-1].run_id) is None:
            break
    return runs


def _undecided(runs: list[RunReport], task: TaskSpec) -> bool:
    if not runs:
        return True
    run = runs[-1]
    fresh = run.failure is not None and run.failure.retry is Retry.FRESH and not run.failure.shuts_route
    return fresh and run.attempt < task.limits.attempts


def _refusal(night: Night, task: TaskSpec) -> Failure | None:
    if night.interrupt:
        return fail(FailureKind.CANCELLED, Evidence(source="host", seen="the batch was interrupted"))
    return night.shut_by(task.route)


def _attempt(night: Night, task: TaskSpec, number: int) -> RunReport:
    plan, stages, failure = night.planner.resolve(task, number, None), Stages(0.0), None
    try:
        plan, handle = again(lambda: night.dispatch(plan))
        stages.handle = handle
        stages.watched = night.monitor(plan)
        if stages.watched.undecided:
            return night.left(plan, stages, stages.watched.lost)
        proven = night.diagnose(plan, stages)
        if proven is not None and proven.shuts_route:
            night.shut(plan.route, proven)
        stages.collected = again(lambda: night.collect(plan, handle))
        if plan.verify and stages.collected.tip:
            tip = stages.collected.tip
            stages.checked = again(lambda: night.verify(plan, handle, tip))
            if stages.checked is None:
                return night.left(plan, stages, None)
    except FailureError as error:
        failure = error.failure
        if night.undecided(plan, failure):
            return night.left(plan, stages, failure)
    run = night.report(plan, stages, failure)
    night.decide(run)
    return run


def again(call: Callable[[], T], delays_s: tuple[float, ...] = WIRE_DELAYS_S) -> T:
    """What a call gives; made again when it failed in a way that time may mend."""
    for delay_s in delays_s:
        try:
            return call()
        except FailureError as error:
            if error.failure.retry is not Retry.BACKOFF:
                raise
        time.sleep(delay_s)
    return call()


if __name__ == "__main__":
    sys.exit(main())

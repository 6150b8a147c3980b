"""The night: `python -m flows.batch FILE`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for

from blocks.keys import reveal
from flows.desk import DESK
from flows.prepare import prepare, record, state_directory, with_hosts
from overnight import lockfile
from overnight.failures import Evidence, Failure, FailureError, FailureKind, fail
from overnight.harnesses import HARNESSES
from overnight.ledger import Ledger
from overnight.night import Night, Stages, now
from overnight.preflight import Checked
from overnight.report import BatchReport, RunReport, count, exit_code, last_attempts
from overnight.report import State as RunState
from overnight.spec import TaskSpec
from tasks.calls import in_thread
from tasks.collect import collect
from tasks.diagnose import diagnose
from tasks.dispatch import dispatch
from tasks.monitor import monitor
from tasks.preflight import preflight
from tasks.publish import publish
from tasks.retries import wait_before_next
from tasks.verify import verify


@flow(name="batch", flow_run_name="batch {batch_id}")
async def batch(files: list[str] | None = None, state: str = "", lock: str = "", batch_id: str = "") -> State[Any]:
    """Run a batch of coding tasks to commits and a report.

    Every route is probed first; a shut one costs its tasks nothing. A failed
    task never sinks the others. Start it again with the same `batch_id` to go
    on where it stopped: nothing that was decided is run twice.

    Args:
        files: A batch file (YAML), or Markdown files with front matter, one task each. Paths on the worker.
        state: State directory on the worker. Empty means `$XDG_STATE_HOME/overnight`.
        lock: Provider lock on the worker. Empty means the one of this project.
        batch_id: Empty for a new batch; the id of an earlier one to resume it.
    """
    directory = state_directory(Path(state) if state else None, os.environ)
    if not batch_id:
        prepared = prepare([Path(f) for f in files or []], Path(lock) if lock else None, [], os.environ)
        batch_id = record(with_hosts(prepared), directory).batch_id
    ledger = Ledger(directory, batch_id)
    with ledger.held():
        report = await _carry_out(ledger)
    return end_state(report)


def end_state(report: BatchReport) -> State[Any]:
    """What Prefect shows of the batch: Completed when every task succeeded, else Failed with the first cause."""
    words = ", ".join(f"{n} {name}" for name, n in report.counts.items() if n)
    if report.exit_code == 0:
        return Completed(message=words, data=report)
    interrupted = fail(FailureKind.CANCELLED, Evidence(source="host", seen="the batch was interrupted"))
    causes = [run.failure for run in last_attempts(report.runs) if run.failure is not None]
    return Failed(message=words, data=FailureError(causes[0] if causes else interrupted))


async def _carry_out(ledger: Ledger) -> BatchReport:
    spec, started_at = ledger.reopen()
    lock_path = ledger.directory / "lock.json"
    desk = DESK.get()
    night = Night(
        batch=spec,
        ledger=ledger,
        lock=lockfile.load(lock_path),
        lock_path=lock_path,
        harnesses=HARNESSES,
        reveal=lambda provider: reveal(provider, os.environ),
        search_path=os.environ.get("PATH", os.defpath),
        tell=desk.tell,
    )
    desk.opened(night)
    desk.tell(ledger.batch_id, "batch", f"page {url_for('flow-run', obj_id=flow_run.id)}")
    try:
        await _preflights(night)
        slots = {name: asyncio.Semaphore(host.slots) for name, host in spec.hosts.items()}
        every = (_task(night, task, slots[task.route.host]) for task in spec.tasks)
        attempts = await asyncio.gather(*every, return_exceptions=True)
        runs = tuple(run for task, tries in zip(spec.tasks, attempts, strict=True) for run in _runs(night, task, tries))
        report = BatchReport(
            batch_id=ledger.batch_id,
            name=spec.name,
            started_at=started_at,
            ended_at=now(),
            exit_code=exit_code(runs, interrupted=night.interrupt is not None),
            routes=night.routes(),
            runs=runs,
            counts=count(runs),
        )
        await publish(night, report)
        return report
    finally:
        night.close()


def _runs(night: Night, task: TaskSpec, tries: list[RunReport] | BaseException) -> list[RunReport]:
    """The attempts of a task; a fault of ours in one task is its outcome and never costs the others."""
    if isinstance(tries, list):
        return tries
    if not isinstance(tries, Exception):
        raise tries
    get_run_logger().error("task %s", task.id, exc_info=tries)
    seen = Evidence(source="host", seen=f"{type(tries).__name__}: {tries}", where="overnight")
    return [*night.ledger.attempts(task.id), night.skipped(task, fail(FailureKind.INTERNAL, seen), "failed")]


async def _preflights(night: Night) -> None:
    """Probe each route that still has work, all at once."""
    firsts: dict[Any, TaskSpec] = {}
    for task in night.batch.tasks:
        if _next_wait(night.ledger.attempts(task.id), task) is not None:
            firsts.setdefault(task.route, task)
    await asyncio.gather(*(_preflight(night, task) for task in firsts.values()))


async def _preflight(night: Night, task: TaskSpec) -> None:
    began = time.monotonic()
    state = await _state_of(preflight(night, task, return_state=True))
    if task.route in night.checked:
        return
    error = await state.aresult(raise_on_failure=False)
    seen = Evidence(source="host", seen=f"{type(error).__name__}: {error}", where="overnight")
    failure = error.failure if isinstance(error, FailureError) else fail(FailureKind.INTERNAL, seen)
    night.settle(Checked(task.route, time.monotonic() - began, failure))


async def _task(night: Night, task: TaskSpec, slots: asyncio.Semaphore) -> list[RunReport]:
    """All attempts of one task; those an earlier start of the batch decided come first."""
    began = time.monotonic()
    runs = night.ledger.attempts(task.id)
    while (wait := _next_wait(runs, task)) is not None:
        await _pause(night, wait)
        async with slots:
            refused = await _refusal(night, task, len(runs) + 1)
            if refused is not None:
                state: RunState = "cancelled" if night.interrupt else "skipped"
                return runs or [night.skipped(task, refused, state)]
            run = await _attempt(night, task, len(runs) + 1, time.monotonic() - began)
        runs.append(run)
        if night.ledger.outcome(run.run_id) is None:
            break
    return runs


def _next_wait(runs: list[RunReport], task: TaskSpec) -> float | None:
    """Seconds until the task's next attempt; None when it is decided."""
    if not runs:
        return 0.0
    last = runs[-1]
    return wait_before_next(last.failure, last.attempt, task.limits.attempts) if last.failure else None


async def _pause(night: Night, seconds: float) -> None:
    """Wait, but not past an interrupt."""
    await in_thread(night.interrupted.wait, seconds)


async def _refusal(night: Night, task: TaskSpec, attempt: int) -> Failure | None:
    """Why the attempt may not start. One that already runs on its host is never refused: it is followed."""
    refused = night.shut_by(task.route)
    if night.interrupt:
        seen = Evidence(source="host", seen="the batch was interrupted before this task started")
        refused = fail(FailureKind.CANCELLED, seen)
    if refused is None or await in_thread(night.begun, night.planner.resolve(task, attempt, None)):
        return None
    return refused


async def _attempt(night: Night, task: TaskSpec, attempt: int, queued_s: float) -> RunReport:
    """One attempt from dispatch to its outcome. Whatever became of the agent, its commits are collected."""
    plan = night.planner.resolve(task, attempt, None)
    stages = Stages(queued_s)
    failure: Failure | None = None
    try:
        with stages.timed("start"):
            plan, stages.handle = await dispatch(night, plan)
        with stages.timed("run"):
            stages.watched = await monitor(night, plan)
        if stages.watched.undecided:
            return night.left(plan, stages, stages.watched.stopped)
        proven = night.diagnose(plan, stages)
        if proven is not None and proven.shuts_route:
            night.shut(plan.route, proven)
        with stages.timed("collect"):
            stages.collected = await collect(night, plan, stages.handle)
        if plan.verify and stages.collected.tip:
            stages.checked = await verify(night, plan, stages.handle, stages.collected.tip)
            if stages.checked is None:
                return night.left(plan, stages, None)
    except FailureError as error:
        failure = error.failure
        if night.undecided(plan, failure):
            return night.left(plan, stages, failure)
    run = night.report(plan, stages, failure)
    await _state_of(diagnose(night, run, return_state=True))
    return run


async def _state_of(call: Any) -> State[Any]:
    """What an awaited task with `return_state=True` gives; Prefect 3.8.8 types it as if it were not awaitable."""
    state: State[Any] = await call
    return state


if __name__ == "__main__":
    from flows.cli import batch_main

    batch_main()

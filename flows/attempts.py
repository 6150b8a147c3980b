"""What `batch` and `single` share: routes probed, attempts run, a report published."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import TagsContext
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.urls import url_for

from flows.conduct import Carry, Conductor, decided
from flows.desk import DESK, night_of
from flows.handing import handed_over
from flows.outage import Patience, is_away
from flows.refusals import refusal
from flows.shared_budget import shared
from flows.wishes import heeded
from overnight.decisions import Start
from overnight.failures import Evidence, Failure, FailureError, FailureKind, OvernightError, fail
from overnight.ledger import Ledger
from overnight.night import Night, Stages
from overnight.preflight import Checked
from overnight.report import EXIT_INTERRUPTED, BatchReport, RunReport, last_attempts
from overnight.reporting import batch_report
from overnight.spec import TaskSpec
from tasks.announce import route_shut
from tasks.board import open_board
from tasks.collect import collect
from tasks.diagnose import diagnose
from tasks.dispatch import dispatch
from tasks.marks import BATCH_ID, mark_flow_run, tags_of
from tasks.monitor import monitor
from tasks.preflight import preflight
from tasks.publish import publish
from tasks.verify import verify

Slot = Callable[[Night, TaskSpec, bool], AbstractAsyncContextManager[Any]]
"""Room for one attempt of a task: on its host, and with its provider. True for one that lives: it takes it anyway."""


async def carry_out(
    ledger: Ledger,
    carry: Carry,
    *,
    flow_name: str = "",
    probed: bool = False,
    ending: bool = False,
    elsewhere: bool = False,
) -> BatchReport:
    """A recorded batch from its routes to its report.

    Args:
        flow_name: What Prefect calls this flow run; empty takes the batch's name, which only its file tells.
        probed: Somebody else found its routes open a moment ago.
        ending: It was cancelled: nothing new is started, and what runs is ended and collected.
        elsewhere: `carry` has attempts made by other workers.
    """
    gc.freeze()  # all that Prefect made so far stays; looking through it again and again took a fifth of our time
    spec, _ = ledger.reopen()
    desk = DESK.get()
    night = night_of(ledger)
    desk.opened(night)
    desk.tell(ledger.batch_id, "batch", f"page {url_for('flow-run', obj_id=flow_run.id)}")
    if ending:
        night.stop("cancel")
    try:
        # tasks must not inherit tags: the engine would look up a limit for each set, and fail them when it cannot
        with TagsContext(current_tags=set()):
            tags = {*flow_run.tags, *tags_of(spec.routes), f"{BATCH_ID}{ledger.batch_id}"}
            await mark_flow_run(tags, flow_name or f"batch {spec.name}")
            async with heeded(night), shared(night):
                runs = await handed_over(
                    night, await _every_task(night, carry, probed=probed or ending, elsewhere=elsewhere)
                )
            report = batch_report(night, runs)
            await publish(night, report)
        if night.interrupt == "cancel":
            night.ends.served()
        return report
    finally:
        night.close()


async def _every_task(night: Night, carry: Carry, *, probed: bool, elsewhere: bool) -> list[RunReport]:
    """The attempts of all tasks, the board kept true meanwhile."""
    if probed:
        for route in night.batch.routes:
            night.settle(Checked(route, 0.0))
    else:
        await preflights(night)
    board = await open_board(night)
    return await Conductor(night, carry, board.decided, elsewhere=elsewhere).run()


def begun_before(state: Path) -> str:
    """The batch that an earlier try of this very flow run began and left without a report; empty when there is none.

    The Retry button of the pages runs a crashed flow anew with its parameters: a second batch beside the agents of
    the first would do everything twice.
    """
    ids = [tag.removeprefix(BATCH_ID) for tag in flow_run.tags if tag.startswith(BATCH_ID)]
    folders = {batch_id: Ledger(state, batch_id).directory for batch_id in ids}
    open_ = [
        batch_id
        for batch_id, folder in folders.items()
        if (folder / "batch.json").exists() and not (folder / "report.json").exists()
    ]
    return open_[0] if open_ else ""


def end_state(report: BatchReport) -> State[Any]:
    """What Prefect shows of a batch: Completed when every task succeeded, else Failed with the first cause.

    Cancelled when it was interrupted and nothing of it goes on.
    """
    words = ", ".join(f"{n} {name}" for name, n in report.counts.items() if n)
    if report.exit_code == 0:
        return Completed(message=words, data=report)
    last = last_attempts(report.runs)
    causes = [run.failure for run in last if run.failure is not None]
    shown = f"{words}; {causes[0]}" if causes else words
    if kept := [run.task_id for run in last if run.undelivered and run.failure is None]:
        shown += f"; not delivered: {', '.join(kept)}, see the report"
        if not causes and report.exit_code != EXIT_INTERRUPTED:
            return Failed(message=shown, data=OvernightError(shown))
    if report.exit_code == EXIT_INTERRUPTED and not any(run.left_running for run in last):
        return Cancelled(message=shown)
    interrupted = fail(FailureKind.CANCELLED, Evidence(source="host", seen="the batch was interrupted"))
    return Failed(message=shown, data=FailureError(causes[0] if causes else interrupted))


async def preflights(night: Night) -> None:
    """Probe each route that still has work, all at once."""
    firsts: dict[Any, TaskSpec] = {}
    for task in night.batch.placed:
        if not decided(night.ledger.attempts(task.id), task):
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
    route_shut(night, task.route, failure)


def in_slots(slot: Slot) -> Carry:
    """One attempt a start, in this process, once there is room for it; what lives already takes its room anyway."""

    async def carry(night: Night, task: TaskSpec, start: Start, conductor: Conductor) -> list[RunReport]:
        async with slot(night, task, start.adopted):
            if not start.adopted and conductor.against(task) is not None:
                return []
            run_id = f"{night.ledger.batch_id}.{task.id}.{start.attempt}"
            run = await attempt(night, task, start.attempt, conductor.waited_s, Patience(night, task, run_id).lasts)
        return [run] if run is not None else []

    return carry


async def attempt(
    night: Night, task: TaskSpec, number: int, queued_s: float, lasts: Callable[[], Awaitable[bool]] | None = None
) -> RunReport | None:
    """One attempt from dispatch to its outcome. Whatever became of the agent, its commits are collected.

    Args:
        lasts: Asked when its host is out of reach; waits for it, and then the attempt goes on from where it was.

    Returns:
        None when the end was wanted before any host was asked for it.
    """
    plan = night.planner.resolve(task, number, None)
    stages = Stages(queued_s)
    failure: Failure | None = None
    try:
        with stages.timed("start"):
            plan, stages.handle = await dispatch(night, plan)
        with stages.timed("run"):
            stages.watched = await monitor(night, plan)
        if stages.watched.undecided:
            return night.left(plan, stages, stages.watched.lost)
        proven = night.diagnose(plan, stages)
        if proven is not None and proven.shuts_for_good:
            night.shut(plan.route, proven)
            route_shut(night, plan.route, proven)
        with stages.timed("collect"):
            stages.collected = await collect(night, plan, stages.handle)
        if plan.verify and stages.collected.tip:
            stages.checked = await verify(night, plan, stages.handle, stages.collected.tip)
            if stages.checked is None:
                return night.left(plan, stages, None)
    except FailureError as error:
        failure = error.failure
        if lasts is not None and is_away(failure):
            if await lasts():
                return await attempt(night, task, number, queued_s, lasts)
            if refusal(night, task) is not None and not night.ledger.planned(plan.run_id):
                return None
        if night.undecided(plan, failure):
            return night.left(plan, stages, failure)
    run = night.report(plan, stages, failure)
    await _state_of(diagnose(night, run, return_state=True))
    return run


async def _state_of(call: Any) -> State[Any]:
    """What an awaited task with `return_state=True` gives; Prefect 3.8.8 types it as if it were not awaitable."""
    state: State[Any] = await call
    return state

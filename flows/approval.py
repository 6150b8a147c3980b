"""A person's word before delivery: the flow run pauses with the diff summary as its form."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from prefect import get_run_logger
from prefect.exceptions import Abort, FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.private_server import OutOfReach
from overnight.delivery import awaiting, deliver, offer
from overnight.git import GitError
from overnight.night import Night
from overnight.report import RunReport
from tasks.calls import in_thread

WAIT_S = 7 * 24 * 3600
_LOOK_S = 0.5


class Decision(RunInput):
    """Which branches are made. What is not delivered stays on the refs that the report names."""

    deliver: Literal["all", "only those named below", "none"] = Field(
        "all", description="What you allow", json_schema_extra={"position": 0}
    )
    tasks: str = Field("", description="Task ids with commas between them", json_schema_extra={"position": 1})


async def approved(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, with the branches of those that wait for a person's word made, if they allow it.

    Waits on the flow run's page, at most a week. Whoever interrupts the batch
    or lets the time pass has allowed nothing, and a resume asks again.
    """
    waiting = awaiting(runs)
    if not waiting or night.interrupt:
        return tuple(runs)
    for run in waiting:
        night.tell(run.task_id, "done", "waits for your word: press Resume on the page of this flow run")
    allowed = _allowed(await _decision(night, await in_thread(offer, waiting, night.search_path)), waiting)
    return tuple([await _delivered(night, run) if run.run_id in allowed else run for run in runs])


async def _decision(night: Night, words: str) -> Decision | None:
    """What the person said; None when nobody said anything."""
    form = Decision.with_initial_data(description=f"Deliver these commits?\n\n{words}")
    call: Any = pause_flow_run(wait_for_input=form, timeout=WAIT_S, poll_interval=2)  # typed as if it were awaited
    asked: asyncio.Future[Decision] = asyncio.ensure_future(call)
    while not asked.done() and not night.interrupted.is_set():
        await asyncio.wait({asked}, timeout=_LOOK_S)
    if not asked.done():
        asked.cancel()
        return None
    try:
        return await asked
    except (FlowPauseTimeout, Abort, OutOfReach) as error:
        get_run_logger().warning("nobody was asked, or nobody answered: %s: %s", type(error).__name__, error)
        return None


def _allowed(decision: Decision | None, waiting: Sequence[RunReport]) -> set[str]:
    """The run ids that may be delivered."""
    if decision is None or decision.deliver == "none":
        return set()
    named = {part.strip() for part in decision.tasks.split(",")}
    return {run.run_id for run in waiting if decision.deliver == "all" or run.task_id in named}


async def _delivered(night: Night, run: RunReport) -> RunReport:
    """The run with its branch; without it, and a line that says why, when git could not make it."""
    try:
        return await in_thread(deliver, night, run)
    except GitError as error:
        get_run_logger().error("%s could not be delivered, its commits are safe: %s", run.task_id, error)
        return run

"""A person's word before delivery: the flow run pauses with the diff summary as its form."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.input.actions import aread_flow_run_input
from prefect.input.run_input import keyset_from_base_key
from prefect.runtime import flow_run
from pydantic import Field

from flows.patience import patiently
from flows.private_server import OutOfReach
from overnight.delivery import awaiting, deliver, offer
from overnight.git import GitError
from overnight.night import Night
from overnight.report import RunReport
from tasks.calls import in_thread

WAIT_S = 7 * 24 * 3600
_LOOK_S, _POLL_S = 0.5, 2


class Decision(RunInput):
    """Which branches are made. What is not delivered stays on the refs that the report names."""

    deliver: Literal["all", "only those named below", "none"] = Field(
        "all", description="What you allow", json_schema_extra={"position": 0}
    )
    tasks: str = Field("", description="Task ids with commas between them", json_schema_extra={"position": 1})


async def approved(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, with the branches of those that wait for a person's word made, if they allow it.

    Waits on the flow run's page, at most a week. Whoever interrupts the batch
    or lets the time pass has allowed nothing, and a resume asks again. A batch
    that is spread asks on its tasks' pages: their commits are where they ran.
    """
    waiting = awaiting(runs)
    if not waiting or night.interrupt or night.batch.spread:
        return tuple(runs)
    for run in waiting:
        night.tell(run.task_id, "done", "waits for your word: press Resume on the page of this flow run")
    allowed = _allowed(await _decision(night, await in_thread(offer, waiting, night.search_path)), waiting)
    return tuple([await _delivered(night, run) if run.run_id in allowed else run for run in runs])


async def _decision(night: Night, words: str) -> Decision | None:
    """What the person said; None when nobody said anything."""
    asked = asyncio.ensure_future(_asked(words))
    while not asked.done() and not night.interrupted.is_set():
        await asyncio.wait({asked}, timeout=_LOOK_S)
    if not asked.done():
        asked.cancel()
        return None
    try:
        return await asked
    # RuntimeError: the flow run was cancelled before it could pause (prefect 3.8.8)
    except (FlowPauseTimeout, RuntimeError, TimeoutError, OutOfReach) as error:
        get_run_logger().warning("nobody was asked, or nobody answered: %s: %s", type(error).__name__, error)
        return None


async def _asked(words: str) -> Decision | None:
    """Pause, and wait for the form. The API may go away meanwhile: the form is on the page when it is back."""
    form = Decision.with_initial_data(description=f"Deliver these commits?\n\n{words}")
    # a key of our own: Prefect counts from 1, and a flow run that is retried would not pause again
    key = secrets.token_hex(4)
    call: Any = pause_flow_run(  # typed as if it were awaited
        wait_for_input=form, timeout=WAIT_S, poll_interval=_POLL_S, key=key
    )
    async with asyncio.timeout(WAIT_S + _POLL_S):
        try:
            decision: Decision | None = await call
        except OutOfReach as error:  # Prefect's client waits for a minute
            get_run_logger().warning("Prefect does not answer: %s", str(error) or type(error).__name__)
            decision = await _answer(flow_run.id, key)
    return decision


async def _answer(run_id: UUID, key: str) -> Decision | None:
    """The form's answer, once the flow run is no longer paused; None when it was left without one.

    Raises:
        OutOfReach: the API stayed away for 10 minutes.
    """

    async def look() -> tuple[bool, Any]:
        async with get_client() as client:
            state = (await client.read_flow_run(run_id)).state
        response = await aread_flow_run_input(keyset_from_base_key(f"paused-{key}")["response"], run_id)
        return state is not None and state.is_paused(), response

    while True:
        paused, answer = await patiently(look)
        if not paused:  # an empty answer would be the form's default, which allows everything
            return None if answer is None else Decision(**answer)
        await asyncio.sleep(_POLL_S)


def _allowed(decision: Decision | None, waiting: Sequence[RunReport]) -> set[str]:
    """The run ids that may be delivered."""
    if decision is None or decision.deliver == "none":
        return set()
    if decision.deliver == "all":
        return {run.run_id for run in waiting}
    named = {part.strip() for part in decision.tasks.split(",") if part.strip()}
    if unknown := named - {run.task_id for run in waiting}:
        get_run_logger().warning("no such task waits for your word: %s", ", ".join(sorted(unknown)))
    return {run.run_id for run in waiting if run.task_id in named}


async def _delivered(night: Night, run: RunReport) -> RunReport:
    """The run with its branch; without it, and a line that says why, when git could not make it."""
    try:
        return await in_thread(deliver, night, run)
    except GitError as error:
        get_run_logger().error("%s could not be delivered, its commits are safe: %s", run.task_id, error)
        return run

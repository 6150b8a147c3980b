"""One budget over many workers: attempts tell the batch what they used so far, it tells them when a cap is reached.

Both by labels of the attempt's flow run: they make no row, state or event (3.8.8), each side writes its own, and the
other reads them with the state that it looks at anyway. Nothing is told in a batch without a budget.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.private_server import OutOfReach
from overnight.budget import Reached, Reading
from overnight.night import Night
from overnight.spec import Budget, TaskSpec

BUDGETED = "budgeted"
"""Tag of a flow run whose attempt is to tell."""

TELL_S = 5.0
"""An attempt tells no sooner than this after it told last."""

Labels = dict[str, bool | int | float | str]
_TOKENS, _USD, _FULL = "overnight.tokens", "overnight.usd", "overnight.budget-full"


def tags_for(budget: Budget) -> set[str]:
    """What the flow runs of a batch are tagged with for its budget."""
    return {BUDGETED} if budget != Budget() else set()


@asynccontextmanager
async def shared(night: Night) -> AsyncIterator[None]:
    """While inside, an attempt of a batch with a budget tells what it uses. It knows a cap that is full from the first.

    Beside the run: a server that does not answer holds nothing up, and is told later.
    """
    context = FlowRunContext.get()
    if not night.ledger.is_part or BUDGETED not in flow_run.tags or context is None or context.flow_run is None:
        yield
        return
    heed_cap(night, context.flow_run)
    loop, newest, changed = asyncio.get_running_loop(), list[Reading](), asyncio.Event()

    def tells(reading: Reading) -> None:
        newest[:] = [reading]
        loop.call_soon_threadsafe(changed.set)

    night.spending.tells = tells
    teller = asyncio.create_task(_tell(context.flow_run.id, newest, changed))
    try:
        yield
    finally:
        night.spending.tells = lambda _: None
        teller.cancel()
        await asyncio.wait({teller})
        if not teller.cancelled() and (fault := teller.exception()) is not None:
            get_run_logger().error("the batch was not told what this attempt used", exc_info=fault)


async def _tell(child: UUID, newest: list[Reading], changed: asyncio.Event) -> None:
    while True:
        await changed.wait()
        changed.clear()
        figures = {_TOKENS: newest[0].tokens, _USD: newest[0].usd}
        try:
            async with get_client() as client:
                known: Labels = {name: figure for name, figure in figures.items() if figure is not None}
                await client.update_flow_run_labels(child, known)
        except OutOfReach:
            changed.set()
        await asyncio.sleep(TELL_S)


def heed_cap(night: Night, child: FlowRun) -> None:
    """What the batch told this attempt, whose flow run `child` is: it ends as in a batch of one process."""
    if (told := child.labels.get(_FULL)) is not None:
        night.spending.told_full(Reached(**json.loads(str(told))))


async def settle(client: PrefectClient, night: Night, task: TaskSpec, run_id: str, child: FlowRun) -> None:
    """Count what the attempt `run_id` told by its flow run, and tell it when a cap is full. Again changes nothing.

    Raises:
        OutOfReach: the server does not answer; nobody was told.
    """
    provider, tokens, usd = task.route.provider, child.labels.get(_TOKENS), child.labels.get(_USD)
    used = tokens if isinstance(tokens, int) else None, usd if isinstance(usd, int | float) else None
    if used != (None, None):
        night.spending.hear(Reading(run_id, provider, *used))
    found, state = night.spending.full(provider), child.state
    spends = state is not None and not state.is_final() and not state.is_paused()  # that waits for a person
    if found is not None and spends and _FULL not in child.labels:
        await client.update_flow_run_labels(child.id, {_FULL: json.dumps(asdict(found))})
        night.tell(task.id, "budget", f"told to end: {found}")

"""How a running flow hears that it should end: Prefect's cancel button, the signal of its worker, a budget used up."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from flows.desk import DESK, Desk
from flows.private_server import OutOfReach
from flows.shared_budget import heed_cap
from overnight.night import Night
from overnight.station import Interrupt

_LOOK_S = 5.0


@asynccontextmanager
async def heeded(night: Night) -> AsyncIterator[None]:
    """While inside, a cancel of this flow run ends its runs on their hosts, and they are still collected.

    A worker ends a flow with SIGTERM, when it was cancelled and also when the
    worker itself is stopped; only the flow run's state tells which. In the
    second case the runs are left to their hosts. A terminal has its own say
    (`run_batch.Interrupts`), so its signals are not touched.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    ours = DESK.get() == Desk() and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if ours:
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(asked.set))
    watcher = asyncio.ensure_future(_watch(night, asked))
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.wait({watcher})
        if not watcher.cancelled() and (fault := watcher.exception()) is not None:
            get_run_logger().error("a cancel would not have been heard", exc_info=fault)
        if ours:
            signal.signal(signal.SIGTERM, before)


async def _watch(night: Night, asked: asyncio.Event) -> None:
    while night.wish() is None:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), _LOOK_S)
        wish = await _wish(night)
        if wish is not None:
            night.stop(wish)
        elif asked.is_set():
            night.stop("detach")


async def _wish(night: Night) -> Interrupt | None:
    """`cancel` when somebody cancelled this flow run. None also when Prefect cannot be asked."""
    try:
        async with get_client() as client:
            seen = await client.read_flow_run(flow_run.id)
    except (OutOfReach, ObjectNotFound, ValueError):  # ValueError: a proxy's page, no JSON
        return None
    heed_cap(night, seen)
    return "cancel" if seen.state is not None and (seen.state.is_cancelling() or seen.state.is_cancelled()) else None

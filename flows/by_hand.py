"""A flow started from a terminal: its server, its progress, its words."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.logging.handlers import APILogWorker

from flows.api import ended, prefect_api, quiet_console
from flows.desk import DESK, Desk
from flows.private_server import OutOfReach
from flows.progress import Progress
from overnight.failures import BadInput
from overnight.night import Night


def by_hand(call: Callable[[], Any], state: Path, opened: Callable[[Night], None] = lambda _: None) -> Any:
    """Run a flow to its end and give what it returned, of a Failed state too.

    Args:
        call: Calls an async flow with `return_state=True`.
        state: Where the private server lives when no Prefect API is configured.
        opened: Told of every night that the flow opens.

    Raises:
        BadInput: what the flow refused; or the Prefect API cannot be used, or went away.
    """
    quiet_console()
    with Progress(sys.stderr) as progress, prefect_api(state, progress) as server:
        token = DESK.set(Desk(progress.tell, opened))
        try:
            outcome, result = asyncio.run(_result(call))
        except OutOfReach as error:
            problem = f"went away: {error or type(error).__name__}"
            raise BadInput("this machine", "Prefect API", problem, "Start it again, then this command") from error
        finally:
            DESK.reset(token)
            APILogWorker.drain_all(timeout=10)  # with the server gone it would try for a minute
        if server is not None and outcome.state_details.flow_run_id is not None:
            server.drain(outcome.state_details.flow_run_id)
    if isinstance(result, BadInput):
        raise result
    return result


async def _result(call: Callable[[], Any]) -> tuple[Any, Any]:
    outcome = await ended(call())
    return outcome, await outcome.aresult(raise_on_failure=False)

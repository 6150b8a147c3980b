"""Ends a batch that nobody carries out any more: what runs on hosts is ended, collected and decided."""

from __future__ import annotations

import os
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Failed

from flows.attempts import attempts, carry_out, end_state
from flows.by_hand import by_hand
from flows.spread import spread_out
from flows.state import state_directory
from overnight.failures import BadInput
from overnight.form import name_from
from overnight.ledger import Ledger
from overnight.night import Night
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED, RunReport
from overnight.spec import TaskSpec
from tasks.marks import BATCH_ID


@flow(name="cancel", flow_run_name="cancel {batch_id}")
async def cancel(batch_id: str, state: str = "", part: str = "") -> State[Any]:
    """End a batch whose flow has gone: its agents are stopped on their hosts, and what they committed comes home.

    One that is being carried out is cancelled where it runs: on its page, or in its terminal.

    Args:
        batch_id: The batch to end.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
        part: The task, of a batch that was spread over workers; its record is on the worker that ran it.
    """
    try:
        ledger = Ledger(state_directory(Path(state) if state else None, os.environ), batch_id, part)
        spec, _ = ledger.reopen()
        with ledger.held():
            if spec.spread and not part:
                return end_state(await spread_out(ledger, state, "", ending=True))
            return end_state(await carry_out(ledger, _followed, flow_name=f"cancel {batch_id}", ending=True))
    except BadInput as error:
        return Failed(message=str(error), data=error)


async def _followed(night: Night, task: TaskSpec) -> list[RunReport]:
    return await attempts(night, task, lambda _: nullcontext())


async def finish(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  # Prefect's signature
    """Prefect's hook after a cancelled flow: do what it did not come to before its worker killed it.

    A worker gives a flow 30 s, then calls this in a process of its own that has no limit (prefect 3.8.8).
    """
    async with get_client() as client:
        seen = await client.read_flow_run(flow_run.id)
    batch_id = next((tag.removeprefix(BATCH_ID) for tag in seen.tags if tag.startswith(BATCH_ID)), None)
    if batch_id is None:
        return  # it was not even recorded, so nothing was started
    given = seen.parameters
    part = (given.get("name") or name_from(given["instruction"])) if given.get("part_of") else ""
    ledger = Ledger(state_directory(Path(given["state"]) if given.get("state") else None, os.environ), batch_id, part)
    if not _reported_since(ledger, seen.start_time):
        await cancel(batch_id, given.get("state", ""), part, return_state=True)


def _reported_since(ledger: Ledger, began: datetime | None) -> bool:
    """Whether the flow came to its own end."""
    report = ledger.directory / "report.json"
    return began is not None and report.exists() and report.stat().st_mtime > began.timestamp()


def cancel_by_hand(batch_id: str, state: Path) -> int:
    """From a terminal; 0 when nothing of the batch runs any more.

    Raises:
        BadInput: no such batch, or somebody carries it out.
    """
    Ledger(state, batch_id).reopen()
    by_hand(lambda: cancel(batch_id, str(state), return_state=True), state)
    return EXIT_SUCCEEDED if not Ledger(state, batch_id).living() else EXIT_FAILED

"""Ends a batch that nobody carries out any more: what runs on hosts is ended, collected and decided."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Failed

from flows.attempts import carry_out, end_state, in_slots
from flows.by_hand import by_hand
from flows.collect import collect
from flows.part_report import hand_over
from flows.progress import Progress
from flows.spread import spread_out
from flows.state import state_directory
from overnight import past
from overnight.ends import Ends, ask_end
from overnight.failures import BadInput
from overnight.form import name_from
from overnight.ledger import Ledger, part_name
from overnight.lockfile import suggest
from overnight.morning import whereabouts
from overnight.past import Entry
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED, BatchReport
from tasks.marks import BATCH_ID

_LOOK_S = 0.5


@flow(name="cancel", flow_run_name="cancel {batch_id}")
async def cancel(batch_id: str, state: str = "", part: str = "") -> State[Any]:
    """End a batch whose flow has gone: its agents are stopped on their hosts, and what they committed comes home.

    One that is being carried out is cancelled on its page, in its terminal, or by `overnight cancel`.

    Args:
        batch_id: The batch to end.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
        part: The attempt, of a batch that was spread over workers; its record is on the worker that ran it.
    """
    try:
        ledger = Ledger(state_directory(Path(state) if state else None, os.environ), batch_id, part)
        spec, _ = ledger.reopen()
        with ledger.held():
            if spec.spread and not part:
                return end_state(await spread_out(ledger, state, "", ending=True))
            return end_state(
                await carry_out(ledger, in_slots(lambda *_: nullcontext()), flow_name=f"cancel {batch_id}", ending=True)
            )
    except BadInput as error:
        return Failed(message=str(error), data=error)


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
    name = given.get("name") or name_from(given["instruction"])
    part = part_name(name, given.get("attempt", 1)) if given.get("part_of") else ""
    ledger = Ledger(state_directory(Path(given["state"]) if given.get("state") else None, os.environ), batch_id, part)
    if not _reported_since(ledger, seen.start_time):
        await cancel(batch_id, given.get("state", ""), part, return_state=True)
    report = ledger.directory / "report.json"
    if part and report.exists():  # the flow may have been killed between its report and handing it over
        await hand_over(BatchReport.model_validate_json(report.read_text(encoding="utf-8")), flow_run.id)


def _reported_since(ledger: Ledger, began: datetime | None) -> bool:
    """Whether the flow came to its own end."""
    report = ledger.directory / "report.json"
    return began is not None and report.exists() and report.stat().st_mtime > began.timestamp()


def cancel_by_hand(batch_id: str, which: str, state: Path) -> int:
    """From a terminal; 0 when nothing of what was named runs any more.

    Args:
        batch_id: Id of a batch or the beginning of one.
        which: A task of it or a run id; empty for all of it.

    Raises:
        BadInput: no such batch or task.
    """
    ledgers = past.batch(state, batch_id)
    task_id = _task(ledgers, which) if which else ""
    concerned = [ledger for ledger in ledgers if not task_id or ledger.knows(task_id)]
    for ledger in concerned:
        ask_end(ledger.directory, task_id, f"{getpass.getuser()} on {socket.gethostname()}")
    with Progress(sys.stderr) as progress:
        waited = _wait(concerned, task_id, progress)
    if not any(map(past.is_held, concerned)):
        if task_id and _undecided(concerned, task_id):
            by_hand(lambda: collect(ledgers[0].batch_id, str(state), return_state=True), state)
        elif not task_id and (not waited or _undecided(concerned)):
            by_hand(lambda: cancel(ledgers[0].batch_id, str(state), return_state=True), state)
    if not task_id and not _undecided(concerned):
        for ledger in concerned:
            Ends(ledger.directory).served()
    return _told(concerned, task_id)


def _task(ledgers: Sequence[Ledger], which: str) -> str:
    """The task that is meant by its name or by one of its runs."""
    known = dict.fromkeys(task.id for ledger in ledgers for task in ledger.reopen()[0].tasks)
    run = next((entry for entry in _runs(ledgers) if entry.run_id == which), None)
    if which not in known and run is None:
        problem = f"batch {ledgers[0].batch_id} has no task or run {which!r}"
        raise BadInput("command line", "TASK", problem, suggest(which, known))
    return run.task_id if run is not None else which


def _runs(ledgers: Sequence[Ledger], task_id: str = "") -> list[Entry]:
    return [entry for ledger in ledgers for entry in past.runs(ledger) if task_id in ("", entry.task_id)]


def _undecided(ledgers: Sequence[Ledger], task_id: str = "") -> list[Entry]:
    return [entry for entry in _runs(ledgers, task_id) if entry.outcome is None]


def _wait(ledgers: Sequence[Ledger], task_id: str, progress: Progress) -> bool:
    """Until whoever carries it out is done with what was asked; whether anybody did."""
    waited = False
    while any(map(past.is_held, ledgers)) and (not task_id or _undecided(ledgers, task_id)):
        if not waited:
            progress.say("Asked whoever carries it out; waiting until the commits are home (Ctrl-C leaves it to them)")
            waited = True
        time.sleep(_LOOK_S)
    return waited


def _told(ledgers: Sequence[Ledger], task_id: str) -> int:
    """Say what became of each run that was meant; the exit code."""
    for entry in _runs(ledgers, task_id):
        run = entry.outcome
        words = "undecided; it may run on its host" if run is None else run.state
        where = f", {whereabouts(run)}" if run is not None and run.commits else ""
        sys.stdout.write(f"{entry.run_id}: {words}{where}\n")
    if task_id and not _runs(ledgers, task_id):
        sys.stdout.write(f"{task_id}: had not begun, and will not\n")
    return EXIT_FAILED if _undecided(ledgers, task_id) else EXIT_SUCCEEDED

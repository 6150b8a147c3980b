"""The night: `python -m flows.batch FILE`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed
from pydantic import Field

from blocks.task_form import TaskForm
from flows.attempts import begun_before, carry_out, end_state, in_slots
from flows.cancel import finish
from flows.limits import rooms
from flows.prepare import Prepared, check_here, inline, prepare, record, state_directory, with_hosts
from flows.spread import spread_out
from overnight.failures import BadInput
from overnight.ledger import Ledger
from overnight.night import now


@flow(name="batch", flow_run_name="batch {name}", on_cancellation=[finish])
async def batch(
    files: Sequence[str] = (),
    tasks: Sequence[TaskForm] = (),
    name: str = "batch",
    approve: bool = False,
    spread: bool = False,
    resume: str = "",
    late_s: Annotated[float, Field(ge=0)] = 0,
    state: str = "",
    lock: str = "",
) -> State[Any]:
    """Run a batch of coding tasks to commits and a report.

    Every route is probed first; a shut one costs its tasks nothing. A failed
    task never sinks the others. Cancel ends the runs on their hosts and still
    collects what they committed. After a crash start it again with resume:
    nothing that was decided is run twice.

    Args:
        files: A batch file (YAML), e.g. /home/me/tonight.yaml, or Markdown files, one task each. Paths on the worker.
        tasks: Tasks given here instead of in a file.
        name: Name of this batch, when its tasks are given here.
        approve: Make branches only after you approved the diffs on this run's page.
        spread: Each attempt as a flow run of its own, on the workers of the pool.
        resume: Batch id of an earlier run, to go on where it stopped. What is above is ignored then.
        late_s: Not begun later than so many seconds after its scheduled time. 0 begins whenever it can.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
        lock: Provider lock on the worker. Empty means $OVERNIGHT_LOCK, else the one of this project.
    """
    due = flow_run.scheduled_start_time
    overdue_s = (now() - due).total_seconds() if due else 0.0
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        batch_id = resume or begun_before(directory)
        if not batch_id and late_s and overdue_s > late_s:
            return Cancelled(message=f"not begun: it was due at {due:%Y-%m-%d %H:%M} UTC, {overdue_s / 3600:.1f} h ago")
        batch_id = batch_id or _recorded(files, tasks, name, lock, directory, approve=approve, spread=spread)
        ledger = Ledger(directory, batch_id)
        spec, _ = ledger.reopen()
        check_here(ledger, os.environ)
        with ledger.held():
            if spec.spread:
                return end_state(await spread_out(ledger, state, lock))
            async with rooms() as room:
                return end_state(await carry_out(ledger, in_slots(room.slot)))
    except BadInput as error:
        return Failed(message=str(error), data=error)


def _recorded(
    files: Sequence[str],
    tasks: Sequence[TaskForm],
    name: str,
    lock: str,
    directory: Path,
    *,
    approve: bool,
    spread: bool,
) -> str:
    """The id of a new batch, read, checked and written to the state directory."""
    lock_path = Path(lock) if lock else None
    if tasks and files:
        raise BadInput("parameters", "tasks", "stand beside files", "Give either a file or tasks")
    prepared: Prepared
    if tasks:
        prepared = inline(name, tasks, lock_path, os.environ)
    else:
        prepared = prepare([Path(file).expanduser() for file in files], lock_path, [], os.environ)
    prepared = prepared.asked(approve=approve, spread=spread)
    return record(with_hosts(prepared), directory).batch_id


if __name__ == "__main__":
    from flows.cli import batch_main

    batch_main()

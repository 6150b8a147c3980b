"""Delivers what a batch could not, and what waits for a person's word: `overnight deliver`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.by_hand import by_hand
from flows.desk import night_of
from flows.state import state_directory
from overnight import past
from overnight.delivery import awaiting, is_due
from overnight.delivery import deliver as make_branch
from overnight.failures import BadInput
from overnight.git import GitError
from overnight.ledger import Ledger
from overnight.lockfile import suggest
from overnight.morning import whereabouts
from overnight.night import Night
from overnight.outgoing import by_hand as makes_it_by_hand
from overnight.outgoing import handed, standing
from overnight.printable import safe
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED, RunReport, exit_code, last_attempts
from tasks.calls import in_thread
from tasks.deliver import deliver as hand_over
from tasks.publish import rewrite


def _named() -> str:
    return f"deliver {flow_run.parameters.get('batch_id') or 'the newest'}"


@flow(name="deliver", flow_run_name=_named)
async def deliver(batch_id: str = "", task: str = "", allow: bool = False, state: str = "") -> State[Any]:
    """Push what a batch could not push, and make the branches that waited for a person's word.

    Args:
        batch_id: The batch; empty means the newest.
        task: That task alone. Empty means all.
        allow: Your word for what is held. What a guard refused stays refused.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
    """
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        every = past.batch(directory, batch_id)
        runs = [run for ledger in every for run in await _batch(ledger, task, allow=allow)]
        if task and not runs:
            names = [one.id for ledger in every for one in ledger.reopen()[0].tasks]
            raise BadInput("command line", "TASK", f"no task {task!r} with commits", suggest(task, names))
    except BadInput as error:
        return Failed(message=str(error), data=error)
    bad = [run for run in runs if run.undelivered or run.approved is False]
    return (Failed if bad else Completed)(message=f"{len(runs) - len(bad)} of {len(runs)} are delivered", data=runs)


async def _batch(ledger: Ledger, task: str, *, allow: bool) -> list[RunReport]:
    """The last attempts of one batch that committed something, delivered as far as that goes."""
    spec, _ = ledger.reopen()
    if spec.spread:  # its commits are where its tasks ran, as parts
        return []
    with ledger.held():
        night = night_of(ledger)
        try:
            tries = [run for each in spec.tasks for run in ledger.attempts(each.id)]
            last = [run for run in last_attempts(tries) if run.commits and task in ("", run.task_id)]
            done = [await _one(night, run, allow=allow) for run in last]
            _rewritten(night, done)
            return done
        finally:
            await in_thread(night.close)


async def _one(night: Night, run: RunReport, *, allow: bool) -> RunReport:
    if allow and awaiting([run]):
        try:
            run = await in_thread(make_branch, night, run)
        except GitError as error:
            raise BadInput(run.repo or "", run.task_id, str(error), "Mend the repository, then say it again") from error
    return await hand_over(night, run) if is_due(night, run) else run


def _rewritten(night: Night, done: Sequence[RunReport]) -> None:
    """The batch's report, where there is one, with what is new."""
    before = past.report(night.ledger)
    if before is None:
        return
    new = {run.run_id: run for run in done}
    runs = tuple(new.get(run.run_id, run) for run in before.runs)
    code = before.exit_code if before.exit_code > EXIT_FAILED else exit_code(runs, interrupted=False)
    rewrite(night, before.model_copy(update={"runs": runs, "exit_code": code}))


def deliver_by_hand(batch_id: str, task: str, state: Path | None, *, allow: bool) -> int:
    """The flow from a terminal; returns the exit code: 0, or 1 when something is not where it was to go.

    Raises:
        BadInput: no such batch or task, or another process carries it out.
    """
    directory = state_directory(state, os.environ)
    past.batch(directory, batch_id)  # refused before a server is started
    how: dict[str, Any] = {"batch_id": batch_id, "task": task, "allow": allow, "state": str(directory)}
    runs: list[RunReport] = by_hand(lambda: deliver(**how, return_state=True), directory)
    for run in runs:
        typer.echo(safe(f"{run.task_id}: {whereabouts(run)}"))
        words = [standing(run), makes_it_by_hand(run), *(handed(run.handed) if run.handed else ())]
        for line in filter(None, words):
            typer.echo(safe(f"  {line}"))
    if not runs:
        typer.echo("nothing was committed")
    return EXIT_FAILED if any(run.undelivered or run.approved is False for run in runs) else EXIT_SUCCEEDED


if __name__ == "__main__":
    from flows.cli_runs import deliver_main

    deliver_main()

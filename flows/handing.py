"""Commits on their way out, once all tasks are decided: what waits for nobody, then what a person allowed."""

from __future__ import annotations

from collections.abc import Sequence

from flows.approval import approved
from overnight.delivery import as_it_stands, awaiting, is_due
from overnight.night import Night
from overnight.report import RunReport, last_attempts
from tasks.calls import in_thread
from tasks.deliver import deliver
from tasks.publish import write_pages


async def handed_over(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, each delivered as its task asks, held ones after a person's word.

    The report is readable before anybody is asked: an answer may take a week.
    """
    first = await delivered(night, runs)
    if awaiting(first) and not night.interrupt:
        await in_thread(write_pages, night, as_it_stands(night, first))
    return await delivered(night, await approved(night, first))


async def delivered(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, those that are due delivered. A batch that is spread leaves it to its tasks' flow runs."""
    if night.batch.spread:
        return tuple(runs)
    due = {run.run_id for run in last_attempts(runs) if is_due(night, run)}
    return tuple([await deliver(night, run) if run.run_id in due else run for run in runs])

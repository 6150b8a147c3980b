"""Commits on their way out, once all tasks are decided: what waits for nobody, then what a person allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import get_run_logger

from flows.approval import approved
from overnight.delivery import awaiting, is_due, unsent
from overnight.night import Night
from overnight.report import RunReport, last_attempts
from overnight.reporting import batch_report
from tasks.calls import in_thread
from tasks.deliver import deliver
from tasks.publish import write_pages

_AT_ONCE = 4


async def handed_over(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, each delivered as its task asks, held ones after a person's word.

    The report is readable before anybody is asked: an answer may take a week.
    """
    first = await delivered(night, runs)
    if awaiting(first) and not night.interrupt:
        await in_thread(write_pages, night, batch_report(night, first))
    return await delivered(night, await approved(night, first))


async def delivered(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, those that are due delivered. A batch that is spread leaves it to its tasks' flow runs.

    A fault of ours in one delivery is told, and costs neither the others nor the report.
    """
    if night.batch.spread:
        return tuple(runs)
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(run: RunReport) -> RunReport:
        async with room:
            if night.interrupt:
                return await in_thread(unsent, night, run, "the batch was interrupted before")
            return await deliver(night, run)

    due = [run for run in last_attempts(runs) if is_due(night, run)]
    done = dict(
        zip((run.run_id for run in due), await asyncio.gather(*map(one, due), return_exceptions=True), strict=True)
    )
    return tuple([await _kept(night, run, done.get(run.run_id, run)) for run in runs])


async def _kept(night: Night, run: RunReport, found: RunReport | BaseException) -> RunReport:
    if isinstance(found, RunReport):
        return found
    if not isinstance(found, Exception):
        raise found
    get_run_logger().error("delivery of %s", run.task_id, exc_info=found)
    return await in_thread(unsent, night, run, f"a fault in overnight: {type(found).__name__}: {found}")

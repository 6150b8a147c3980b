"""Commits on their way out, once all tasks are decided."""

from __future__ import annotations

from collections.abc import Sequence

from flows.approval import approved
from overnight.delivery import as_it_stands, awaiting
from overnight.night import Night
from overnight.report import RunReport
from tasks.calls import in_thread
from tasks.publish import write_pages


async def handed_over(night: Night, runs: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The runs, held ones after a person's word.

    The report is readable before anybody is asked: an answer may take a week.
    """
    if awaiting(runs) and not night.interrupt:
        await in_thread(write_pages, night, as_it_stands(night, runs))
    return await approved(night, runs)

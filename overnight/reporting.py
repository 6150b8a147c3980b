"""The report of a batch, from its attempts as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overnight.alarm import sounded
from overnight.attribution import attributed
from overnight.night import Night, now
from overnight.report import BatchReport, RunReport, count, exit_code, kills
from overnight.totals import spent


def batch_report(night: Night, runs: Sequence[RunReport], **known: Any) -> BatchReport:
    """What these attempts come to.

    Args:
        known: Fields of the report that the caller knows better.
    """
    found: dict[str, Any] = {
        "started_at": night.ledger.reopen()[1],
        "ended_at": now(),
        "exit_code": exit_code(runs, interrupted=night.interrupt is not None),
        "routes": night.routes(),
    }
    return BatchReport(
        batch_id=night.ledger.batch_id,
        name=night.batch.name,
        runs=tuple(runs),
        counts=count(runs),
        source=night.batch.source,
        attribution=attributed(runs),
        alarm=sounded(runs),
        spent=spent(runs),
        kills=kills(runs),
        spared=sum(run.monitor.spared for run in runs if run.monitor),
        **{**found, **known},
    )

"""Prefect task `publish`: the morning's report, on disk and as artifacts."""

from __future__ import annotations

import re

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from overnight.ledger import write
from overnight.morning import markdown, rows, run_markdown
from overnight.night import Night
from overnight.report import BatchReport, last_attempts


@task(task_run_name="publish", cache_policy=NO_CACHE)
async def publish(night: Night, report: BatchReport) -> None:
    """Write `report.json` and `report.md` to the batch's folder, then the artifacts.

    The files come first: pages may be late, the report may not. Keys carry the
    batch's name, not its id, so an artifact's page shows its nights in a row.
    """
    write(night.ledger.directory / "report.json", report.to_json())
    write(night.ledger.directory / "report.md", markdown(report))
    key = _key(report.name)
    await acreate_table_artifact(rows(report), key=f"{key}-runs", description=f"Runs of {report.batch_id}")
    await acreate_markdown_artifact(markdown(report), key=f"{key}-report", description=f"Report of {report.batch_id}")
    for run in last_attempts(report.runs):
        words = f"{run.task_id} of {report.batch_id}: {run.state}"
        await acreate_markdown_artifact(run_markdown(run), key=f"{key}-task-{_key(run.task_id)}", description=words)


def _key(name: str) -> str:
    """Prefect takes lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

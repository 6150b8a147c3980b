"""Prefect task `publish`: the morning's report, on disk and as artifacts."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from overnight.doctor import words
from overnight.doctor.records import Checkup
from overnight.ledger import write
from overnight.morning import headline, markdown, rows, run_markdown
from overnight.night import Night
from overnight.page import html
from overnight.report import BatchReport, last_attempts
from tasks.announce import batch_finished
from tasks.pages import key, page_of, written


@task(task_run_name="batch {report.name} / publish", cache_policy=NO_CACHE)
async def publish(night: Night, report: BatchReport) -> None:
    """Write `report.json`, `report.md` and `report.html` to the batch's folder, announce it, then write the artifacts.

    The files come first: pages may be late, the report may not. At the first
    page that the API does not take, the rest is left.
    """
    write(night.ledger.directory / "report.json", report.to_json())
    write_pages(night, report)
    batch_finished(night, report)
    for artifact in _pages(night, report):
        if not await written(artifact):
            return


def write_pages(night: Night, report: BatchReport) -> None:
    """`report.md` and `report.html` alone: a batch is over once there is a `report.json`."""
    write(night.ledger.directory / "report.md", markdown(report))
    write(night.ledger.directory / "report.html", html(report, night.ledger.directory))


def rewrite(night: Night, report: BatchReport) -> None:
    """The report of a batch that is over, on disk alone: it was announced when it was new."""
    write(night.ledger.directory / "report.json", report.to_json())
    write_pages(night, report)


async def publish_checkup(name: str, checkup: Checkup) -> None:
    """Show what a doctor found: a table `doctor-NAME`, and `doctor-NAME-report` with every call. In its flow run."""
    page = key("doctor", name, "report")
    of_all = f"Routes of {name}: {words.headline(checkup.routes)}"
    # relative to the page of any artifact, in both of Prefect's UIs; cells of a table are no links (3.8.8)
    linked = f"{of_all}. [Every call, and the evidence](../key/{page})"
    if await written(acreate_table_artifact(words.rows(checkup), key=key("doctor", name), description=linked)):
        shown = words.markdown(name, checkup)
        await written(acreate_markdown_artifact(shown, key=page, description=of_all))


def _pages(night: Night, report: BatchReport) -> Iterator[Coroutine[Any, Any, Any]]:
    """Each artifact of a batch, made when its turn comes."""
    tasks = {run.run_id: page_of(night.ledger, run.run_id) for run in report.runs if run.run_id}
    of_batch = f"{headline(report)} ({report.batch_id})"
    yield acreate_table_artifact(rows(report, tasks), key=key(report.name, "runs"), description=of_batch)
    yield acreate_markdown_artifact(markdown(report), key=key(report.name, "report"), description=of_batch)
    for run in last_attempts(report.runs):
        words = f"{run.task_id} of {report.batch_id}: {run.state}"
        page = tasks.get(run.run_id)
        shown = run_markdown(run) + (f"\n[Its task run]({page})\n" if page else "")
        yield acreate_markdown_artifact(shown, key=key(report.name, "task", run.task_id), description=words)

"""Prefect task `diagnose`: decide the attempt."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from overnight.night import Night
from overnight.report import RunReport
from tasks.announce import run_finished
from tasks.calls import in_thread
from tasks.marks import mark, stream
from tasks.pages import note_page
from tasks.retries import never
from tasks.states import ended


@task(
    task_run_name="batch {night.batch.name} / {run.task_id} #{run.attempt} outcome",
    retries=1,
    retry_condition_fn=never,
    cache_policy=NO_CACHE,
)
async def diagnose(night: Night, run: RunReport) -> State[Any]:
    """Write the attempt's outcome down and announce it; the state is the outcome's."""
    mark(run.route, run.failure)
    await in_thread(night.decide, run)
    note_page(night.ledger, run.run_id)
    run_finished(night, run)
    get_run_logger().info("%s; %s", run.state, stream(run.run_id))
    return ended(run)

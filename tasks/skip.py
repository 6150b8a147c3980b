"""Prefect task `skip`: show a task that never started."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from overnight.night import Night
from overnight.report import RunReport
from tasks.announce import run_finished
from tasks.marks import mark
from tasks.states import ended


@task(task_run_name="batch {night.batch.name} / {run.task_id} {run.state}", cache_policy=NO_CACHE)
async def skip(night: Night, run: RunReport) -> State[Any]:
    """Give a task without an attempt its place among the others, and announce it. Nothing is written down."""
    mark(run.route, run.failure)
    run_finished(night, run)
    return ended(run)

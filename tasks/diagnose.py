"""Prefect task `diagnose`: decide the attempt."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from overnight.failures import FailureError
from overnight.morning import whereabouts
from overnight.night import Night
from overnight.report import RunReport
from tasks.calls import in_thread


@task(task_run_name="{run.task_id} #{run.attempt} outcome", cache_policy=NO_CACHE)
async def diagnose(night: Night, run: RunReport) -> State[Any]:
    """Write the attempt's outcome down; Failed with cause and mend when it did not succeed."""
    await in_thread(night.decide, run)
    if run.failure is None:
        return Completed(message=whereabouts(run))
    return Failed(message=str(run.failure), data=FailureError(run.failure))

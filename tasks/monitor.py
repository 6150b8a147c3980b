"""Prefect task `monitor`: follow a run to its end."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from overnight.night import Night, Watched
from overnight.plan import RunPlan
from tasks.calls import in_thread


@task(task_run_name="{plan.task_id} #{plan.attempt} monitor", cache_policy=NO_CACHE)
async def monitor(night: Night, plan: RunPlan) -> Watched:
    """Follow until the run ends, is stopped for a cause, or we are told to leave it.

    A monitor that watched a run die has succeeded. The link is redialled
    inside, so there is nothing for a Prefect retry to mend.
    """
    watched = await in_thread(night.monitor, plan)
    log = get_run_logger()
    if watched.stopped is not None:
        log.warning("stopped: %s", watched.stopped)
    log.info("%s after %.0f s", watched.watch.ending or "left to itself", watched.seconds)
    return watched

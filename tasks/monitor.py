"""Prefect task `monitor`: follow a run to its end."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from overnight.events import Ending, Exited, Killed, Lost
from overnight.night import Night, Watched
from overnight.plan import RunPlan
from tasks.calls import in_thread
from tasks.marks import mark, run_name, stream


@task(task_run_name=run_name("monitor"), cache_policy=NO_CACHE)
async def monitor(night: Night, plan: RunPlan) -> Watched:
    """Follow until the run ends, is stopped for a cause, or we are told to leave it.

    A monitor that watched a run die has succeeded. The link is redialled
    inside, so there is nothing for a Prefect retry to mend.
    """
    mark(plan.route)
    watched = await in_thread(night.monitor, plan)
    log = get_run_logger()
    if watched.stop is not None:
        log.warning("ended by %s: %s", watched.stop.rule, watched.stop.failure or "it was done and lingered")
    log.info("%s after %.0f s; %s", _how(watched.watch.ending), watched.seconds, stream(plan.run_id))
    return watched


def _how(ending: Ending | None) -> str:
    match ending:
        case None:
            return "left to itself"
        case Exited(exec_error=str(why)) | Lost(why):
            return why
        case Killed():
            return f"ended by {ending.by}"
        case _:
            return f"signal {ending.signal}" if ending.code is None else f"exit code {ending.code}"

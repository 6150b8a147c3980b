"""Prefect task `look`: what is on a host, and what would it add to an agent behind our back?"""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from overnight.doctor.visit import Visit
from overnight.doctor.words import host_lines
from overnight.failures import FailureError
from tasks.calls import in_thread
from tasks.states import state_of


@task(task_run_name="doctor / look at {host}", cache_policy=NO_CACHE)
async def look(visit: Visit, host: str) -> State[Any]:
    """Look at a host; Failed when it is not fit for runs, or cannot be looked at."""
    try:
        found = await in_thread(visit.look, host)
    except FailureError as error:
        return state_of(error.failure)
    for line in host_lines(found):
        get_run_logger().info("%s", line)
    wrong = [each for each in found.findings if each.weight == "error"]
    if wrong:
        return Failed(message="; ".join(f"{each.id}: {each.seen}" for each in wrong))
    return Completed(message=f"looked at in {found.seconds:.1f} s, {len(found.shadows)} shadows")

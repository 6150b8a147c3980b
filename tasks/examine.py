"""Prefect task `examine`: is the route open, and if not, what would mend it?"""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.keys import expiry_note
from overnight.doctor.visit import Visit
from overnight.spec import TaskSpec
from tasks.calls import in_thread
from tasks.marks import mark
from tasks.retries import PREFLIGHT_DELAYS_S, mends_the_wire
from tasks.states import state_of


@task(
    task_run_name="doctor / examine {first.route}",
    retries=len(PREFLIGHT_DELAYS_S),
    retry_delay_seconds=PREFLIGHT_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=mends_the_wire,
    cache_policy=NO_CACHE,
)
async def examine(visit: Visit, first: TaskSpec) -> State[Any]:
    """Examine the route of `first`; Failed with the cause when it is shut. Only a host out of reach is tried again."""
    mark(first.route)
    note = await in_thread(expiry_note, first.route.provider)
    found = await in_thread(visit.examine, first, note)
    for call in found.calls:
        get_run_logger().info(
            "%s %s: %s, %s, %.1f s", call.by, call.varied or "as it is", call.kind or "ok", call.seen, call.seconds
        )
    if found.route.failure is None:
        return Completed(message=f"open after {found.route.preflight_s:.1f} s")
    mark(first.route, found.route.failure)
    return state_of(found.route.failure)

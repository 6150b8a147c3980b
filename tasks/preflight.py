"""Prefect task `preflight`: is the route open?"""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.keys import expiry_note
from overnight.night import Night
from overnight.route import Route
from overnight.spec import TaskSpec
from tasks.announce import route_shut
from tasks.calls import in_thread
from tasks.marks import mark
from tasks.pages import written
from tasks.retries import PREFLIGHT_DELAYS_S, mends_the_wire
from tasks.states import state_of


@task(
    task_run_name="batch {night.batch.name} / preflight {first.route}",
    retries=len(PREFLIGHT_DELAYS_S),
    retry_delay_seconds=PREFLIGHT_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=mends_the_wire,
    cache_policy=NO_CACHE,
)
async def preflight(night: Night, first: TaskSpec) -> State[Any]:
    """Probe the route of `first` once for the whole batch; Failed with the cause when it is shut.

    Only a host out of reach is tried again. A refused key is an answer.
    """
    mark(first.route)
    found = await in_thread(night.preflight, first)
    await written(_remind(night, first.route))
    if found.failure is None:
        version = f"{first.route.harness} {found.version or 'of unknown version'}"
        get_run_logger().info("open after %.1f s, %s", found.seconds, version)
        return Completed(message=f"open after {found.seconds:.1f} s")
    mark(first.route, found.failure)
    route_shut(night, first.route, found.failure)
    return state_of(found.failure)


async def _remind(night: Night, route: Route) -> None:
    """Say so when the operator wrote that this key ends soon."""
    note = await in_thread(expiry_note, route.provider)
    if note is not None:
        night.tell(str(route), "preflight", f"note: {note}")
        get_run_logger().warning("%s", note)

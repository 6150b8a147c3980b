"""Prefect task `collect`: bring the commits home."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from overnight.collected import Collected
from overnight.handle import RunHandle
from overnight.morning import many
from overnight.night import Night
from overnight.plan import RunPlan
from tasks.calls import in_thread
from tasks.marks import mark, run_name
from tasks.retries import WIRE_DELAYS_S, mends_the_wire


@task(
    task_run_name=run_name("collect"),
    retries=len(WIRE_DELAYS_S),
    retry_delay_seconds=WIRE_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=mends_the_wire,
    cache_policy=NO_CACHE,
)
async def collect(night: Night, plan: RunPlan, handle: RunHandle) -> Collected:
    """Fetch `base..tip` and what was left uncommitted; whatever became of the agent."""
    mark(plan.route)
    found = await in_thread(night.collect, plan, handle)
    commits = many(len(found.commits), "commit")
    get_run_logger().info("%s on %s in %s", commits, found.branch or "no branch", found.repo)
    return found

"""Prefect task `dispatch`: bring the repository to the host and start the run."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from overnight.handle import RunHandle
from overnight.night import Night
from overnight.plan import RunPlan
from tasks.calls import in_thread
from tasks.marks import mark, run_name, stream
from tasks.retries import WIRE_DELAYS_S, mends_the_wire


@task(
    task_run_name=run_name("dispatch"),
    retries=len(WIRE_DELAYS_S),
    retry_delay_seconds=WIRE_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=mends_the_wire,
    cache_policy=NO_CACHE,
)
async def dispatch(night: Night, plan: RunPlan) -> tuple[RunPlan, RunHandle]:
    """Start a run exactly once, however often this is tried: the host knows it by its run id."""
    mark(plan.route)
    plan, handle = await in_thread(night.dispatch, plan)
    words = "%s runs on %s in %s, base %s; %s"
    get_run_logger().info(words, plan.run_id, handle.host, handle.run_dir, handle.base_sha[:12], stream(plan.run_id))
    return plan, handle

"""Prefect task `verify`: run the task's check on what came home."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from overnight.handle import RunHandle
from overnight.night import Night
from overnight.plan import RunPlan
from overnight.report import Verify
from tasks.calls import in_thread
from tasks.marks import mark, run_name


@task(task_run_name=run_name("verify"), cache_policy=NO_CACHE)
async def verify(night: Night, plan: RunPlan, handle: RunHandle, tip: str) -> Verify | None:
    """Run the check in a fresh clone on the host, without any key in its environment.

    None when we were told to leave it to itself.
    """
    mark(plan.route)
    found = await in_thread(night.verify, plan, handle, tip)
    if found is None:
        get_run_logger().info("left to itself")
        return None
    get_run_logger().info("`%s` ended with %s after %.0f s", found.command, found.exit_code, found.seconds)
    return found

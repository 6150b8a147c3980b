"""What Prefect's lists show of a run: its name and its tags."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.runtime import flow_run

from overnight.failures import Failure
from overnight.route import Route
from tasks.pages import written


def run_name(stage: str) -> str:
    """Template of the task run's name: `batch tonight / fix-parser #2 monitor`."""
    return "batch {night.batch.name} / {plan.task_id} #{plan.attempt} " + stage


def stream(run_id: str) -> str:
    """Where the agent's words are, for a log line; they are never in the log itself."""
    return f"what the agent said: overnight logs {run_id}"


def tags_of(routes: Iterable[Route]) -> set[str]:
    """`provider:zai`, `harness:claude-code`, `host:box` of each route."""
    return {f"{part}:{route.names[part]}" for route in routes for part in ("provider", "harness", "host")}


def mark(route: Route, failure: Failure | None = None) -> None:
    """Tag the task run this is called in: its route, and `cause:auth-rejected` where it failed.

    The next state change carries the tags to the server.

    Not through `prefect.tags` or `with_options`: the engine asks the API for a
    concurrency limit of such tags before it calls the task (prefect 3.8.8: one
    call a task run; with the API away it waits 62 s, then the task fails).
    """
    context = TaskRunContext.get()
    if context is not None:
        cause = {f"cause:{failure.kind}"} if failure else set()
        context.task_run.tags = sorted(tags_of([route]) | cause)


BATCH_ID = "resume:"
"""Begins the tag by which a flow run is traced to its record in a state directory."""


async def mark_flow_run(tags: Iterable[str], name: str) -> None:
    """Tag and name the flow run this is called in: one call to the API; when it is away, they stay as they were."""
    async with get_client() as client:
        await written(client.update_flow_run(flow_run.id, tags=sorted(tags), name=name))

"""What Prefect's pages would show: asked of a real server, which records late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from overnight.handle import RunHandle
from overnight.night import Night
from overnight.report import BatchReport, RunReport, count, exit_code
from overnight.spec import TaskSpec

T = TypeVar("T")


def in_a_flow(body: Callable[[], Awaitable[None]]) -> UUID:
    """Run it as a flow; the id of its flow run."""
    ids: list[str] = []

    @flow
    async def small() -> None:
        ids.append(flow_run.id)
        await body()

    asyncio.run(small())
    return UUID(ids[0])


async def shown(call: Any) -> None:
    """Await a task with `return_state=True`, which Prefect 3.8.8 types as if it were not awaitable."""
    await call


def until(look: Callable[[], T]) -> T:
    """The first answer that holds something."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return found


def asked(path: str, **body: Any) -> list[dict[str, Any]]:
    with get_client(sync_client=True) as client:
        answer = client._client.post(path, json=body).json()
    found: list[dict[str, Any]] = answer["events"] if isinstance(answer, dict) else answer
    return found


def ended_task_runs(of: UUID, how_many: int) -> list[dict[str, Any]]:
    """The task runs of a flow run, once so many of them are recorded as ended."""

    def look() -> list[dict[str, Any]]:
        found = asked("/task_runs/filter", flow_runs={"id": {"any_": [str(of)]}})
        over = [each for each in found if each["end_time"]]
        return over if len(over) >= how_many else []

    return until(look)


def events(name: str, batch_id: str) -> list[dict[str, Any]]:
    """The events of one name about one batch, once one is there."""
    wanted = {"event": {"name": [name]}, "resource": {"labels": {"overnight.batch-id": batch_id}}}
    return until(lambda: asked("/events/filter", filter=wanted))


def artifacts(key: str) -> list[dict[str, Any]]:
    """All artifacts of a key, oldest first: its page in the UI."""
    found = asked("/artifacts/filter", artifacts={"key": {"any_": [key]}})
    return sorted(found, key=lambda each: each["created"])


def run_of(night: Night, task: TaskSpec, **changes: Any) -> RunReport:
    """An attempt of a task, succeeded unless `changes` say more."""
    run_id = f"{night.ledger.batch_id}.{task.id}.1"
    fields = {"task_id": task.id, "run_id": run_id, "attempt": 1, "state": "succeeded", "repo": task.repo}
    return RunReport.model_validate({**task.route.model_dump(), **fields, **changes})


def started(night: Night, task: TaskSpec) -> None:
    """Leave the record of an attempt that a host has taken."""
    run_id = f"{night.ledger.batch_id}.{task.id}.1"
    at = datetime.now(UTC)
    handle = RunHandle(run_id=run_id, host="box", run_dir="/r", work_dir="/w", base_sha="a" * 40, started_at=at)
    night.ledger.save(run_id, "handle", handle)


def report_of(night: Night, *runs: RunReport) -> BatchReport:
    at = datetime.now(UTC)
    return BatchReport(
        batch_id=night.ledger.batch_id,
        name=night.batch.name,
        started_at=at,
        ended_at=at,
        exit_code=exit_code(runs, interrupted=False),
        routes=night.routes(),
        runs=runs,
        counts=count(runs),
    )

"""How the flow run of one task is called, and hands its report to the batch that waits for it: by an artifact."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.sorting import ArtifactSort

from flows.patience import patiently
from flows.private_server import OutOfReach
from overnight.night import now
from overnight.report import BatchReport

REPORT = "overnight-report"
"""Type of the artifact."""

THROUGH = "came-through"
"""Tag of a flow run whose agent has had its first good answer."""

LATE_S, LOOK_S = 90.0, 3.0


def part_run_name(batch: str, task: str, attempt: int) -> str:
    """What Prefect's pages call the flow run of an attempt."""
    return f"batch {batch} / {task}" + (f" #{attempt}" if attempt > 1 else "")


async def hand_over(report: BatchReport, child: UUID) -> None:
    """Give the batch what its flow run `child` found; again changes nothing."""
    words = f"{report.name} of {report.batch_id}, for the batch"
    handed = ArtifactCreate(type=REPORT, description=words, data=report.to_json(), flow_run_id=child)

    async def create() -> None:
        async with get_client() as client:
            await client.create_artifact(handed)

    await patiently(create)


async def say_through(child: UUID) -> None:
    """Tell the batch that the attempt of flow run `child` came through: others may follow it on its route."""
    with suppress(OutOfReach):  # it waits for a while, or for the end of the run, and goes on without
        async with get_client() as client:
            run = await client.read_flow_run(child)
            await client.update_flow_run(child, tags=sorted({*run.tags, THROUGH}))


async def report_of(child: UUID) -> BatchReport | None:
    """What a flow run handed over last: one that is tried again does so again. None when it came to nothing."""
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[child]), type=ArtifactFilterType(any_=[REPORT]))
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=mine, sort=ArtifactSort.UPDATED_DESC, limit=1)
    return BatchReport.model_validate_json(str(found[0].data)) if found else None


async def late_report(child: UUID) -> BatchReport | None:
    """The same of a flow run that was killed with its cancel: its worker ends what it had begun, and tells then."""
    deadline = now() + timedelta(seconds=LATE_S)
    while now() < deadline:
        await asyncio.sleep(LOOK_S)
        if (report := await patiently(partial(report_of, child))) is not None:
            return report
    return None

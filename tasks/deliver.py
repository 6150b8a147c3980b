"""Prefect task `deliver`: push a task's commits, and open its pull request."""

from __future__ import annotations

import os

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.forge_credentials import load_forge
from overnight.delivery import hand_over
from overnight.failures import BadInput
from overnight.forge import Forge
from overnight.night import Night
from overnight.outgoing import handed
from overnight.report import RunReport
from tasks.calls import in_thread
from tasks.marks import mark


@task(task_run_name="batch {night.batch.name} / {run.task_id} deliver", cache_policy=NO_CACHE)
async def deliver(night: Night, run: RunReport) -> RunReport:
    """Bring the commits of a task to where it wants them. What keeps them here is in the report; nothing is lost."""
    mark(run.route)
    found = await in_thread(_delivered, night, run)
    for words in handed(found.handed) if found.handed else ():
        get_run_logger().info("%s", words)
    return found


def _delivered(night: Night, run: RunReport) -> RunReport:
    name = next(task.deliver.forge for task in night.batch.tasks if task.id == run.task_id)
    forge: Forge | BadInput | None = None
    if name is not None:
        try:
            forge = load_forge(name, night.batch.source, "deliver.forge")
        except BadInput as error:
            forge = error
    return hand_over(night, run, forge, os.environ)

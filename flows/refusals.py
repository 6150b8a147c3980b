"""Why no new attempt of a task may start now, whatever its routes are like: the place for every such wish."""

from __future__ import annotations

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.night import Night
from overnight.spec import TaskSpec


def refusal(night: Night, task: TaskSpec) -> Failure | None:
    """Asked once a second for every task that waits, and again when one is about to start; must not block."""
    if night.wish(task.id):
        asked = night.ends.words(task.id) or "the batch was interrupted"
        return fail(FailureKind.CANCELLED, Evidence(source="host", seen=f"{asked}, before this task started"))
    return None

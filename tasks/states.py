"""The Prefect state that a run's end is shown as."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from overnight.failures import Failure, FailureError
from overnight.morning import whereabouts
from overnight.report import RunReport


def state_of(failure: Failure) -> State[Any]:
    """Failed, with the cause and the mend as its message; `tasks.marks.mark` makes the cause a tag, too.

    Under Prefect's own name: the lists of both its UIs filter by name, so a
    state called otherwise is missed by whoever looks for "Failed" (3.8.8).
    """
    return Failed(message=str(failure), data=FailureError(failure))


def ended(run: RunReport) -> State[Any]:
    """What became of an attempt, or of a task that never started.

    A skipped task is of type CANCELLED under the name `Skipped`: it ended
    without having run, and counts neither as a success nor as a failure.
    """
    if run.failure is None:
        return Completed(message=whereabouts(run))
    if run.state in ("skipped", "cancelled"):
        name = "Skipped" if run.state == "skipped" else "Cancelled"
        return Cancelled(name=name, message=str(run.failure), data=FailureError(run.failure))
    return state_of(run.failure)

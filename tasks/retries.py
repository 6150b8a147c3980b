"""Which failure earns another try. Plain functions: Prefect never calls a partial or a callable object (3.8.8)."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State

from overnight.failures import Failure, FailureError, Retry

BACKOFF_S = (30.0, 120.0, 300.0)
WIRE_DELAYS_S: list[float] = [2, 8, 20]
# a connection is itself dialled for 20 s, and a route that is down should be named soon
PREFLIGHT_DELAYS_S: list[float] = [3]


def mends_the_wire(task: Any, task_run: Any, state: State[Any]) -> bool:  # noqa: ARG001  # Prefect's signature
    """Another try of a Prefect task: only when time may mend what was raised. Auth never."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "result", None)
    return isinstance(error, FailureError) and error.failure.retry is Retry.BACKOFF


def never(task: Any, task_run: Any, state: State[Any]) -> bool:  # noqa: ARG001  # Prefect's signature
    """No other try, whatever it was.

    Beside `retries=1` it keeps the log short: with `retries=0` Prefect 3.8.8
    logs a Failed that a task returns twice, once with an empty traceback.
    """
    return False


def wait_before_next(failure: Failure, attempt: int, attempts: int) -> float | None:
    """Seconds until a fresh attempt of a coding task, or None when it earns none.

    Args:
        failure: What ended attempt number `attempt` (from 1).
        attempts: The most the task may have.
    """
    if attempt >= attempts or failure.shuts_route:
        return None
    if failure.retry is Retry.FRESH:
        return 0.0
    if failure.retry is Retry.BACKOFF:
        return failure.retry_after_s or BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1]
    return None

"""Which failure earns a Prefect task another try; which earns a coding task one is said in `overnight.again`.

Plain functions: Prefect never calls a partial or a callable object (3.8.8).
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State

from overnight.failures import FailureError, Retry

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

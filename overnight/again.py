"""Which failure earns a task another attempt, and when: the table's `retry` with its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from overnight.failures import Failure, FailureKind, Family, Retry
from overnight.route import Route

BACKOFF_S = (30.0, 120.0, 300.0)
# jitter is on top, so that a provider's own time is never anticipated
JITTER = 0.2
STALLS = 1
PATIENCE_S = 12 * 3600.0
"""So long a night without a deadline waits for a route: a week's window is no matter of one night."""
_WAYS = (FailureKind.HOST_UNREACHABLE, FailureKind.NETWORK)


def wait_before_next(failures: Sequence[Failure], attempts: int, seed: str = "", *, alone: bool = True) -> float | None:
    """Seconds until a task's next attempt, or None when it earns none; where it goes then is not said here.

    Args:
        failures: What ended its attempts so far, one each, the last one last.
        attempts: The most it may have.
        seed: Of the jitter; one seed gives one wait. Empty for none.
        alone: The task has no other route; with one it may try there what a person must mend here.
    """
    failure, number = failures[-1], len(failures)
    if number >= attempts:
        return None
    if failure.shuts_for_good:
        return None if alone else 0.0
    if failure.family is Family.STALL and sum(each.family is Family.STALL for each in failures) > STALLS:
        return None
    if failure.retry is Retry.NEVER:
        return None
    if failure.retry is not Retry.BACKOFF:
        return 0.0
    wait_s = failure.retry_after_s or BACKOFF_S[min(number, len(BACKOFF_S)) - 1]
    return wait_s * (1 + JITTER * _share(f"{seed} {number}")) if seed else wait_s


def leaves_route(failure: Failure, *, alone: bool) -> bool:
    """Whether the task itself must go elsewhere; a used-up window is its route's matter, which opens again.

    A way to host or provider that stayed broken is given up only for another one, and so is a shut route.

    Args:
        alone: The task has no other route.
    """
    if failure.kind in _WAYS or failure.shuts_for_good:
        return not alone
    return failure.retry is Retry.ELSEWHERE and failure.kind is not FailureKind.QUOTA_WINDOW


def is_settled(runs: Sequence[tuple[Route, Failure | None]], routes: Sequence[Route], attempts: int) -> bool:
    """Whether a task has had its last attempt, whatever the night is like.

    Args:
        runs: Its attempts so far, first to last.
        routes: Every route it may take.
    """
    failures = [failure for _, failure in runs if failure is not None]
    if len(failures) < len(runs):
        return True
    alone = len(routes) == 1
    left = {route for route, failure in runs if failure and leaves_route(failure, alone=alone)}
    return bool(runs) and (wait_before_next(failures, attempts, alone=alone) is None or left >= set(routes))


def _share(seed: str) -> float:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") / 2**32

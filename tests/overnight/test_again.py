"""Which failure earns a coding task another attempt; every kind is listed, so that a new one cannot slip through."""

from __future__ import annotations

import pytest

from overnight.again import BACKOFF_S, JITTER, is_settled, leaves_route, wait_before_next
from overnight.failures import FailureKind
from overnight.route import Route
from tests.overnight.samples import proven

K = FailureKind
TIME = {K.RATE_LIMITED, K.OVERLOADED, K.PROVIDER_ERROR, K.PROVIDER_MUTE, K.NETWORK, K.HOST_UNREACHABLE}
FRESH = {K.HARNESS_CRASHED, K.SILENT_START, K.WENT_QUIET, K.TOOL_STUCK, K.LOOPING, K.NO_CHANGE, K.NO_COMMIT, K.LOST}
FRESH |= {K.VERIFY_FAILED}
ELSEWHERE = {K.DISK_FULL, K.OUT_OF_MEMORY}
HERE, THERE = (Route(host=host, harness="scripted", provider="p", model="m") for host in ("here", "there"))


@pytest.mark.parametrize("kind", FailureKind)
def test_what_a_failure_earns(kind: FailureKind) -> None:
    wait_s = wait_before_next([proven(kind)], 2)
    if kind in TIME:
        assert wait_s == BACKOFF_S[0]
    else:
        assert wait_s == (0 if kind in FRESH | ELSEWHERE | {K.QUOTA_WINDOW} else None)
    assert leaves_route(proven(kind), alone=True) is (kind in ELSEWHERE)
    ways = {K.NETWORK, K.HOST_UNREACHABLE}
    assert leaves_route(proven(kind), alone=False) is (kind in ELSEWHERE | ways or proven(kind).shuts_for_good)


def test_the_last_attempt_is_the_last() -> None:
    failure = proven(K.NO_COMMIT)
    assert [wait_before_next([failure] * n, 3) for n in (1, 2, 3, 4)] == [0, 0, None, None]
    assert wait_before_next([failure], 1) is None


def test_a_stall_earns_one_fresh_start_however_many_attempts_there_are() -> None:
    stall = proven(K.WENT_QUIET)
    assert wait_before_next([stall], 9) == 0
    assert wait_before_next([stall, proven(K.SILENT_START)], 9) is None
    assert wait_before_next([proven(K.NO_COMMIT), stall], 9) == 0


def test_waits_grow_and_then_stay() -> None:
    failure = proven(K.OVERLOADED)
    assert [wait_before_next([failure] * n, 10) for n in (1, 2, 3, 4, 9)] == [30, 120, 300, 300, 300]


def test_the_provider_s_own_time_is_honoured_and_never_anticipated() -> None:
    limited = proven(K.RATE_LIMITED, retry_after_s=7)
    waits = {wait_before_next([limited], 2, f"task {i}") for i in range(50)}
    assert wait_before_next([limited], 2) == 7
    assert len(waits) == 50, "they do not all come back at once"
    assert all(wait_s is not None and 7 <= wait_s <= 7 * (1 + JITTER) for wait_s in waits)
    assert wait_before_next([proven(K.RATE_LIMITED, retry_after_s=0)], 2) == BACKOFF_S[0]


def test_a_task_is_settled_when_no_night_could_change_it() -> None:
    full, quiet = proven(K.DISK_FULL), proven(K.NO_COMMIT)
    assert not is_settled([], [HERE], 2)
    assert is_settled([(HERE, None)], [HERE], 2)
    assert not is_settled([(HERE, quiet)], [HERE], 2)
    assert is_settled([(HERE, quiet), (HERE, quiet)], [HERE], 2)
    assert is_settled([(HERE, full)], [HERE], 3)
    assert not is_settled([(HERE, full)], [HERE, THERE], 3)
    assert is_settled([(HERE, full), (THERE, full)], [HERE, THERE], 3)
    refused = proven(K.AUTH_REJECTED)
    assert is_settled([(HERE, refused)], [HERE], 3)
    assert not is_settled([(HERE, refused)], [HERE, THERE], 3)
    assert is_settled([(HERE, refused), (THERE, refused)], [HERE, THERE], 3)

"""Which failure earns another try; every kind is listed, so that a new one cannot slip through."""

from __future__ import annotations

import inspect
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from overnight.failures import RULES, BadInput, FailureError, FailureKind, Family
from tasks.retries import BACKOFF_S, WIRE_DELAYS_S, mends_the_wire, wait_before_next
from tests.overnight.samples import proven

K = FailureKind
WIRE = {
    K.RATE_LIMITED,
    K.OVERLOADED,
    K.PROVIDER_ERROR,
    K.PROVIDER_MUTE,
    K.NETWORK,
    K.HOST_UNREACHABLE,
}
FRESH = {
    K.HARNESS_CRASHED,
    K.SILENT_START,
    K.WENT_QUIET,
    K.TOOL_STUCK,
    K.LOOPING,
    K.NO_CHANGE,
    K.NO_COMMIT,
    K.LOST,
}

every_kind = pytest.mark.parametrize("kind", FailureKind)


def failed(kind: FailureKind) -> State[FailureError]:
    return Failed(data=FailureError(proven(kind)))


def test_prefect_is_given_a_plain_function() -> None:
    """It would call a partial or a callable object never, and say nothing."""
    assert inspect.isfunction(mends_the_wire)
    assert list(inspect.signature(mends_the_wire).parameters) == ["task", "task_run", "state"]


@every_kind
def test_a_prefect_task_is_tried_again_only_for_the_wire(kind: FailureKind) -> None:
    assert mends_the_wire(None, uuid4(), failed(kind)) is (kind in WIRE)


@every_kind
def test_a_coding_task_gets_another_attempt(kind: FailureKind) -> None:
    wait = wait_before_next(proven(kind), 1, 2)
    if kind in WIRE:
        assert wait == BACKOFF_S[0]
    elif kind in FRESH:
        assert wait == 0
    else:
        assert wait is None


@pytest.mark.parametrize("kind", [k for k, r in RULES.items() if r.family in (Family.AUTH, Family.SETUP, Family.QUOTA)])
def test_what_a_person_has_to_mend_earns_neither(kind: FailureKind) -> None:
    failure = proven(kind, retry_after_s=5)
    assert not mends_the_wire(None, uuid4(), failed(kind))
    assert [wait_before_next(failure, n, 10) for n in range(1, 10)] == [None] * 9


@pytest.mark.parametrize("error", [ValueError("x"), BadInput("a", "b", "c", "d"), TimeoutError()])
def test_an_error_of_ours_is_never_tried_again(error: Exception) -> None:
    assert not mends_the_wire(None, uuid4(), Failed(data=error))


def test_a_state_without_an_error_is_never_tried_again() -> None:
    assert not mends_the_wire(None, uuid4(), Completed(data=1))
    assert not mends_the_wire(None, uuid4(), Failed())


def test_the_last_attempt_is_the_last() -> None:
    stall = proven(K.WENT_QUIET)
    assert [wait_before_next(stall, n, 3) for n in (1, 2, 3, 4)] == [0, 0, None, None]
    assert wait_before_next(stall, 1, 1) is None


def test_waits_grow_and_then_stay() -> None:
    failure = proven(K.OVERLOADED)
    assert [wait_before_next(failure, n, 10) for n in (1, 2, 3, 4, 9)] == [30, 120, 300, 300, 300]
    assert sorted(WIRE_DELAYS_S) == WIRE_DELAYS_S


def test_the_provider_s_own_reset_time_goes_first() -> None:
    assert wait_before_next(proven(K.RATE_LIMITED, retry_after_s=7), 1, 2) == 7
    assert wait_before_next(proven(K.RATE_LIMITED, retry_after_s=0), 1, 2) == BACKOFF_S[0]
    assert wait_before_next(proven(K.WENT_QUIET, retry_after_s=7), 1, 2) == 0

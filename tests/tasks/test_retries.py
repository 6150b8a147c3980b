"""Which failure earns a Prefect task another try; every kind is listed, so that a new one cannot slip through."""

from __future__ import annotations

import inspect
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from overnight.failures import RULES, BadInput, FailureError, FailureKind, Family
from tasks.retries import WIRE_DELAYS_S, mends_the_wire
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


@pytest.mark.parametrize("kind", [k for k, r in RULES.items() if r.family in (Family.AUTH, Family.SETUP, Family.QUOTA)])
def test_what_a_person_has_to_mend_is_no_matter_of_the_wire(kind: FailureKind) -> None:
    assert not mends_the_wire(None, uuid4(), failed(kind))


@pytest.mark.parametrize("error", [ValueError("x"), BadInput("a", "b", "c", "d"), TimeoutError()])
def test_an_error_of_ours_is_never_tried_again(error: Exception) -> None:
    assert not mends_the_wire(None, uuid4(), Failed(data=error))


def test_a_state_without_an_error_is_never_tried_again() -> None:
    assert not mends_the_wire(None, uuid4(), Completed(data=1))
    assert not mends_the_wire(None, uuid4(), Failed())


def test_waits_grow() -> None:
    assert sorted(WIRE_DELAYS_S) == WIRE_DELAYS_S

"""Which state Prefect shows."""

from __future__ import annotations

import pytest
from prefect.client.schemas.objects import StateType

from overnight.failures import FailureError, FailureKind
from tasks.retries import mends_the_wire
from tasks.states import ended, state_of
from tests.overnight.samples import collected, commit, proven, run

SEEN = "api.z.ai answered 401 to Authorization: Bearer"


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_is_found_by_whoever_looks_for_failed(kind: FailureKind) -> None:
    failure = proven(kind, SEEN)
    state = state_of(failure)
    assert (state.type, state.name) == (StateType.FAILED, "Failed")
    assert isinstance(state.data, FailureError)
    assert state.data.failure == failure


def test_the_message_begins_with_the_cause_and_ends_with_the_mend() -> None:
    failure = proven(FailureKind.AUTH_REJECTED, SEEN, names={"provider": "zai"})
    assert state_of(failure).message == (
        "auth-rejected: api.z.ai answered 401 to Authorization: Bearer. "
        "Mend: replace the key: overnight credentials add zai"
    )


def test_a_refused_key_earns_no_further_try() -> None:
    assert not mends_the_wire(None, None, state_of(proven(FailureKind.AUTH_REJECTED, SEEN)))
    assert mends_the_wire(None, None, state_of(proven(FailureKind.HOST_UNREACHABLE, SEEN)))


def test_a_success_says_where_its_commits_are() -> None:
    found = collected(commit(), commit())
    state = ended(run(commits=found.commits, branch="overnight/b/shout", repo="/srv/app"))
    assert (state.type, state.name) == (StateType.COMPLETED, "Completed")
    assert state.message == "2 commits on overnight/b/shout in /srv/app"


@pytest.mark.parametrize(
    ("state", "kind", "type_", "name"),
    [
        ("failed", FailureKind.WENT_QUIET, StateType.FAILED, "Failed"),
        ("lost", FailureKind.LOST, StateType.FAILED, "Failed"),
        ("skipped", FailureKind.AUTH_REJECTED, StateType.CANCELLED, "Skipped"),
        ("cancelled", FailureKind.CANCELLED, StateType.CANCELLED, "Cancelled"),
    ],
)
def test_what_did_not_succeed_says_why(state: str, kind: FailureKind, type_: StateType, name: str) -> None:
    failure = proven(kind, SEEN)
    shown = ended(run(state=state, failure=failure))
    assert (shown.type, shown.name, shown.message) == (type_, name, str(failure))

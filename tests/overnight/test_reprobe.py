from __future__ import annotations

import pytest

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.lockfile import Header
from overnight.probe import Direct, HeaderReply
from overnight.reprobe import Agents, Reprobed, may_name_a_time, refined, timed, worth_asking
from tests.overnight.samples import ROUTE

K = FailureKind


def reply(kind: K | None, status: int | None = 200, source: str = "http") -> HeaderReply:
    seen = Evidence.model_validate({"source": source, "seen": f"HTTP {status}"})
    return HeaderReply(header=Header.BEARER, status=status, seconds=0.1, kind=kind, evidence=seen, retry_after_s=7)


def asked(kind: K | None, status: int | None = 200, source: str = "http", agent: Failure | None = None) -> Reprobed:
    return Reprobed(9.0, Direct(reply(kind, status, source)), Agents(agent) if agent else None)


def seen(kind: K, source: str = "event") -> Failure:
    return fail(kind, Evidence.model_validate({"source": source, "seen": "x"}), names=ROUTE.names)


@pytest.mark.parametrize(
    ("probed", "kind"),
    [
        (asked(None), None),
        (asked(K.AUTH_REJECTED, 401), K.AUTH_REJECTED),
        (asked(K.PROVIDER_MUTE, None), K.PROVIDER_MUTE),
        (asked(K.NETWORK, None), None),
        (asked(K.NETWORK, None, agent=seen(K.AUTH_REJECTED)), K.AUTH_REJECTED),
        (asked(None, agent=seen(K.SILENT_START, "clock")), None),
        (Reprobed(9.0, Direct(reply(K.AUTH_REJECTED, 401)), named=seen(K.WRONG_HEADER, "probe")), K.WRONG_HEADER),
    ],
)
def test_what_a_fresh_call_meets(probed: Reprobed, kind: K | None) -> None:
    """That this machine cannot reach the provider says nothing of the host; that the agent there cannot, does."""
    assert probed.kind is kind


@pytest.mark.parametrize(
    ("before", "probed", "after"),
    [
        (seen(K.UNKNOWN), asked(K.AUTH_REJECTED, 401), K.AUTH_REJECTED),
        (seen(K.UNKNOWN), asked(None), K.UNKNOWN),
        (seen(K.RATE_LIMITED), asked(K.QUOTA_WINDOW, 429, "body"), K.QUOTA_WINDOW),
        (seen(K.RATE_LIMITED), asked(K.AUTH_REJECTED, 401), K.RATE_LIMITED),
        (seen(K.RATE_LIMITED), asked(None), K.RATE_LIMITED),
        (seen(K.MODEL_UNKNOWN), asked(K.NOT_THE_API, 404), K.NOT_THE_API),
        (seen(K.MODEL_UNKNOWN), asked(K.RATE_LIMITED, 429), K.MODEL_UNKNOWN),
        (seen(K.NOT_THE_API), asked(K.BILLING, 200, "body"), K.BILLING),
        (seen(K.NOT_THE_API), asked(K.OVERLOADED, 529), K.OVERLOADED),
        (seen(K.NOT_THE_API), asked(K.PROVIDER_MUTE, None), K.NOT_THE_API),
        (seen(K.AUTH_REJECTED), asked(K.NOT_THE_API, 403), K.NOT_THE_API),
        (seen(K.AUTH_REJECTED), asked(K.REQUEST_REJECTED, 403), K.REQUEST_REJECTED),
        (seen(K.AUTH_REJECTED), asked(K.RATE_LIMITED, 429), K.AUTH_REJECTED),
        (seen(K.NO_COMMIT, "git"), asked(K.OVERLOADED, 529), K.OVERLOADED),
        (seen(K.PROVIDER_ERROR), asked(K.RATE_LIMITED, 429, "body"), K.PROVIDER_ERROR),
        (seen(K.NETWORK), asked(None), K.NETWORK),
    ],
)
def test_what_a_fresh_call_adds_to_a_name(before: Failure, probed: Reprobed, after: K) -> None:
    found = refined(before, probed, ROUTE.names)
    assert found.kind is after
    assert any("asked again directly" in each.seen for each in found.evidence)
    assert any(each.seen == "x" for each in found.evidence)


def test_a_key_in_the_wrong_header_is_told_from_a_wrong_key() -> None:
    named = seen(K.WRONG_HEADER, "probe").model_copy(update={"remedy": "set the other variable"})
    probed = Reprobed(9.0, Direct(reply(K.AUTH_REJECTED, 401)), named=named)
    found = refined(seen(K.AUTH_REJECTED), probed, ROUTE.names)
    assert (found.kind, found.remedy) == (K.WRONG_HEADER, "set the other variable")


def test_when_to_come_back_is_learned_from_a_call_that_met_the_same_and_from_no_other() -> None:
    for kind in (K.RATE_LIMITED, K.OVERLOADED):
        found = timed(seen(kind, "body"), asked(kind, 429))
        assert (found.kind, found.retry_after_s, may_name_a_time(found)) == (kind, 7, False)
        assert timed(seen(kind, "body"), asked(None)).retry_after_s is None
    assert timed(seen(K.RATE_LIMITED, "body"), asked(K.OVERLOADED, 529)).retry_after_s is None
    assert timed(seen(K.BILLING, "body"), asked(K.BILLING, 429)).retry_after_s is None
    assert not may_name_a_time(None)


@pytest.mark.parametrize(
    ("failure", "worth"),
    [
        (None, False),
        (seen(K.UNKNOWN), True),
        (seen(K.RATE_LIMITED), True),
        (seen(K.RATE_LIMITED, "body"), False),
        (seen(K.MODEL_UNKNOWN), True),
        (seen(K.NO_COMMIT, "git"), False),
        (seen(K.TURN_LIMIT), False),
    ],
)
def test_only_what_a_call_can_explain_is_asked_about(failure: Failure | None, worth: bool) -> None:
    assert worth_asking(failure) is worth

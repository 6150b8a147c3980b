from __future__ import annotations

import pytest

from overnight.failures import RULES as TABLE
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from tests.overnight.harnesses.golden import RULES, Case, cases

NAMES = {"provider": "zhipu", "harness": "claude-code", "host": "box", "model": "glm-5.1"}
CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.harness}/{case.name}")
def test_names_the_cause(case: Case) -> None:
    failure = HARNESSES[case.harness].diagnose(case.transcript(), RULES, NAMES)
    assert (failure.kind if failure else None) == case.kind, str(failure)
    if failure is not None:
        seen = " | ".join(str(e) for e in failure.evidence)
        assert case.meta["evidence"] in seen
        assert "{" not in failure.remedy


def test_every_case_says_where_it_comes_from() -> None:
    for case in CASES:
        assert set(case.meta) >= {"agent", "version", "date", "mode", "ended", "kind", "evidence"}, case.name
        assert (case.kind is None) == (case.meta["evidence"] == ""), case.name


def test_the_set_covers_every_kind_a_harness_can_prove() -> None:
    proved = {case.kind for case in CASES if case.kind}
    assert proved >= {
        FailureKind.AUTH_REJECTED,
        FailureKind.MODEL_UNKNOWN,
        FailureKind.REQUEST_REJECTED,
        FailureKind.BILLING,
        FailureKind.QUOTA_WINDOW,
        FailureKind.RATE_LIMITED,
        FailureKind.OVERLOADED,
        FailureKind.PROVIDER_ERROR,
        FailureKind.PROVIDER_MUTE,
        FailureKind.NOT_THE_API,
        FailureKind.NETWORK,
        FailureKind.CONTEXT_OVERFLOW,
        FailureKind.TURN_LIMIT,
        FailureKind.BUDGET_LIMIT,
        FailureKind.HARNESS_CRASHED,
        FailureKind.HARNESS_USAGE,
    }
    assert proved <= set(TABLE)

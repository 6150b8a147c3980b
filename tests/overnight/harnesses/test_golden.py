from __future__ import annotations

import pytest

from overnight.events import Act
from overnight.failures import RULES as TABLE
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from tests.overnight.harnesses.golden import RULES, Case, cases
from tests.overnight.harnesses.golden import case as recorded

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


K = FailureKind
FULL = ("claude-code", "codex", "copilot", "goose", "opencode", "pi", "qwen")
CLASSES = {
    "refused key": {K.AUTH_REJECTED},
    "wrong model": {K.MODEL_UNKNOWN},
    "empty account": {K.BILLING},
    "used-up window": {K.QUOTA_WINDOW},
    "plan that ended": {K.PLAN_EXPIRED},
    "rate limit": {K.RATE_LIMITED},
    "failing servers": {K.PROVIDER_ERROR, K.OVERLOADED},
    "no way there": {K.NETWORK},
    "another thing than the API": {K.NOT_THE_API},
    "mute provider": {K.PROVIDER_MUTE},
    "crash": {K.HARNESS_CRASHED},
    "refused command line": {K.HARNESS_USAGE},
    "full disk": {K.DISK_FULL},
}
SAYS_NOTHING = {
    ("codex", "plan that ended"): "of a 429 it keeps the number alone (0.169.0)",
    ("copilot", "mute provider"): "it waits without a word, longer than 70 s (1.0.102)",
    ("goose", "mute provider"): "it waits without a word, longer than 70 s (1.52.0)",
    ("claude-code", "full disk"): "it ends well; the record of the exit tells (2.1.330)",
    ("pi", "full disk"): "it ends well; the record of the exit tells (0.73.1)",
}
"""What a harness does not say, so that no transcript can prove it."""


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("harness", FULL)
def test_every_class_of_every_harness_has_a_case(harness: str, name: str) -> None:
    has_one = any(case.harness == harness and case.kind in CLASSES[name] for case in CASES)
    assert has_one is ((harness, name) not in SAYS_NOTHING)


@pytest.mark.parametrize("harness", FULL)
def test_every_harness_has_good_runs_that_speak_of_failures(harness: str) -> None:
    """A model that words 401, 429, a login and a quota, after a command that printed and failed: and a commit."""
    told = recorded(harness, "prose-native")
    assert (told.kind, told.meta["code"]) == (None, 0)
    assert all(words in (told.out + told.err).decode() for words in ("401", "429", "Not logged in", "Quota exceeded"))
    ended = [said.event.ok for said in told.transcript().said if said.event.act is Act.TOOL_ENDED]
    assert ended[-1] is True

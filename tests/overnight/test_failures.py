from __future__ import annotations

import json
import re
import string

import pytest

from overnight.failures import RULES, BadInput, Evidence, Failure, FailureError, FailureKind, Family, Retry, fail

NAMES = {"provider": "zai", "harness": "claude-code", "host": "box", "model": "glm-5.2"}
SEEN = (
    Evidence(source="http", seen="HTTP 401", at_s=0.44, where="api.z.ai"),
    Evidence(source="probe", seen="the same key as Authorization: 200"),
)

every_kind = pytest.mark.parametrize("kind", FailureKind)


def test_every_kind_has_a_rule_and_every_family_and_retry_a_kind() -> None:
    assert set(RULES) == set(FailureKind)
    assert {rule.family for rule in RULES.values()} == set(Family)
    assert {rule.retry for rule in RULES.values()} == set(Retry)


@every_kind
def test_stored_values_are_the_names_in_kebab_case(kind: FailureKind) -> None:
    assert kind.value == kind.name.lower().replace("_", "-")
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.value)


@every_kind
def test_remedies_hold_only_names_that_are_known(kind: FailureKind) -> None:
    rule = RULES[kind]
    used = {name for _, name, _, _ in string.Formatter().parse(rule.remedy) if name is not None}
    assert used <= {"provider", "harness", "host"}
    assert rule.meaning
    assert rule.remedy
    assert not rule.remedy.endswith(".")


@every_kind
def test_what_somebody_has_to_mend_is_never_tried_again(kind: FailureKind) -> None:
    rule = RULES[kind]
    if rule.family in (Family.AUTH, Family.SETUP, Family.OURS, Family.UNKNOWN):
        assert rule.retry is Retry.NEVER
    if rule.family in (Family.AUTH,):
        assert rule.shuts_route
    if rule.retry in (Retry.BACKOFF, Retry.FRESH):
        assert not rule.shuts_route, "a shut route would never see the next try"


@every_kind
def test_a_failure_round_trips_through_json(kind: FailureKind) -> None:
    failure = fail(kind, *SEEN, names=NAMES, retry_after_s=30)
    stored = json.loads(failure.model_dump_json())
    assert (stored["kind"], stored["family"], stored["retry"]) == (kind, RULES[kind].family, RULES[kind].retry)
    assert Failure.model_validate(stored) == failure


def test_remedies_are_filled_with_names() -> None:
    assert fail(FailureKind.AUTH_REJECTED, names=NAMES).remedy == "replace the key: overnight credentials add zai"
    assert fail(FailureKind.HARNESS_MISSING).remedy.startswith("install the harness on the host")
    assert fail(FailureKind.AUTH_REJECTED, remedy="ask {her}").remedy == "ask {her}"


def test_a_failure_reads_as_one_line() -> None:
    failure = fail(FailureKind.AUTH_REJECTED, *SEEN, names=NAMES)
    assert str(failure) == (
        "auth-rejected: HTTP 401 (and 1 more sightings). Mend: replace the key: overnight credentials add zai"
    )
    assert str(fail(FailureKind.LOST)).startswith("lost: the run's record ends without an ending. Mend: ")
    assert str(SEEN[0]) == "http: HTTP 401 at 0.4 s in api.z.ai"


def test_exceptions_say_what_they_carry() -> None:
    failure = fail(FailureKind.NETWORK, *SEEN)
    error = FailureError(failure)
    assert (error.failure, str(error)) == (failure, str(failure))
    bad = BadInput("night.yaml", "tasks[0].id", "is missing", "Write it")
    assert str(bad) == "night.yaml: tasks[0].id: is missing. Write it"

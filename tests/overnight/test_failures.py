from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.failures import (
    RULES,
    BadInput,
    Evidence,
    Failure,
    FailureError,
    FailureKind,
    Family,
    Retry,
    Source,
    Unproven,
    fail,
)
from overnight.kinds import ORDER
from tests.overnight.samples import proven

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
    failure = proven(kind, names=NAMES, retry_after_s=30).also(*SEEN)
    stored = json.loads(failure.model_dump_json())
    assert (stored["kind"], stored["family"], stored["retry"]) == (kind, RULES[kind].family, RULES[kind].retry)
    assert Failure.model_validate(stored) == failure


def test_remedies_are_filled_with_names() -> None:
    refused = FailureKind.AUTH_REJECTED
    assert proven(refused, names=NAMES).remedy == "replace the key: overnight credentials add zai"
    assert proven(FailureKind.HARNESS_MISSING).remedy.startswith("install the harness on the host")
    assert proven(refused, remedy="ask {her}").remedy == "ask {her}"


def test_a_failure_reads_as_one_line() -> None:
    failure = fail(FailureKind.AUTH_REJECTED, *SEEN, names=NAMES)
    assert str(failure) == (
        "auth-rejected: HTTP 401 (and 1 more sightings). Mend: replace the key: overnight credentials add zai"
    )
    assert str(fail(FailureKind.UNKNOWN)).startswith("unknown: no positive sign of a cause was found. Mend: ")
    assert str(SEEN[0]) == "http: HTTP 401 at 0.4 s in api.z.ai"


def test_the_order_begins_with_the_harness_and_ends_with_asking_again() -> None:
    of_the_run = [source for source in ORDER if source not in ("git", "clock", "lock", "keys")]
    assert of_the_run == ["event", "body", "http", "exit", "stderr", "host", "probe"]


@every_kind
def test_each_kind_says_what_proves_it(kind: FailureKind) -> None:
    rule = RULES[kind]
    assert rule.proof
    assert bool(rule.proved_by) is (kind is not FailureKind.UNKNOWN)
    assert rule.proved_by <= set(ORDER)


@pytest.mark.parametrize("source", ORDER)
@every_kind
def test_a_name_needs_a_source_that_can_prove_it(kind: FailureKind, source: Source) -> None:
    seen = Evidence(source=source, seen="something")
    if source in RULES[kind].proved_by or kind is FailureKind.UNKNOWN:
        assert fail(kind, seen).kind is kind
        return
    with pytest.raises(Unproven, match=f"{kind} was not proven"):  # a warning is an error in tests
        fail(kind, seen)


@every_kind
def test_no_name_is_given_for_nothing(kind: FailureKind) -> None:
    if kind is not FailureKind.UNKNOWN:
        with pytest.raises(Unproven):
            fail(kind)


def test_at_night_an_unproven_name_becomes_unknown_and_says_so() -> None:
    hunch = Evidence(source="host", seen="it felt slow")
    with pytest.warns(Unproven):
        failure = fail(FailureKind.RATE_LIMITED, hunch, remedy="wait", retry_after_s=3)
    assert (failure.kind, failure.retry_after_s) == (FailureKind.UNKNOWN, None)
    assert failure.remedy == RULES[FailureKind.UNKNOWN].remedy
    assert [e.seen for e in failure.evidence] == [
        "it felt slow",
        "rate-limited was not proven: it takes a sighting by event or body or http or stderr or probe",
    ]


def test_what_proves_the_kind_leads_and_the_rest_follows_strongest_first() -> None:
    """The code names an empty account where the event only says that something was limited."""
    code = Evidence(source="body", seen="HTTP 429, code 1113")
    event, probe = Evidence(source="event", seen="rate_limit"), Evidence(source="probe", seen="HTTP 429")
    slow, host = Evidence(source="clock", seen="after 3 s"), Evidence(source="host", seen="2 processes")
    failure = fail(FailureKind.BILLING, host, code, probe, slow, event)
    assert failure.evidence == (code, event, slow, host, probe)
    assert failure.brief == "billing: HTTP 429, code 1113"
    again = Evidence(source="event", seen="rate_limit again")
    assert failure.also(again).evidence == (code, event, again, slow, host, probe)


def test_of_equals_the_first_seen_comes_first() -> None:
    first, second = (Evidence(source="host", seen=seen) for seen in ("stdout", "stderr"))
    assert fail(FailureKind.UNKNOWN, first, second).evidence == (first, second)


ROOT = Path(__file__).resolve().parents[2]


def _named_in_code() -> Iterator[tuple[str, FailureKind, set[str]]]:
    """Every place that names a failure by a literal kind, with the sources of its sightings where all stand there."""
    for path in sorted(p for room in ("overnight", "blocks", "tasks", "flows") for p in (ROOT / room).rglob("*.py")):
        for function in [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]:
            local = {
                target.id: node.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for call in [n for n in ast.walk(function) if isinstance(n, ast.Call)]:
                if not (isinstance(call.func, ast.Name) and call.func.id == "fail" and call.args):
                    continue
                kind, *seen = call.args
                sources = {_source(local.get(e.id, e) if isinstance(e, ast.Name) else e) for e in seen}
                if isinstance(kind, ast.Attribute) and None not in sources:
                    yield f"{path.relative_to(ROOT)}:{call.lineno}", FailureKind[kind.attr], {str(s) for s in sources}


def _source(node: ast.expr) -> object:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Evidence"):
        return None
    return next((k.value.value for k in node.keywords if k.arg == "source" and isinstance(k.value, ast.Constant)), None)


NAMED = list(_named_in_code())


def test_the_reader_of_our_code_finds_the_places() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize(("place", "kind", "sources"), NAMED, ids=[place for place, _, _ in NAMED])
def test_every_name_in_our_code_is_given_with_its_proof(place: str, kind: FailureKind, sources: set[str]) -> None:
    assert kind is FailureKind.UNKNOWN or sources & RULES[kind].proved_by, place


def test_exceptions_say_what_they_carry() -> None:
    failure = proven(FailureKind.NETWORK)
    error = FailureError(failure)
    assert (error.failure, str(error)) == (failure, str(failure))
    bad = BadInput("night.yaml", "tasks[0].id", "is missing", "Write it")
    assert str(bad) == "night.yaml: tasks[0].id: is missing. Write it"

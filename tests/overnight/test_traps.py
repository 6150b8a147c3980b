from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from overnight import lockfile
from overnight.harnesses import HARNESSES
from overnight.traps import Match, Rule, Trap

TRAPS = lockfile.load().known_bad


@pytest.mark.parametrize("trap", list(TRAPS.values()), ids=list(TRAPS))
def test_a_trap_says_why_it_matters_and_what_to_do(trap: Trap) -> None:
    for words in (trap.match.words, trap.why, trap.mend):
        assert words == words.strip()
        assert not words.endswith(".")


def test_every_promised_trap_is_there() -> None:
    promised = {
        "key-in-wrong-variable": Rule.KEY_VARIABLE,
        "both-key-variables": None,
        "v1-in-base-url": None,
        "model-in-wrong-case": Rule.MODEL_SPELLING,
        "chat-url-for-anthropic-agent": Rule.OTHER_URL,
        "quoted-key": None,
        "bearer-in-key": None,
        "retries-without-end": None,
        "waits-above-budget": Rule.WAITS,
        "version-that-hangs": Rule.VERSION,
    }
    assert {name: TRAPS[name].match.rule for name in promised} == promised


def test_every_rule_has_a_trap() -> None:
    assert {trap.match.rule for trap in TRAPS.values()} - {None} == set(Rule)


def test_the_variables_of_the_first_trap_are_the_harness_s_own() -> None:
    assert set(TRAPS["both-key-variables"].match.together) == set(HARNESSES["claude-code"].HEADER_OF)


@pytest.mark.parametrize(
    ("name", "value", "sprung"),
    [
        ("quoted-key", "'sk-1'", True),
        ("quoted-key", 'sk-"1', True),
        ("quoted-key", "sk-1.b_2", False),
        ("bearer-in-key", "Bearer sk-1", True),
        ("bearer-in-key", '"bearer sk-1"', True),
        ("bearer-in-key", "sk-bearer-1", False),
        ("typographic-quote-in-key", "sk-1\u201d", True),
        ("typographic-quote-in-key", "sk-1'", False),
        ("base-url-without-scheme", "api.z.ai/api/anthropic", True),
        ("base-url-without-scheme", '"https://api.z.ai"', True),
        ("base-url-without-scheme", "https://api.z.ai", False),
        ("base-url-without-scheme", "$URL", False),
        ("base-url-without-scheme", "", False),
        ("claude-model-elsewhere", "claude-opus-5", True),
        ("claude-model-elsewhere", "anthropic/claude-opus-5", False),
        ("traffic-switch-off-means-on", "0", True),
        ("traffic-switch-off-means-on", "False", True),
        ("traffic-switch-off-means-on", "10", False),
        ("credential-in-custom-headers", "Authorization: x", True),
        ("credential-in-custom-headers", "X-Team: night", False),
        ("plan-key-elsewhere", "sk-sp-1", True),
        ("plan-key-elsewhere", "sk-1", False),
        ("pay-key-at-plan", "sk-1", True),
        ("pay-key-at-plan", "sk-sp-1", False),
    ],
)
def test_the_value_of_a_variable_gives_a_trap_away(name: str, value: str, sprung: bool) -> None:
    pattern = TRAPS[name].match.value
    assert pattern is not None
    assert bool(re.search(pattern, value)) is sprung


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="not a regular expression"):
        Match(words="w", variables=("A",), value="(")

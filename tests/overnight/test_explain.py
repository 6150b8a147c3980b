from __future__ import annotations

from pathlib import Path

import pytest

from overnight import layers
from overnight.explain import explain
from overnight.failures import BadInput
from overnight.lockfile import DEFAULT_LOCK
from tests.overnight.overlays import layered

OF = layers.load(DEFAULT_LOCK, None)
LOCK = OF.lock
NAMES = [*LOCK.providers, *LOCK.environment_only, *LOCK.harnesses, *LOCK.known_bad]
NAMES += [f"{name}/{harness}" for name, entry in LOCK.providers.items() for harness in entry.harnesses]
NAMES += [f"{name}/{harness}" for name, entry in LOCK.environment_only.items() for harness in entry.harnesses]
NAMES += sorted({name for entry in LOCK.harnesses.values() for name in (*entry.env, *entry.absent, *entry.ranges)})


def words(name: str) -> str:
    return "\n".join(each.words for each in explain(OF, name))


@pytest.mark.parametrize("name", NAMES)
def test_everything_in_the_lock_can_be_explained(name: str) -> None:
    found = explain(OF, name)
    assert found
    assert all(each.words and each.place and each.layer == str(DEFAULT_LOCK) for each in found)
    assert any(each.provenance for each in found)


def test_a_pair_says_what_is_set_and_which_header_carries_the_key() -> None:
    said = words("zai/claude-code")
    assert "ANTHROPIC_AUTH_TOKEN carries the key, sent as Authorization: Bearer; the provider takes it: yes" in said
    assert "ANTHROPIC_API_KEY is set to nothing: " in said
    assert "CLAUDE_CODE_OAUTH_TOKEN must not exist: " in said
    assert "waits 365 s in silence at most" in said
    assert "trap both-key-variables" in said


def test_only_the_traps_of_a_pair_are_told() -> None:
    assert "trap claude-model-elsewhere" in words("deepseek/claude-code")
    assert "trap claude-model-elsewhere" not in words("openrouter/claude-code")
    assert "trap key-ignored-by-goose" not in words("zai/claude-code")
    assert "trap key-ignored-by-goose" in words("zai/goose")


def test_a_variable_says_who_sends_it_and_who_must_not_have_it() -> None:
    said = words("ANTHROPIC_API_KEY")
    assert "claude-code sends its value as x-api-key" in said
    assert "goose: set to {key}, for anthropic, zai, " in said
    assert "claude-code: set to nothing, " in said
    assert "goose: ANTHROPIC_BASE_URL must not exist" in words("ANTHROPIC_BASE_URL")
    assert "yours to set" in words("AWS_REGION")


def test_a_trap_says_its_mend_and_the_fact_it_breaks() -> None:
    said = words("v1-in-base-url")
    assert "seen by url suffixes: /v1" in said
    assert "mend: leave /v1 out" in said
    assert "breaks: providers.*.endpoints.*.url" in said


def test_the_file_that_won_is_told(tmp_path: Path) -> None:
    of = layered(tmp_path, providers={"zai": {"models": {"glm-6": {}}}})
    layer = {each.words: each.layer for each in explain(of, "zai")}
    assert layer["model glm-6"] == str(of.overlay)
    assert layer["model glm-5.2"] == str(DEFAULT_LOCK)


def test_what_a_provider_is_asked_at_the_most_says_of_whom(tmp_path: Path) -> None:
    provenance = {"source": "our plan", "date": "2026-11-20", "confidence": "official"}
    limits = {"concurrent": 8, "each_key": {"requests": 600, "per_s": 18_000}, "provenance": provenance}
    said = [each.words for each in explain(layered(tmp_path, providers={"zai": {"limits": limits}}), "zai")]
    assert "8 requests at the same time in all; 600 requests in 18000 s with each key" in said


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("zia", "zai"),
        ("zai/gose", "goose"),
        ("ANTHROPIC_AUTH_TOKN", "ANTHROPIC_AUTH_TOKEN"),
        ("bedrock/goose", "claude-code"),
    ],
)
def test_an_unknown_name_is_refused_with_near_ones(name: str, mend: str) -> None:
    with pytest.raises(BadInput) as caught:
        explain(OF, name)
    assert mend in caught.value.mend

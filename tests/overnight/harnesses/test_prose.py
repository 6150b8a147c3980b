"""What the model writes is no evidence: every harness, every kind of words that sound like a failure."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from overnight.events import Ending, Exited
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.outcome import conclude, process_failure
from tests.overnight.harnesses.golden import RULES, Case, case, cases
from tests.overnight.samples import collected, commit

NAMES = {"provider": "zhipu", "harness": "any", "host": "box", "model": "glm-5.1"}
PROSE = {
    "401": "The server said HTTP 401 Unauthorized: authentication_error, invalid x-api-key.",
    "429": "HTTP 429 Too Many Requests: rate_limit_error. exceeded retry limit, last status: 429 Too Many Requests",
    "login": "Not logged in \u00b7 Please run /login",
    "quota": "Quota exceeded. Check your plan and billing details; usage limit reached for 5 hour [1308]",
    "balance": 'Credit balance is too low {"error":{"code":"1113","message":"no balance"}}',
    "network": "Connection error. Connection refused (ECONNREFUSED), Request timed out.",
    "disk": "ENOSPC: no space left on device, write",
    "memory": "Out of memory: Killed process 4242 (node)",
    "line": '{"type":"result","subtype":"success","is_error":true,"api_error_status":401,"result":"Not logged in"}',
    "claude-code": "API Error: 401 Failed to authenticate",
    "codex": "unexpected status 401 Unauthorized: Missing bearer",
    "goose": "Ran into this error: Authentication error: Status: 401",
    "opencode": "AI_APICallError: Cannot connect to API: Unauthorized",
    "qwen": '[API Error: 401 {"error":{"code":"1001"}}]',
    "pi": "401 status code (no body)",
    "aider": "litellm.AuthenticationError: AnthropicException - invalid x-api-key",
    "gemini-cli": '[API Error: {"error":{"code": 429,"status":"RESOURCE_EXHAUSTED"}}]',
}
SPOKEN = sorted({each.harness for each in cases() if each.name == "ok-text"})
SHOWN = sorted({each.harness for each in cases() if each.name == "ok-tooluse"})
every_word = pytest.mark.parametrize("words", PROSE.values(), ids=PROSE)
KILLED = Exited(None, 9, 5.0)


def swapped(original: Case, old: str, words: str) -> Case:
    """The case with other words in the place of some of its own."""
    plain = HARNESSES[original.harness].NAME == "aider"
    new = (words if plain else json.dumps(words)).encode()
    out, count = re.subn(old.encode(), lambda _: new, original.out)
    assert count, f"{original.harness}/{original.name} has no {old}"
    return replace(original, out=out)


def answered(harness: str, words: str) -> Case:
    return swapped(
        case(harness, "ok-text"), r'"ok(?: kestrel-7)? ?"(?!:)' if harness != "aider" else "kestrel-7", words
    )


def returned(harness: str, words: str) -> Case:
    """By a tool, such as the log of a test suite that it ran."""
    of_git = r'"(?:\\n)?\[task1 (?:[^"\\]|\\.)*"'
    return swapped(case(harness, "ok-tooluse"), of_git if harness != "gemini-cli" else '(?<="output":)""', words)


def verdict(told: Case, ending: Ending) -> FailureKind | None:
    transcript = told.transcript()
    transcript.ending = ending
    said = HARNESSES[told.harness].diagnose(transcript, RULES, NAMES)
    failure = conclude(process_failure(transcript, said, None, NAMES), collected(commit()), transcript, NAMES)
    return failure.kind if failure else None


def test_every_harness_is_asked() -> None:
    assert {*SPOKEN, "scripted"} == {*SHOWN, "scripted", "aider"} == set(HARNESSES)


@every_word
@pytest.mark.parametrize("harness", SPOKEN)
def test_an_answer_about_failures_is_none(harness: str, words: str) -> None:
    assert verdict(answered(harness, words), Exited(0, None, 5.0)) is None


@every_word
@pytest.mark.parametrize("harness", SHOWN)
def test_a_tools_output_about_failures_is_none(harness: str, words: str) -> None:
    assert verdict(returned(harness, words), Exited(0, None, 5.0)) is None


@every_word
@pytest.mark.parametrize("harness", SPOKEN)
def test_a_death_is_not_named_by_the_last_words(harness: str, words: str) -> None:
    told = answered(harness, words)
    lines = told.out.splitlines(keepends=True)
    mark = (words if harness == "aider" else json.dumps(words)).encode()
    last = next(i for i, line in enumerate(lines) if mark in line)
    cut = replace(told, out=b"".join(lines[: last + 1]), meta={**told.meta, "at_s": None})
    assert verdict(cut, KILLED) is FailureKind.HARNESS_CRASHED

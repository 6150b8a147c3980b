"""A tool that was not allowed, as each agent says so (measured 2026-11-23)."""

from __future__ import annotations

import json

import pytest

from overnight.events import Act, Exited
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.harnesses.lines import last_words
from overnight.transcript import Transcript
from tests.overnight.harnesses.golden import read_all
from tests.overnight.samples import LOCK, ROUTE

K = FailureKind
GOOSE = b"Error: Tool approval required in non-interactive mode with GooseMode::approve\n"
OPENCODE = b"\x1b[93m\x1b[1m! \x1b[0mpermission requested: bash (git add -A, git commit -qm x); auto-rejecting\n"


@pytest.mark.parametrize(
    ("harness", "line", "code"), [("goose", GOOSE, 1), ("opencode", OPENCODE, 0)], ids=["goose", "opencode"]
)
def test_an_agent_that_gives_up_because_nobody_can_allow_a_tool(harness: str, line: bytes, code: int) -> None:
    transcript = Transcript(ending=Exited(code, None, 3.0))
    transcript.add_bytes("err", b"timestamp=x level=INFO\n" + line)
    found = HARNESSES[harness].diagnose(transcript, LOCK.providers["zai"].errors, ROUTE.names)
    assert found is not None
    assert (found.kind, found.evidence[0].source) == (K.PERMISSION_DENIED, "stderr")


def test_copilot_names_a_tool_that_was_denied() -> None:
    line = {"type": "tool.execution_complete", "data": {"success": False, "error": {"message": "no", "code": "denied"}}}
    assert [e.act for e in read_all("copilot", json.dumps(line).encode() + b"\n")] == [Act.DENIED, Act.TOOL_ENDED]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("sh: git: not found\n", "sh: git: not found"),
        ([{"type": "text", "text": "Author identity"}, {"text": "unknown"}], "Author identity unknown"),
        ({"value": {"content": [{"text": "no"}]}, "status": "error"}, "no"),
        ({"output": "a", "error": {"message": "b"}}, "a b"),
        (7, ""),
    ],
)
def test_a_tool_is_quoted_whatever_the_shape_of_its_result(result: object, words: str) -> None:
    assert last_words(result) == words


def test_only_the_end_of_long_words_is_quoted() -> None:
    assert last_words("x" * 900 + " end") == "x" * 196 + " end"

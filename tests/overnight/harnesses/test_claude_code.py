from __future__ import annotations

import json
from typing import Any

from overnight.events import Act, AgentEvent
from overnight.harnesses import claude_code
from overnight.harnesses.protocol import Launch
from tests.overnight.harnesses.golden import case, read_all


def read(*lines: dict[str, Any]) -> list[AgentEvent]:
    return claude_code.reader().feed("out", b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def acts(name: str) -> list[Act]:
    return [e.act for e in read_all("claude-code", case("claude-code", name).out) if e.act is not Act.OTHER]


def test_a_good_run_from_start_to_commit() -> None:
    events = read_all("claude-code", case("claude-code", "ok-tooluse").out)
    assert [e.act for e in events if e.act is not Act.OTHER] == [
        Act.INIT,
        *[Act.TOOL_STARTED, Act.TOOL_ENDED] * 3,
        Act.COMMITTED,
        Act.SPOKE,
        Act.RESULT,
    ]
    init, result = events[0], events[-1]
    assert (init.model, init.version) == ("glm-5.1", "2.1.330")
    assert [e.tool for e in events if e.act is Act.TOOL_STARTED] == ["Write", "Bash", "Bash"]
    assert {e.model for e in events if e.act in (Act.SPOKE, Act.TOOL_STARTED)} == {"glm-5.1"}
    assert [e.sha for e in events if e.act is Act.COMMITTED] == ["91bc2a0"]
    assert (result.ok, result.error, result.tokens) == (True, None, 72)
    assert result.text == "Done: created hello.txt and committed it. "


def test_every_failed_try_is_told_with_its_status() -> None:
    first = next(e for e in read_all("claude-code", case("claude-code", "401").out) if e.act is Act.RETRYING)
    assert first == AgentEvent(Act.RETRYING, error="authentication_failed", status=401, attempt=1, delay_s=0.621)


def test_a_line_the_cli_wrote_itself_is_an_error_not_speech() -> None:
    assert acts("403") == [Act.INIT, Act.ERROR, Act.RESULT]


def test_a_request_is_waited_for_and_a_refusal_named() -> None:
    found = acts("partial-denied-and-committed")
    assert found[:2] == [Act.INIT, Act.WAITING]
    assert Act.DENIED in found


def test_a_long_tool_gives_signs_of_life() -> None:
    assert Act.TOOL_RUNNING in acts("extra-slow-tool45")


def test_the_model_that_answered_is_not_the_synthetic_one() -> None:
    line = {"type": "assistant", "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "x"}]}}
    assert [(e.act, e.model) for e in read(line)] == [(Act.SPOKE, None)]


def test_a_price_made_up_for_an_unknown_model_is_no_price() -> None:
    def usd(basis: str) -> float | None:
        (event,) = read(
            {"type": "result", "is_error": False, "total_cost_usd": 0.5, "modelUsage": {"m": basis_of(basis)}}
        )
        return event.usd

    def basis_of(basis: str) -> dict[str, Any]:
        return {"inputTokens": 1, "outputTokens": 2, "costBasis": basis}

    assert usd("unknown") is None
    assert usd("list") == 0.5


def test_a_verdict_without_is_error_is_not_taken_for_success() -> None:
    (event,) = read({"type": "result", "subtype": "success", "result": "Done"})
    assert event.ok is False


def test_limits_are_named_by_the_verdict() -> None:
    (event,) = read({"type": "result", "subtype": "error_max_turns", "is_error": True, "errors": ["Reached 1"]})
    assert (event.error, event.text) == ("error_max_turns", "Reached 1")


def test_caps_become_flags_before_the_flags_of_the_lock() -> None:
    launch = Launch("claude", "do it", "glm-5.1", ("--strict-mcp-config",), max_usd=2.5, max_turns=40)
    assert claude_code.argv(launch) == (
        "claude",
        "-p",
        "--output-format=stream-json",
        "--verbose",
        "--include-partial-messages",
        "--model=glm-5.1",
        "--max-turns=40",
        "--max-budget-usd=2.5",
        "--strict-mcp-config",
        "--",
        "do it",
    )


def test_a_prompt_that_looks_like_a_command_is_made_text() -> None:
    assert claude_code.argv(Launch("claude", "/clear all", "m"))[-1] == "\n/clear all"


def test_reads_the_version_it_prints() -> None:
    assert claude_code.read_version("2.1.330 (Claude Code)\n") == "2.1.330"
    assert claude_code.read_version("some warning\n2.2.0-beta.1 (Claude Code)\n") == "2.2.0-beta.1"
    assert claude_code.read_version("1.2.3\n") is None

"""The marks by which a repeated tool call with a repeated result is known, from what each harness prints."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from overnight.events import Act, AgentEvent
from overnight.harnesses import HARNESSES
from overnight.harnesses.lines import digest
from tests.overnight.harnesses.golden import case, cases, read_all

HARNESSED = sorted({each.harness for each in cases() if each.name == "ok-tooluse"})
TOLD_ONCE = {"opencode"}  # shows a tool when it has ended


def calls(harness: str, out: bytes) -> list[AgentEvent]:
    return [e for e in read_all(harness, out) if e.act in (Act.TOOL_STARTED, Act.TOOL_ENDED)]


def test_every_harness_that_shows_its_tools_has_a_case() -> None:
    assert {*HARNESSED, "scripted", "aider"} == set(HARNESSES)  # aider shows none


@pytest.mark.parametrize("harness", HARNESSED)
def test_every_call_and_every_result_is_marked(harness: str) -> None:
    told = calls(harness, case(harness, "ok-tooluse").out)
    assert [e.act for e in told] == [Act.TOOL_STARTED, Act.TOOL_ENDED] * (len(told) // 2)
    assert told
    assert all(e.print and len(e.print) == 12 for e in told)
    started = [e.print for e in told if e.act is Act.TOOL_STARTED]
    assert len(set(started)) == len(started), "each of its calls was another"


@pytest.mark.parametrize("harness", HARNESSED)
def test_the_same_call_with_the_same_result_has_the_same_marks(harness: str) -> None:
    out = case(harness, "ok-tooluse").out
    assert [e.print for e in calls(harness, out + out)] == [e.print for e in calls(harness, out)] * 2


@pytest.mark.parametrize("harness", sorted(set(HARNESSED) - TOLD_ONCE))
def test_a_call_is_told_before_it_runs(harness: str) -> None:
    """On a line of its own: the call comes when it begins, the result when it has ended."""
    reader = HARNESSES[harness].reader()
    for line in case(harness, "ok-tooluse").out.splitlines(keepends=True):
        acts = {e.act for e in reader.feed("out", line)}
        assert not {Act.TOOL_STARTED, Act.TOOL_ENDED} <= acts


VOLATILE: list[tuple[str, Callable[[int], bytes]]] = [
    (
        "copilot",
        lambda n: (
            b'{"type":"tool.execution_complete","data":{"toolCallId":"c","success":true,"shellExecution":'
            b'{"exitCode":0},"result":{"content":"ok\\n<shellId: %d completed with exit code 0>"}}}\n' % n
        ),
    ),
    (
        "qwen",
        lambda n: (
            b'{"type":"user","message":{"content":[{"type":"tool_result","is_error":false,"content":'
            b'"Output: (empty)\\nExit Code: 0\\nProcess Group PGID: %d"}]}}\n' % n
        ),
    ),
]


@pytest.mark.parametrize(("harness", "line"), VOLATILE, ids=[harness for harness, _ in VOLATILE])
def test_a_number_of_the_harness_makes_no_new_result(harness: str, line: Callable[[int], bytes]) -> None:
    (one,), (other,) = calls(harness, line(1)), calls(harness, line(22))
    assert one.print == other.print


def test_a_scripted_call_is_marked_by_its_command() -> None:
    said = b'{"type":"tool_started","tool":"Bash","command":"%s"}\n{"type":"tool_ended","ok":true,"text":"%s"}\n'
    ran = [calls("scripted", said % words) for words in ((b"ls", b"a"), (b"ls", b"b"), (b"pwd", b"a"))]
    marks = [[e.print for e in told] for told in ran]
    assert marks[0][0] == marks[1][0] != marks[2][0]
    assert marks[0][1] == marks[2][1] != marks[1][1]


def test_the_order_of_fields_makes_no_new_call() -> None:
    assert digest("a", {"x": 1, "y": 2}) == digest("a", {"y": 2, "x": 1}) != digest("a", {"x": 2, "y": 1})
    assert digest("\ud800") != digest(None)


@pytest.mark.parametrize("harness", sorted(set(HARNESSED) - {"gemini-cli"}))
def test_a_command_of_four_seconds_is_known_while_it_runs(harness: str) -> None:
    """By the seconds at which its lines came; OpenCode shows a command only when it has ended (1.18.33)."""
    told = [
        s for s in case(harness, "slow-tool4").transcript().said if s.event.act in (Act.TOOL_STARTED, Act.TOOL_ENDED)
    ]
    took = [ended.at_s - began.at_s for began, ended in zip(told[::2], told[1::2], strict=True)]
    assert (max(took) > 3) is (harness not in TOLD_ONCE)

"""What each agent's own events come to, as they go and in the end."""

from __future__ import annotations

import json

import pytest

from overnight.events import Act, AgentEvent
from overnight.harnesses import HARNESSES, claude_code
from overnight.meter import Meter
from overnight.usage import Usage
from tests.overnight.harnesses.golden import case

WHOLE = Usage(fresh=44, output=28)


def metered(events: list[AgentEvent], *, to_the_end: bool = True) -> Meter:
    meter = Meter()
    for event in events:
        if to_the_end or event.act is not Act.RESULT:
            meter.take(1.0, event)
    return meter


@pytest.mark.parametrize("name", ["claude-code", "codex", "goose", "opencode", "pi", "qwen"])
def test_the_verdict_of_a_real_run(name: str) -> None:
    found = metered(HARNESSES[name].reader().feed("out", case(name, "ok-tooluse").out))
    assert found.tokens == 72
    assert sum(found.by_model.values(), Usage()) == WHOLE


@pytest.mark.parametrize("name", ["opencode", "pi", "qwen"])
def test_the_answers_of_a_real_run_come_to_the_same(name: str) -> None:
    found = metered(HARNESSES[name].reader().feed("out", case(name, "ok-tooluse").out), to_the_end=False)
    assert (found.answers, found.tokens) == (4, 72)
    assert sum(found.by_model.values(), Usage()) == WHOLE


def streamed(model: str, begun: dict[str, int], ended: dict[str, int], of: str | None = None) -> list[bytes]:
    start = {"type": "message_start", "message": {"id": "m", "model": model, "usage": begun}}
    events = [start, {"type": "message_delta", "usage": ended}]
    lines = [{"type": "stream_event", "event": event, "parent_tool_use_id": of} for event in events]
    return [json.dumps(line).encode() + b"\n" for line in lines]


def test_claude_code_tells_an_answer_in_two_parts_and_sub_agents_between_them() -> None:
    own = streamed("m", {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5}, {"output_tokens": 7})
    sub = streamed("small", {"input_tokens": 3, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 2}, "toolu_1")
    found = metered(claude_code.reader().feed("out", b"".join([own[0], *sub, own[1]])))
    assert (found.answers, found.tokens) == (2, 27)
    assert found.by_model == {"m": Usage(fresh=10, output=7, cache_read=5), "small": Usage(fresh=3, output=2)}


def test_whether_it_went_on_after_an_answer() -> None:
    meter = Meter()
    meter.take(1.0, AgentEvent(Act.WAITING))
    assert not meter.asked_on
    meter.take(2.0, AgentEvent(Act.OTHER, usage={"": Usage(fresh=1)}))
    assert (meter.answers, meter.asked_on, meter.at_s) == (1, False, 2.0)
    meter.take(3.0, AgentEvent(Act.TOOL_ENDED))
    assert (meter.asked_on, meter.at_s) == (True, 2.0)


def test_a_verdict_on_a_part_does_not_make_the_run_cheaper() -> None:
    meter = Meter()
    for fresh in (50, 9):
        meter.take(1.0, AgentEvent(Act.RESULT, ok=True, tokens=fresh, usage={"m": Usage(fresh=fresh)}))
    assert (meter.tokens, meter.by_model) == (50, {"m": Usage(fresh=50)})


def test_nothing_told_is_not_nothing_used() -> None:
    assert Meter().tokens is None
    assert metered([AgentEvent(Act.RESULT, ok=True, tokens=0)]).tokens == 0

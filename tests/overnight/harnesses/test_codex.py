from __future__ import annotations

import json

import pytest

from overnight.events import Act
from overnight.harnesses import codex
from overnight.harnesses.protocol import Launch
from tests.overnight.harnesses.golden import case, read_all


def errors(*messages: str) -> bytes:
    return b"".join(json.dumps({"type": "error", "message": each}).encode() + b"\n" for each in messages)


def test_a_good_run_from_its_first_tool_to_its_verdict() -> None:
    events = read_all("codex", case("codex", "ok-tooluse").out)
    assert [e.act for e in events[:3]] == [Act.INIT, Act.OTHER, Act.WAITING]  # a model without data is no error
    tools = [(e.act, e.ok) for e in events if e.tool == "command_execution"]
    assert tools == [(Act.TOOL_STARTED, None), (Act.TOOL_ENDED, True)] * 3
    assert (events[-1].act, events[-1].ok, events[-1].tokens) == (Act.RESULT, True, 72)
    assert events[-1].text == "Done: created hello.txt and committed it."


def test_a_command_that_failed_ended_badly() -> None:
    ended = [e.ok for e in read_all("codex", case("codex", "noident").out) if e.act is Act.TOOL_ENDED]
    assert ended == [True, True, False]


def test_a_tool_that_is_told_of_once_has_begun_too() -> None:
    line = b'{"type":"item.completed","item":{"id":"item_1","type":"file_change","status":"completed"}}\n'
    assert [e.act for e in read_all("codex", line)] == [Act.TOOL_STARTED, Act.TOOL_ENDED]


@pytest.mark.parametrize(("name", "status"), [("401", 401), ("403", 403), ("402-billing", 402), ("529", 529)])
def test_a_try_that_failed_is_counted_and_has_its_status(name: str, status: int) -> None:
    events = read_all("codex", case("codex", name).out)
    tries = [(e.attempt, e.status) for e in events if e.act is Act.RETRYING]
    assert tries == [(n, status) for n in range(1, 6)]
    assert [e.status for e in events[-2:]] == [status, status]


def test_a_body_in_place_of_a_line_is_that_of_a_400() -> None:
    assert read_all("codex", case("codex", "400-invalid").out)[-1].status == 400


def test_a_number_in_the_providers_words_is_no_status() -> None:
    words = "unexpected status 500 Internal Server Error: exceeded retry limit, last status: 429 Too Many Requests"
    assert [e.status for e in read_all("codex", errors(words, "no unexpected status 401 here"))] == [500, None]


def test_a_network_that_is_waited_for_six_times_in_a_row_is_an_error_without_end() -> None:
    wait = "Reconnecting... waiting for network (Connection failed: error sending request)"
    answer = b'{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"x"}}\n'
    waits = [e for e in read_all("codex", errors(*[wait] * 5) + answer + errors(*[wait] * 6)) if e.act is Act.RETRYING]
    assert [e.endless for e in waits] == [False] * 10 + [True]
    assert waits[-1].text == "Connection failed: error sending request"


def test_the_command_line() -> None:
    assert codex.argv(Launch("codex", "---\nx y", "vendor/glm", ("--ephemeral",))) == (
        "codex",
        "exec",
        "--json",
        "--model=vendor/glm",
        "--ephemeral",
        "--",
        "---\nx y",
    )


def test_a_dash_alone_is_made_text() -> None:
    assert codex.argv(Launch("codex", "-", "m"))[-1] == "Instruction: -"


def test_reads_the_version_it_prints() -> None:
    assert codex.read_version("codex-cli 0.169.0\n") == "0.169.0"
    assert codex.read_version("0.169.0") is None

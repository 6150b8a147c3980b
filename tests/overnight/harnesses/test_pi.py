from __future__ import annotations

import json

import pytest

from overnight.events import Act
from overnight.harnesses import pi
from overnight.harnesses.protocol import Launch
from overnight.lockfile import Header, Timing
from tests.overnight.harnesses.golden import case, read_all


def test_a_good_run_from_its_first_tool_to_its_verdict() -> None:
    events = read_all("pi", case("pi", "ok-tooluse").out)
    tools = [e for e in events if e.act is Act.TOOL_ENDED]
    assert [(e.tool, e.ok) for e in tools] == [("write", True), ("bash", True), ("bash", True)]
    assert (events[-1].act, events[-1].ok, events[-1].tokens) == (Act.RESULT, True, 72)
    assert events[-1].text == "Done: created hello.txt and committed it. "


def test_an_answer_without_content_is_no_success() -> None:
    result = read_all("pi", case("pi", "200-empty").out)[-1]
    assert (result.act, result.ok, result.error) == (Act.RESULT, False, "empty-answer")


def test_every_try_is_told_with_its_status_and_what_the_provider_said() -> None:
    events = read_all("pi", case("pi", "429").out)
    retries = [e for e in events if e.act is Act.RETRYING]
    assert [(e.attempt, e.status, e.delay_s) for e in retries] == [(1, 429, 2.0), (2, 429, 4.0), (3, 429, 8.0)]
    assert all("rate_limit_error" in e.text for e in retries)
    assert (events[-1].act, events[-1].ok, events[-1].status) == (Act.RESULT, False, 429)


def test_an_error_that_may_be_tried_again_is_no_verdict_yet() -> None:
    first = case("pi", "429").out.partition(b'{"type":"auto_retry_start"')[0]
    events = read_all("pi", first)
    assert [e.act for e in events if e.act is not Act.OTHER] == [Act.INIT, Act.WAITING, Act.ERROR]


def test_an_answer_that_was_cut_off_is_no_success() -> None:
    message = {"role": "assistant", "stopReason": "length", "content": [{"type": "text", "text": "so"}]}
    lines = [{"type": "message_end", "message": message}, {"type": "agent_end", "messages": []}]
    result = read_all("pi", "\n".join([*map(json.dumps, lines), ""]).encode())[-1]
    assert (result.act, result.ok, result.error) == (Act.RESULT, False, "length")


@pytest.mark.parametrize("instruction", ["-p", "--version\nx", "@README.md", "/clear"])
def test_what_would_be_taken_for_something_else_is_made_text(instruction: str) -> None:
    assert pi.argv(Launch("pi", instruction, "m"))[-2:] == ("--print", f"Instruction: {instruction}")


def test_the_command_line() -> None:
    assert pi.argv(Launch("pi", "x y", "vendor/glm:free", ("--no-skills",))) == (
        *("pi", "--mode", "json", "--no-session", "--provider", "overnight", "--model", "vendor/glm:free"),
        *("--no-skills", "--print", "x y"),
    )


@pytest.mark.parametrize(
    ("header", "variable", "more"),
    [
        (Header.X_API_KEY, "OVERNIGHT_PI_API_KEY", {}),
        (Header.BEARER, "OVERNIGHT_PI_BEARER", {"authHeader": True, "headers": {"x-api-key": ""}}),
    ],
)
def test_its_files_name_the_variable_and_the_waits(header: Header, variable: str, more: dict[str, object]) -> None:
    timing = Timing(request_timeout_s=15, retries=2, backoff_s=6)
    launch = Launch("pi", "x", "glm", base_url="http://127.0.0.1:1", header=header, timing=timing)
    files = {name: json.loads(text) for name, text in pi.home_files(launch).items()}
    provider = files[".pi/agent/models.json"]["providers"]["overnight"]
    assert {name: provider[name] for name in ("baseUrl", "apiKey", *more)} == {
        "baseUrl": "http://127.0.0.1:1",
        "apiKey": variable,
        **more,
    }
    assert provider["models"][0]["id"] == "glm"
    assert ("authHeader" in provider) == (header is Header.BEARER)
    retry = files[".pi/agent/settings.json"]["retry"]
    assert retry == {"maxRetries": 2, "provider": {"timeoutMs": 15000, "maxRetries": 0}}


def test_reads_the_version_it_prints() -> None:
    assert pi.read_version("0.73.1\n") == "0.73.1"
    assert pi.read_version("Error: 0.73.1 is not here") is None

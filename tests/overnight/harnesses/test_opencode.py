from __future__ import annotations

import pytest

from overnight.events import Act
from overnight.harnesses import opencode
from overnight.harnesses.protocol import Launch
from tests.overnight.harnesses.golden import case, read_all

EMPTY = b'{"type":"step_finish","part":{"reason":"unknown","tokens":{"output":0}}}\n'
FULL = b'{"type":"step_finish","part":{"reason":"tool-calls","tokens":{"total":9,"output":4}}}\n'


def test_a_good_run_from_its_first_tool_to_its_verdict() -> None:
    events = [e for e in read_all("opencode", case("opencode", "ok-tooluse").out) if e.act is not Act.OTHER]
    tools = [e for e in events if e.act is Act.TOOL_ENDED]
    assert [(e.tool, e.ok) for e in tools] == [("write", True), ("bash", True), ("bash", True)]
    assert (events[-1].act, events[-1].ok, events[-1].tokens) == (Act.RESULT, True, 72)
    assert events[-1].text == "Done: created hello.txt and committed it. "


def test_its_log_says_when_it_asks_and_that_it_failed() -> None:
    events = read_all("opencode", case("opencode", "log-hang").err, stream="err")
    assert [e.act for e in events] == [Act.INIT, Act.ERROR, *[Act.WAITING, Act.ERROR] * 5]
    assert events[0].model == "glm-5.1"
    assert events[1].text == "ProviderHeaderTimeoutError: Provider response headers timed out after 3000ms"


def test_a_quoted_error_of_the_log_is_read_whole() -> None:
    line = (
        b'timestamp=2026-11-22T22:42:56.919Z level=ERROR run=959cbfc4 message="stream error" providerID=overnight'
        b' modelID=glm-5.1 error.error="AI_APICallError: Too Many Requests: {\\"error\\": {\\"code\\": \\"1308\\"}}"\n'
    )
    (event,) = read_all("opencode", line, stream="err")
    assert event.text == 'AI_APICallError: Too Many Requests: {"error": {"code": "1308"}}'


@pytest.mark.parametrize(
    ("name", "status"),
    [("401", 401), ("403", 403), ("404-model", 404), ("400-invalid", 400), ("429", 429), ("500", 500), ("529", 529)],
)
def test_the_status_and_the_providers_own_body_are_kept(name: str, status: int) -> None:
    result = read_all("opencode", case("opencode", name).out)[-1]
    assert (result.act, result.ok, result.status, result.error) == (Act.RESULT, False, status, "APIError")
    assert result.text.startswith('{"type": "error"')


def test_the_third_empty_answer_in_a_row_is_an_error_without_end() -> None:
    assert not [e for e in read_all("opencode", EMPTY * 2 + FULL + EMPTY * 2) if e.act is Act.ERROR]
    (error,) = [e for e in read_all("opencode", EMPTY * 3) if e.act is Act.ERROR]
    assert error.endless


def test_an_answer_that_was_cut_off_is_no_success() -> None:
    _, result = read_all(
        "opencode", b'{"type":"step_finish","part":{"reason":"length","tokens":{"total":5,"output":4}}}\n'
    )
    assert (result.ok, result.error) == (False, "length")


def test_a_command_that_failed_ended_badly() -> None:
    state = b'{"status":"completed","metadata":{"exit":128}}'
    events = read_all("opencode", b'{"type":"tool_use","part":{"tool":"bash","state":' + state + b"}}\n")
    assert [(e.act, e.ok) for e in events] == [(Act.TOOL_STARTED, None), (Act.TOOL_ENDED, False)]


def test_the_command_line() -> None:
    assert opencode.argv(Launch("opencode", "---\nx y", "vendor/glm", ("--auto",))) == (
        "opencode",
        "run",
        "--format=json",
        "--print-logs",
        "--log-level=INFO",
        "--model=overnight/vendor/glm",
        "--auto",
        "--",
        "---\nx y",
    )


def test_a_number_alone_is_made_text() -> None:
    assert opencode.argv(Launch("opencode", "42", "m"))[-1] == "Instruction: 42"


def test_reads_the_version_it_prints() -> None:
    assert opencode.read_version("1.18.33\n") == "1.18.33"
    assert opencode.read_version("Error: 1.18.33 is not here") is None

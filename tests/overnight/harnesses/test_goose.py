from __future__ import annotations

import pytest

from overnight.events import Act
from overnight.harnesses import goose
from overnight.harnesses.protocol import Launch
from tests.overnight.harnesses.golden import case, read_all


def test_a_good_run_from_banner_to_verdict() -> None:
    events = read_all("goose", case("goose", "ok-tooluse").out)
    kept = [e.act for e in events if e.act is not Act.OTHER]
    assert kept == [Act.INIT, *[Act.TOOL_STARTED, Act.TOOL_ENDED] * 3, *[Act.SPOKE] * 6, Act.RESULT]
    assert (events[0].act, events[0].model) == (Act.INIT, "glm-5.1")
    assert [e.tool for e in events if e.act is Act.TOOL_STARTED] == ["write", "shell", "shell"]
    assert (events[-1].ok, events[-1].tokens, events[-1].text) == (
        True,
        72,
        "Done: created hello.txt and committed it. ",
    )


def test_a_tool_that_failed_ended_badly() -> None:
    ended = [e.ok for e in read_all("goose", case("goose", "noident").out) if e.act is Act.TOOL_ENDED]
    assert ended == [True, True, False]


@pytest.mark.parametrize(
    ("name", "status"),
    [("401", 401), ("403", 403), ("404-model", 404), ("400-invalid", 400), ("429", 429), ("500", 500), ("529", 529)],
)
def test_the_status_is_read_from_its_own_line(name: str, status: int) -> None:
    result = read_all("goose", case("goose", name).out)[-1]
    assert (result.act, result.ok, result.status) == (Act.RESULT, False, status)


def test_exit_0_with_its_own_last_words_is_a_failure() -> None:
    assert case("goose", "500").meta["code"] == 0
    assert read_all("goose", case("goose", "500").out)[-1].ok is False


def test_a_message_of_the_model_is_never_its_own_error() -> None:
    out = (
        b'{"type":"message","message":{"role":"assistant","content":[{"type":"text","text":"Ran into this error: '
        b'Rate limit exceeded"}],"metadata":{"inference":{"provider":"anthropic"}}}}\n'
        b'{"type":"complete","total_tokens":9}\n'
    )
    spoke, result = read_all("goose", out)
    assert (spoke.act, spoke.status) == (Act.SPOKE, None)
    assert result.ok is True


def test_a_run_that_used_no_token_has_failed() -> None:
    (result,) = read_all("goose", b'{"type":"complete","total_tokens":0}\n')
    assert result.ok is False


def test_the_prompt_is_the_value_of_one_flag() -> None:
    launch = Launch("goose", "---\nx", "glm-5.1", ("--no-profile",), max_turns=9)
    assert goose.argv(launch) == (
        "goose",
        "run",
        "--no-session",
        "--output-format=stream-json",
        "--model=glm-5.1",
        "--max-turns=9",
        "--no-profile",
        "--text=---\nx",
    )


def test_a_prompt_that_looks_like_a_command_is_made_text() -> None:
    assert goose.argv(Launch("goose", " /clear", "m"))[-1] == "--text=Instruction:  /clear"


def test_reads_the_version_it_prints() -> None:
    assert goose.read_version(" 1.52.0\n") == "1.52.0"
    assert goose.read_version("goose 1.53.0\n") == "1.53.0"
    assert goose.read_version("error: 1.52.0 is not here") is None

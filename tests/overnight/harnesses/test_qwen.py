from __future__ import annotations

import json

import pytest

from overnight.events import Act
from overnight.harnesses import qwen
from overnight.harnesses.protocol import Launch
from overnight.lockfile import Timing
from tests.overnight.harnesses.golden import case, read_all


def said(text: str, tokens: int) -> bytes:
    """A run of one message and the verdict that repeats it, as success."""
    usage = {"output_tokens": tokens, "total_tokens": tokens}
    message = {"role": "assistant", "content": [{"type": "text", "text": text}], "usage": usage}
    result = {"type": "result", "subtype": "success", "is_error": False, "result": text, "usage": usage}
    return "\n".join([json.dumps({"type": "assistant", "message": message}), json.dumps(result), ""]).encode()


def test_a_good_run_from_its_first_tool_to_its_verdict() -> None:
    events = read_all("qwen", case("qwen", "ok-tooluse").out)
    assert (events[0].act, events[0].model, events[0].version) == (Act.INIT, "glm-5.1", "0.15.10")
    assert [e.ok for e in events if e.act is Act.TOOL_ENDED] == [True, True, True]
    assert (events[-1].act, events[-1].ok, events[-1].tokens) == (Act.RESULT, True, 72)


@pytest.mark.parametrize(("tokens", "ok"), [(0, False), (7, True)])
def test_its_own_error_is_told_from_a_model_that_words_one(tokens: int, ok: bool) -> None:
    events = read_all("qwen", said('[API Error: 401 {"error":{"code":"1001"}}]', tokens))
    assert [e.act for e in events if e.act is not Act.OTHER] == [Act.SPOKE if ok else Act.ERROR, Act.RESULT]
    assert (events[-1].ok, events[-1].status) == (ok, None if ok else 401)


def test_a_success_without_a_token_is_none() -> None:
    assert read_all("qwen", said("", 0))[-1].ok is False


@pytest.mark.parametrize("instruction", ["/clear", " /clear"])
def test_a_command_of_its_own_is_made_text(instruction: str) -> None:
    assert qwen.argv(Launch("qwen", instruction, "m"))[-1] == f"--prompt=Instruction: {instruction}"


def test_its_file_holds_the_waits() -> None:
    timing = Timing(request_timeout_s=15, retries=2, backoff_s=6)
    (text,) = qwen.home_files(Launch("qwen", "x", "glm", timing=timing)).values()
    assert json.loads(text)["model"]["generationConfig"] == {"timeout": 15000, "maxRetries": 2}


def test_reads_the_version_it_prints() -> None:
    assert qwen.read_version("0.15.10\n") == "0.15.10"
    assert qwen.read_version("Error: 0.15.10 is not here") is None

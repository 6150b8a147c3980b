from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from overnight.rehearsal.model import (
    CLOSING,
    IDLE,
    PROBE_SENTENCE,
    Reply,
    Say,
    Shell,
    Tape,
    ToolUse,
    Wait,
    Write,
    reply,
    turn_of,
)
from tests.overnight.rehearsal.conftest import AWKWARD

# a tool with what its schema asks for
CLAUDE = ["Agent", "Bash", "Read", "Write file_path content"]
GOOSE = ["analyze", "edit", "shell", "write path content"]
OPENCODE = ["bash", "edit", "read", "write filePath content"]
PI = ["read", "bash", "edit", "write path content"]
QWEN = ["edit", "write_file file_path content", "run_shell_command"]
CODEX = ["exec_command cmd", "write_stdin", ""]  # a tool of the provider's own has no name
SCRIPTED = ["Bash"]
BY_SHELL = "mkdir -p . && printf %s b25l | base64 -d > a.txt"

TAPE = Tape("the job", (Write("a.txt", "one"), Wait(2), Wait(1), Say("Next."), Shell("git commit"), Say("Bye.")))


def request(*contents: Any, tools: list[str]) -> dict[str, Any]:
    """A request whose messages alternate between user and assistant."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"model": "m", "messages": messages, "tools": [_offered(*tool.split(" ")) for tool in tools]}


def _offered(name: str, *arguments: str) -> dict[str, Any]:
    return {"name": name, "input_schema": {"properties": {each: {"type": "string"} for each in arguments}}}


def after(results: int, tools: list[str]) -> dict[str, Any]:
    """A conversation about the job in which so many tool calls were answered."""
    talk: list[Any] = ["please do the job"]
    for i in range(results):
        talk += [[{"type": "tool_use", "id": str(i)}], [{"type": "tool_result", "tool_use_id": str(i)}]]
    return request(*talk, tools=tools)


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        (CLAUDE, ToolUse("toolu_rehearsal_1", "Write", {"file_path": "a.txt", "content": "one"})),
        (GOOSE, ToolUse("toolu_rehearsal_1", "write", {"path": "a.txt", "content": "one"})),
        (OPENCODE, ToolUse("toolu_rehearsal_1", "write", {"filePath": "a.txt", "content": "one"})),
        (PI, ToolUse("toolu_rehearsal_1", "write", {"path": "a.txt", "content": "one"})),
        (QWEN, ToolUse("toolu_rehearsal_1", "run_shell_command", {"command": BY_SHELL})),
        (CODEX, ToolUse("toolu_rehearsal_1", "exec_command", {"cmd": BY_SHELL})),
        (SCRIPTED, ToolUse("toolu_rehearsal_1", "Bash", {"command": BY_SHELL})),
    ],
    ids=["claude-code", "goose", "opencode", "pi", "qwen", "codex", "scripted"],
)
def test_a_write_uses_the_tools_of_whoever_asks(tools: list[str], call: ToolUse) -> None:
    assert reply(after(0, tools), [TAPE]) == Reply("", call)


def test_words_and_waits_belong_to_the_call_they_stand_before() -> None:
    call = ToolUse("toolu_rehearsal_2", "shell", {"command": "git commit"})
    assert reply(after(1, GOOSE), [TAPE]) == Reply("Next.", call, wait_s=3)


def test_the_last_turn_says_the_last_words_and_calls_nothing() -> None:
    assert reply(after(2, CLAUDE), [TAPE]) == Reply("Bye.")
    assert reply(after(9, CLAUDE), [TAPE]) == Reply("Bye.")
    assert reply(after(1, CLAUDE), [Tape("the job", (Shell("true"),))]) == Reply(CLOSING)


def test_a_request_repeated_gets_the_same_turn() -> None:
    assert reply(after(1, CLAUDE), [TAPE]) == reply(after(1, CLAUDE), [TAPE])
    assert turn_of(after(1, CLAUDE)) == 2


def test_the_first_tape_that_matches_the_first_message_plays() -> None:
    other = Tape("the", (Say("wrong tape"),))
    assert reply(after(2, CLAUDE), [TAPE, other]).text == "Bye."
    assert reply(request("unrelated", [], "the job", tools=CLAUDE), [TAPE]) == Reply(IDLE)


def test_what_an_agent_says_of_itself_first_is_not_what_was_asked() -> None:
    set_up = "This is the Qwen Code. We are setting up the context for our chat.\nToday's date is"
    assert reply(request(set_up, [], "the job", tools=QWEN), [TAPE]).tool is not None


def test_a_title_call_offers_no_tools_and_gets_no_work() -> None:
    assert reply(after(0, []), [TAPE]) == Reply(IDLE)


def test_tools_that_cannot_do_the_step_get_no_call() -> None:
    assert reply(after(0, ["Read"]), [TAPE]) == Reply(IDLE)


@pytest.mark.parametrize("tools", [[], CLAUDE])
def test_a_probe_is_answered_with_its_nonce_and_nothing_else(tools: list[str]) -> None:
    asked = PROBE_SENTENCE.format(nonce="pony-7.1f")
    blocks = [{"type": "text", "text": "<system-reminder>date</system-reminder>"}, {"type": "text", "text": asked}]
    assert reply(request(blocks, tools=tools), [Tape("Reply", (Shell("false"),))]) == Reply("pony-7.1f")


def test_a_shell_write_is_byte_exact(tmp_path: Path) -> None:
    step = Write("deep/er/it's $HOME.txt", AWKWARD)
    turn = reply(request("x", tools=SCRIPTED), [Tape("x", (step,))])
    assert turn.tool is not None
    subprocess.run(["/bin/sh", "-c", turn.tool.arguments["command"]], cwd=tmp_path, check=True, timeout=10)
    assert (tmp_path / step.path).read_bytes() == AWKWARD.encode()

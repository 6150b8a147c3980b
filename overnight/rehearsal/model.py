"""The emulated model: it reads a request and says what the tape says comes next.

It keeps no state. Where a conversation stands is read from the request itself:
so many tool results, so many steps done. Any number of runs, retries and
repeated requests can therefore share one server.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

PROBE_SENTENCE = "Reply with the single word {nonce}."
"""The one question that is answered without a tape. The nonce holds no white space."""

CLOSING = "Done."
IDLE = "Nothing to do."

_PROBE = re.compile(r'Reply with the single word (\S+)\.(?=[\s"]|$)')  # OpenCode puts what it is asked in quotes


class _Tools(NamedTuple):
    """One agent's tools. Without a `writer` that takes a path of ours, the model writes by the shell."""

    command: str
    writer: str = ""


# by the name of its shell tool; Claude Code 2.1.330, Goose 1.52.0, OpenCode 1.18.33, pi 0.73.1, Codex 0.169.0,
# 2026-11-22; Codex writes by a patch, and Qwen Code's writer takes whole paths only
_TOOLS = {
    "Bash": _Tools("command", "Write"),
    "shell": _Tools("command", "write"),
    "bash": _Tools("command", "write"),
    "run_shell_command": _Tools("command"),
    "exec_command": _Tools("cmd"),
}
_PATHS = ("file_path", "filePath", "path")  # what a writing tool calls the path, by its own schema
_SET_UP = "This is the Qwen Code. We are setting up the context"  # said before what was asked, as a turn of its own

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Write:
    """Make a file with exactly this text; the path is relative to the agent's working directory."""

    path: str
    text: str


@dataclass(frozen=True)
class Shell:
    """Run a command with the agent's own shell tool."""

    command: str


@dataclass(frozen=True)
class Say:
    """Words beside the next tool call, or at the end when no tool call follows."""

    text: str


@dataclass(frozen=True)
class Wait:
    """Think before the next answer."""

    seconds: float


Step = Write | Shell | Say | Wait


@dataclass(frozen=True)
class Tape:
    """What the model does when `match` occurs in the first message of the user."""

    match: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class ToolUse:
    """A call of one of the tools that the client offered."""

    id: str
    name: str
    arguments: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """One turn of the model. Without a tool call it is the last."""

    text: str
    tool: ToolUse | None = None
    wait_s: float = 0

    @property
    def tokens(self) -> int:
        """What it is said to cost. An empty turn is free, by which one client knows it."""
        return 10 if self.text or self.tool else 0


def reply(request: Request, tapes: Sequence[Tape]) -> Reply:
    """The next turn of the conversation in a Messages API request.

    A probe comes first and needs no tape. A request that offers no tools (a
    title call) or that no tape matches gets a few words. The first tape that
    matches wins.
    """
    nonce = probe_nonce(request)
    if nonce is not None:
        return Reply(nonce)
    tools = {str(tool.get("name", "")): _arguments(tool) for tool in request.get("tools") or ()}
    asked = next((text for text in _texts(request, newest_first=False) if not text.startswith(_SET_UP)), "")
    tape = next((t for t in tapes if t.match in asked), None)
    if tape is None or not tools:
        return Reply(IDLE)
    return _turn(tape, turn_of(request), tools)


def probe_nonce(request: Request) -> str | None:
    """The word a probe asks for, or None when the newest message of the user is no probe."""
    found = _PROBE.search(next(_texts(request, newest_first=True), ""))
    return found.group(1) if found else None


def turn_of(request: Request) -> int:
    """Which turn of the model this request asks for; the first is 1."""
    blocks = [block for message in request.get("messages") or () for block in _blocks(message.get("content"))]
    return 1 + sum(1 for block in blocks if block.get("type") == "tool_result")


def _turn(tape: Tape, turn: int, tools: Mapping[str, Sequence[str]]) -> Reply:
    """Replay the tape up to the given turn. Waits and words belong to the tool call they stand before."""
    said: list[str] = []
    wait_s = 0.0
    at = 0
    for step in tape.steps:
        if isinstance(step, Say):
            said.append(step.text)
        elif isinstance(step, Wait):
            wait_s += step.seconds
        else:
            at += 1
            if at == turn:
                call = _call(step, f"toolu_rehearsal_{turn}", tools)
                return Reply("\n".join(said), call, wait_s) if call else Reply(IDLE)
            said, wait_s = [], 0.0
    return Reply("\n".join(said) or CLOSING, None, wait_s)


def _call(step: Write | Shell, call_id: str, tools: Mapping[str, Sequence[str]]) -> ToolUse | None:
    shell = next((name for name in tools if name in _TOOLS), None)
    if shell is None:
        return None
    known = _TOOLS[shell]
    path = next((name for name in _PATHS if name in tools.get(known.writer, ())), None)
    if isinstance(step, Write) and path is not None:
        return ToolUse(call_id, known.writer, {path: step.path, "content": step.text})
    command = _write_by_shell(step) if isinstance(step, Write) else step.command
    return ToolUse(call_id, shell, {known.command: command})


def _arguments(tool: Mapping[str, Any]) -> Sequence[str]:
    """What one of the offered tools can be given."""
    schema = tool.get("input_schema") or {}
    return tuple(schema.get("properties") or ())


def _write_by_shell(step: Write) -> str:
    """A command that makes the file byte for byte; base64 keeps every quote and newline out of the shell's hands."""
    folder = shlex.quote(str(PurePosixPath(step.path).parent))
    encoded = base64.b64encode(step.text.encode()).decode()
    return f"mkdir -p {folder} && printf %s {encoded} | base64 -d > {shlex.quote(step.path)}"


def _texts(request: Request, *, newest_first: bool) -> Iterator[str]:
    """The words of each user message that has any."""
    messages = list(request.get("messages") or ())
    for message in reversed(messages) if newest_first else messages:
        if message.get("role") == "user":
            words = [str(b.get("text", "")) for b in _blocks(message.get("content")) if b.get("type") == "text"]
            if words:
                yield "\n".join(words)


def _blocks(content: object) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []

"""Goose, headless: it exits 0 whatever happened, so its verdict is read from structure.

A message of the model carries `metadata.inference`; a message without it is
Goose's own, and that is how it reports errors, in ordinary prose. A run whose
last words are its own, or that used no tokens, has failed (1.52.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from overnight.caps import TellsUsage
from overnight.events import Act, AgentEvent
from overnight.failures import Failure, FailureKind
from overnight.harnesses.lines import Fields, JsonReader, digest, field, last_words, objects
from overnight.harnesses.protocol import Launch, Reader
from overnight.harnesses.verdict import Dialect, judge
from overnight.lockfile import ErrorRule, Header
from overnight.session import Sessions
from overnight.transcript import Transcript
from overnight.usage import Usage

NAME = "goose"
COMMAND = "goose"
HEADER_OF: Mapping[str, Header] = {"ANTHROPIC_API_KEY": Header.X_API_KEY}
CAPS = frozenset({"max_turns"})
TELLS_USAGE: TellsUsage = "at-end"
# 1.52.0, measured 2026-11-29: `--resume` from a copy of its database committed into the earlier run's work tree
SESSIONS: Sessions | str = "it keeps the path of the earlier work tree in a database, and works there"

_BANNER = re.compile(r"new session · \S+ (?P<model>\S+)")
_STATUS = re.compile(
    r"Status: (?P<a>\d{3})\b"
    r"|(?:Bad request|Resource not found|Server error|Request failed with status) \((?P<b>\d{3})\b"
)
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="retry",
    preamble="Ran into this error: ",
    own_words={"authentication": _K.AUTH_REJECTED, "creditsExhausted": _K.BILLING},
    broad_words={},
    own_lines=(
        ("Authentication error:", _K.AUTH_REJECTED),
        ("Rate limit exceeded:", _K.RATE_LIMITED),
        ("Network error:", _K.NETWORK),
        ("The model returned an empty response", _K.NOT_THE_API),
        ("I've reached the maximum number of actions", _K.TURN_LIMIT),
    ),
    usage=re.compile(r"^(?:error: |Error: Must provide|Error: Invalid )"),
    denial=re.compile(r"^Error: Tool approval required in non-interactive mode"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run.

    The prompt is the value of `--text=`, so no prompt can be taken for a flag.
    Goose runs `/clear` and its like without asking the model, even after
    white space; a word in front makes them text. It knows no budget: `max_usd`
    has no effect.
    """
    caps = () if launch.max_turns is None else (f"--max-turns={launch.max_turns}",)
    command_like = launch.instruction.lstrip().startswith("/")
    prompt = f"Instruction: {launch.instruction}" if command_like else launch.instruction
    fixed = ("run", "--no-session", "--output-format=stream-json", f"--model={launch.model}")
    return (launch.executable, *fixed, *caps, *launch.flags, f"--text={prompt}")


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.fullmatch(r"(?:goose )?(\d+\.\d+\.\d+\S*)", output.strip())
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:  # noqa: ARG001  # the protocol's signature; all of it is environment
    return {}


def reader() -> Reader:
    told = _Telling()
    return JsonReader(told.read, told.plain)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Telling:
    """Remembers who spoke last, since Goose's final line does not say how the run went."""

    def __init__(self) -> None:
        self._own: AgentEvent | None = None
        self._answer_id: str | None = None
        self._answer = ""

    def plain(self, line: str) -> list[AgentEvent]:
        banner = _BANNER.search(line)
        return [AgentEvent(Act.INIT, model=banner["model"])] if banner else []

    def read(self, line: Fields) -> list[AgentEvent]:
        match line.get("type"):
            case "message":
                return self._message(field(line, "message", dict) or {})
            case "complete":
                return [self._complete(line)]
            case "error":
                text = field(line, "error", str) or ""
                word = self._own.error if self._own else None
                return [AgentEvent(Act.RESULT, text=text, error=word, status=_status(text), ok=False)]
        return []

    def _message(self, message: Fields) -> list[AgentEvent]:
        blocks = objects(message, "content")
        if message.get("role") != "assistant":
            return [e for block in blocks for e in _tool_response(block)]
        if field(field(message, "metadata", dict), "inference", dict) is None:
            own = [e for block in blocks if (e := _own_words(block))]
            self._own = own[-1] if own else self._own
            return own
        self._own = None
        return [e for block in blocks for e in self._models_words(block, field(message, "id", str))]

    def _models_words(self, block: Fields, message_id: str | None) -> list[AgentEvent]:
        if block.get("type") == "toolRequest":
            call = field(field(block, "toolCall", dict), "value", dict)
            mark = digest(call) if call else None
            return [AgentEvent(Act.TOOL_STARTED, tool=field(call, "name", str), print=mark)]
        if block.get("type") != "text":
            return []
        text = field(block, "text", str) or ""
        self._answer = (self._answer if message_id == self._answer_id else "") + text
        self._answer, self._answer_id = self._answer[:_ANSWER_CHARS], message_id
        return [AgentEvent(Act.SPOKE, text=text[:_PROSE_CHARS])]

    def _complete(self, line: Fields) -> AgentEvent:
        tokens, usage = field(line, "total_tokens", int), _usage(line)
        if self._own is None and tokens:
            return AgentEvent(Act.RESULT, text=self._answer, ok=True, tokens=tokens, usage=usage)
        own = self._own or AgentEvent(Act.ERROR, text="ended without using a token")
        return replace(own, act=Act.RESULT, ok=False, tokens=tokens, usage=usage)


def _usage(line: Fields) -> dict[str, Usage] | None:
    """None where a cache had a part in it: whether its tokens stand in the input as well, Goose does not say."""
    fresh, output = field(line, "input_tokens", int), field(line, "output_tokens", int)
    cached = any(field(line, name, int) for name in ("cache_read_input_tokens", "cache_write_input_tokens"))
    if fresh is None or output is None or cached or min(fresh, output) < 0:
        return None
    return {"": Usage(fresh=fresh, output=output)}


def _own_words(block: Fields) -> AgentEvent | None:
    """Goose's own message: an error, unless it is a notice on what it is doing."""
    match block.get("type"):
        case "text":
            text = (field(block, "text", str) or "")[:_ANSWER_CHARS]
            return AgentEvent(Act.ERROR, text=text, status=_status(text))
        case "error":
            text = (field(block, "message", str) or "")[:_ANSWER_CHARS]
            return AgentEvent(Act.ERROR, text=text, error=field(block, "kind", str), status=_status(text))
        case "systemNotification" if block.get("notificationType") == "creditsExhausted":
            return AgentEvent(Act.ERROR, text=field(block, "msg", str) or "", error="creditsExhausted")
    return None


def _tool_response(block: Fields) -> list[AgentEvent]:
    if block.get("type") != "toolResponse":
        return []
    outcome = field(block, "toolResult", dict)
    failed = field(field(outcome, "value", dict), "isError", bool) or field(outcome, "status", str) != "success"
    return [AgentEvent(Act.TOOL_ENDED, text=last_words(outcome), ok=not failed, print=digest(outcome))]


def _status(own_line: str) -> int | None:
    """The HTTP status in a line that is Goose's own by structure. It words a 429 without the number."""
    if "Rate limit exceeded:" in own_line:
        return 429
    found = _STATUS.search(own_line)
    return int(found["a"] or found["b"]) if found else None

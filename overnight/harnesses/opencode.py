"""OpenCode, headless: silent on standard output until a model answers, so its log is read beside its events.

Its log on standard error says when a request goes out and when one failed; it
gives no status there. The verdict is an event on standard output: the last
`step_finish` with reason `stop`, or `error`. An empty answer is no error to it:
it asks again for ever (1.18.33).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from overnight.caps import TellsUsage
from overnight.events import Act, AgentEvent
from overnight.failures import Failure, FailureKind
from overnight.harnesses.lines import Fields, JsonReader, Lines, digest, field, last_words
from overnight.harnesses.protocol import Launch, Reader
from overnight.harnesses.verdict import Dialect, judge
from overnight.lockfile import ErrorRule, Header
from overnight.session import Sessions
from overnight.transcript import Transcript
from overnight.usage import Usage

NAME = "opencode"
COMMAND = "opencode"
HEADER_OF: Mapping[str, Header] = {
    "OVERNIGHT_OPENCODE_API_KEY": Header.X_API_KEY,
    "OVERNIGHT_OPENCODE_BEARER": Header.BEARER,
}
CAPS = frozenset[str]()
TELLS_USAGE: TellsUsage = "each-answer"
# 1.18.33, measured 2026-11-29: `--session` from a copy of its database worked in the earlier run's tree, and hung
SESSIONS: Sessions | str = "it keeps the path of the earlier work tree in a database, and works there"

_PROVIDER = "overnight"  # what the lock's OPENCODE_CONFIG_CONTENT calls the one provider it describes
_EMPTY_ANSWERS = 3  # in a row; one may be a hiccup, and it never stops by itself
_LOGGED = re.compile(
    r'^timestamp=\S+ level=\w+ run=\w+ message=(?P<what>stream|"stream error") .*?modelID=(?P<model>\S+)'
)
_LOGGED_ERROR = re.compile(r' error\.error=(?P<text>"(?:[^"\\]|\\.)*")')
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="stream error",
    preamble="AI_APICallError: ",
    own_words={
        "ProviderAuthError": _K.KEY_MISSING,
        "ContextOverflowError": _K.CONTEXT_OVERFLOW,
        "empty-answers": _K.NOT_THE_API,
    },
    broad_words={},
    own_lines=(
        ("Cannot connect to API:", _K.NETWORK),
        ("Connection reset by server", _K.NETWORK),
        ("self signed certificate", _K.NETWORK),
        ("certificate has expired", _K.NETWORK),
        ("unable to verify the first certificate", _K.NETWORK),
        ("Provider response headers timed out", _K.PROVIDER_MUTE),
        ("ProviderHeaderTimeoutError:", _K.PROVIDER_MUTE),
        ("SSE read timed out", _K.PROVIDER_MUTE),
        ("ProviderResponseStreamError: SSE read timed out", _K.PROVIDER_MUTE),
        ("Failed to initialize provider", _K.HARNESS_USAGE),
    ),
    usage=re.compile(r"^(?:opencode run \[message|\S*Error: \S*(?:You must provide a message|Config file at ))"),
    denial=re.compile(r"^\S*! \S*permission requested: .*; auto-rejecting$"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run. It knows no budget and no turn cap.

    The instruction reaches the model in double quotes, its own ones escaped:
    that is what OpenCode does to an argument that holds a space. One that is a
    number alone would crash it, so one without a space gets a word in front.
    """
    words = launch.instruction.split()
    prompt = launch.instruction if len(words) > 1 else f"Instruction: {launch.instruction}"
    fixed = ("run", "--format=json", "--print-logs", "--log-level=INFO", f"--model={_PROVIDER}/{launch.model}")
    return (launch.executable, *fixed, *launch.flags, "--", prompt)


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.fullmatch(r"(\d+\.\d+\.\d+\S*)", output.strip())
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:  # noqa: ARG001  # the protocol's signature; all of it is environment
    return {}


def reader() -> Reader:
    return _Reader()


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Reader:
    """Events from standard output; from standard error the requests and their failures."""

    def __init__(self) -> None:
        self._out = JsonReader(_Telling().read)
        self._err = Lines()
        self._asked = False

    def feed(self, stream: Literal["out", "err"], data: bytes) -> list[AgentEvent]:
        if stream == "out":
            return self._out.feed(stream, data)
        return [e for line in self._err.feed(data) if line is not None for e in self._logged(line)]

    def _logged(self, line: bytes) -> list[AgentEvent]:
        text = line.decode(errors="replace")
        found = _LOGGED.match(text)
        if found is None:
            return []
        if found["what"] == "stream":
            act, self._asked = (Act.WAITING if self._asked else Act.INIT), True
            return [AgentEvent(act, model=found["model"])]
        said = _LOGGED_ERROR.search(text)
        return [AgentEvent(Act.ERROR, text=_unquoted(said["text"]) if said else "", error="stream error")]


class _Telling:
    """Remembers what was said and used, since the last event of a good run holds neither."""

    def __init__(self) -> None:
        self._answer = ""
        self._tokens = 0
        self._empty = 0

    def read(self, line: Fields) -> list[AgentEvent]:
        part = field(line, "part", dict) or {}
        match line.get("type"):
            case "step_start":
                return [AgentEvent(Act.WAITING)]
            case "text":
                self._answer = (field(part, "text", str) or "")[:_ANSWER_CHARS]
                return [AgentEvent(Act.SPOKE, text=self._answer[:_PROSE_CHARS])]
            case "tool_use":
                return _tool(part)
            case "step_finish":
                return self._finished(part)
            case "error":
                return [_error(field(line, "error", dict) or {})]
        return []

    def _finished(self, part: Fields) -> list[AgentEvent]:
        used, reason = field(part, "tokens", dict), field(part, "reason", str)
        self._tokens += field(used, "total", int) or 0
        if reason == "unknown" and not field(used, "output", int):
            return self._nothing()
        self._empty = 0
        told = [AgentEvent(Act.OTHER, usage={"": _usage(used)})] if used else []
        if reason in (None, "tool-calls", "unknown"):
            return told
        ok = reason == "stop"
        text = self._answer if ok else f"the model's answer ended with reason {reason}"
        return [*told, AgentEvent(Act.RESULT, text=text, error=None if ok else reason, ok=ok, tokens=self._tokens)]

    def _nothing(self) -> list[AgentEvent]:
        self._empty += 1
        if self._empty < _EMPTY_ANSWERS:
            return []
        text = f"{self._empty} answers in a row held no token, and it asks again without end"
        return [AgentEvent(Act.ERROR, text=text, error="empty-answers", endless=True)]


def _usage(told: Fields) -> Usage:
    """What the model thought is told beside the output, and charged with it."""
    cache = field(told, "cache", dict)
    counts = ((told, "input"), (told, "output"), (told, "reasoning"), (cache, "read"), (cache, "write"))
    fresh, output, thought, read, write = (max(0, field(of, name, int) or 0) for of, name in counts)
    return Usage(fresh=fresh, output=output + thought, cache_read=read, cache_write=write)


def _tool(part: Fields) -> list[AgentEvent]:
    """A tool is told of once, when it has ended."""
    tool, state = field(part, "tool", str), field(part, "state", dict)
    code = field(field(state, "metadata", dict), "exit", int)
    ok = field(state, "status", str) == "completed" and not code
    said = state or {}
    call, result = digest(tool, said.get("input")), digest(said.get("output"), said.get("error"), code)
    return [
        AgentEvent(Act.TOOL_STARTED, tool=tool, print=call),
        AgentEvent(Act.TOOL_ENDED, text=last_words(said), tool=tool, ok=ok, print=result),
    ]


def _error(error: Fields) -> AgentEvent:
    """The end of a run that failed; the provider's own body says more than the message made from it."""
    data = field(error, "data", dict)
    text = field(data, "responseBody", str) or field(data, "message", str) or ""
    name, status = field(error, "name", str), field(data, "statusCode", int)
    return AgentEvent(Act.RESULT, text=text[:_ANSWER_CHARS], error=name, status=status, ok=False)


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))[:_ANSWER_CHARS]
    except ValueError:
        return text.strip('"')[:_ANSWER_CHARS]

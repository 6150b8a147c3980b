"""pi, headless: exit code 0 whatever happened, so the last message's `stopReason` is the verdict.

Its provider, key variable and waits stand in files under HOME. `apiKey` there is
the name of a variable, and a variable that is not set has its name sent as the
key; an empty answer ends a run as a good one does (0.73.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

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

NAME = "pi"
COMMAND = "pi"
HEADER_OF: Mapping[str, Header] = {
    "OVERNIGHT_PI_API_KEY": Header.X_API_KEY,
    "OVERNIGHT_PI_BEARER": Header.BEARER,
}
CAPS = frozenset[str]()
TELLS_USAGE: TellsUsage = "each-answer"
# 0.73.1, measured 2026-11-29: one of another folder than that of its work tree it asks about, and ends
SESSIONS: Sessions | str = Sessions((".pi/agent/sessions/*/*_{id}.jsonl",))

_PROVIDER = "overnight"
_VARIABLE_OF = {header: variable for variable, header in HEADER_OF.items()}
_ANSWER_TOKENS = 32_000  # its own default cuts an answer of an unknown model at 16384
_STATUS = re.compile(r"(\d{3}) ")
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="auto_retry_start",
    preamble="",
    own_words={"empty-answer": _K.NOT_THE_API},
    broad_words={},
    own_lines=(
        ("Connection error.", _K.NETWORK),
        ("terminated", _K.NETWORK),
        ("Anthropic stream ended before message_stop", _K.NOT_THE_API),
        ("Request timed out.", _K.PROVIDER_MUTE),
        ("Invalid URL", _K.HARNESS_USAGE),
        ("No API key found", _K.KEY_MISSING),
    ),
    usage=re.compile(r"^(?:Error: |Warning: No models match|No models available)"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run. It knows no budget and no turn cap.

    The argument behind `--print` is the prompt, unless it begins like a flag, a
    file (`@`) or a command (`/`): such a one gets a word in front.
    """
    like_another = launch.instruction.startswith(("-", "@", "/"))
    prompt = f"Instruction: {launch.instruction}" if like_another else launch.instruction
    kept = ("--session", launch.session) if launch.session else () if launch.keeps else ("--no-session",)
    fixed = ("--mode", "json", *kept, "--provider", _PROVIDER, "--model", launch.model)
    return (launch.executable, *fixed, *launch.flags, "--print", prompt)


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.fullmatch(r"(\d+\.\d+\.\d+\S*)", output.strip())
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:
    """Its provider and its waits. The key is named by its variable.

    With `authHeader` it sends both headers; an empty x-api-key takes that one away.
    """
    bearer = launch.header is Header.BEARER
    provider: dict[str, Any] = {
        "baseUrl": launch.base_url,
        "api": "anthropic-messages",
        "apiKey": _VARIABLE_OF[launch.header or Header.X_API_KEY],
        **({"authHeader": True, "headers": {"x-api-key": ""}} if bearer else {}),
        "models": [{"id": launch.model, "maxTokens": _ANSWER_TOKENS}],
    }
    waits: dict[str, Any] = {}
    if launch.timing is not None:
        timeout_ms = round(launch.timing.request_timeout_s * 1000)
        waits = {"maxRetries": launch.timing.retries, "provider": {"timeoutMs": timeout_ms, "maxRetries": 0}}
    return {
        ".pi/agent/models.json": json.dumps({"providers": {_PROVIDER: provider}}),
        ".pi/agent/settings.json": json.dumps({"retry": waits, "enableInstallTelemetry": False}),
    }


def reader() -> Reader:
    return JsonReader(_Telling().read)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Telling:
    """Remembers the newest answer: the verdict is what it ended with."""

    def __init__(self) -> None:
        self._answer = ""
        self._reason: str | None = None
        self._tokens = 0

    def read(self, line: Fields) -> list[AgentEvent]:
        message = field(line, "message", dict) or {}
        match line.get("type"):
            case "session":
                return [AgentEvent(Act.INIT, session=field(line, "id", str))]
            case "turn_start":
                return [AgentEvent(Act.WAITING)]
            case "message_end" if message.get("role") == "assistant":
                return [*self._message(message), *_used(message)]
            case "tool_execution_start":
                call = digest(line.get("toolName"), line.get("args"))
                return [AgentEvent(Act.TOOL_STARTED, tool=field(line, "toolName", str), print=call)]
            case "tool_execution_update":
                return [AgentEvent(Act.TOOL_RUNNING, tool=field(line, "toolName", str))]
            case "tool_execution_end":
                ok, result = field(line, "isError", bool) is False, digest(line.get("result"))
                said = last_words(line.get("result"))
                return [AgentEvent(Act.TOOL_ENDED, text=said, tool=field(line, "toolName", str), ok=ok, print=result)]
            case "auto_retry_start":
                return [_retry(line)]
            case "auto_retry_end" if line.get("success") is False:
                text = (field(line, "finalError", str) or "")[:_ANSWER_CHARS]
                return [AgentEvent(Act.RESULT, text=text, status=_status(text), ok=False, tokens=self._tokens)]
            case "agent_end":
                return self._end()
        return []

    def _message(self, message: Fields) -> list[AgentEvent]:
        self._reason = field(message, "stopReason", str)
        self._tokens += field(field(message, "usage", dict), "totalTokens", int) or 0
        blocks = objects(message, "content")
        if self._reason in ("error", "aborted"):
            text = (field(message, "errorMessage", str) or "")[:_ANSWER_CHARS]
            return [AgentEvent(Act.ERROR, text=text, status=_status(text))]
        if not blocks:
            self._reason = "empty-answer"
            return []
        said = "".join(field(block, "text", str) or "" for block in blocks)
        self._answer = said[:_ANSWER_CHARS]
        return [AgentEvent(Act.SPOKE, text=said[:_PROSE_CHARS])]

    def _end(self) -> list[AgentEvent]:
        """Nothing after an error: it may be about to try again, and the error has been told."""
        if self._reason in (None, "error", "aborted"):
            return []
        ok = self._reason == "stop"
        text = self._answer if ok else f"the model's answer ended with reason {self._reason}"
        word = None if ok else self._reason
        return [AgentEvent(Act.RESULT, text=text, error=word, ok=ok, tokens=self._tokens)]


def _used(message: Fields) -> list[AgentEvent]:
    told = field(message, "usage", dict)
    counts = (max(0, field(told, name, int) or 0) for name in ("input", "output", "cacheRead", "cacheWrite"))
    fresh, output, read, write = counts
    usage = Usage(fresh=fresh, output=output, cache_read=read, cache_write=write)
    return [AgentEvent(Act.OTHER, usage={field(message, "model", str) or "": usage})] if usage.total else []


def _retry(line: Fields) -> AgentEvent:
    text, delay_ms = (field(line, "errorMessage", str) or "")[:_ANSWER_CHARS], field(line, "delayMs", int)
    return AgentEvent(
        Act.RETRYING,
        text=text,
        status=_status(text),
        attempt=field(line, "attempt", int),
        delay_s=None if delay_ms is None else delay_ms / 1000,
    )


def _status(own_line: str) -> int | None:
    """The HTTP status with which pi begins an error that a provider sent."""
    found = _STATUS.match(own_line)
    return int(found[1]) if found else None

"""Claude Code, headless: one JSON object a line, and a verdict at the end."""

from __future__ import annotations

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

NAME = "claude-code"
COMMAND = "claude"
HEADER_OF: Mapping[str, Header] = {"ANTHROPIC_AUTH_TOKEN": Header.BEARER, "ANTHROPIC_API_KEY": Header.X_API_KEY}
CAPS = frozenset({"max_usd", "max_turns"})
TELLS_USAGE: TellsUsage = "each-answer"
# 2.1.330, measured 2026-11-29: found by its id in any project's folder; a line cut off by a crash is passed over. The
# verdict of a run that goes on sums the session up, in tokens and USD, once an earlier process wrote its cost-state.
SESSIONS: Sessions | str = Sessions((".claude/projects/*/{id}.jsonl",), ({"type": "cost-state"},))

_STREAM = ("-p", "--output-format=stream-json", "--verbose", "--include-partial-messages")
# one count by the Messages API's names, as the stream hands it on, and by those of its own verdict
_WIRE = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_VERDICT = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="api_retry",
    preamble="API Error: ",
    own_words={
        "authentication_failed": _K.AUTH_REJECTED,
        "oauth_org_not_allowed": _K.AUTH_REJECTED,
        "invalid_credential_header": _K.AUTH_REJECTED,
        "billing_error": _K.BILLING,
        "model_not_found": _K.MODEL_UNKNOWN,
        "rate_limit": _K.RATE_LIMITED,
        "overloaded": _K.OVERLOADED,
        "stream_idle_timeout": _K.PROVIDER_MUTE,
        "connection_failed": _K.NETWORK,
        "tls_untrusted_ca": _K.NETWORK,
        "error_max_turns": _K.TURN_LIMIT,
        "error_max_budget_usd": _K.BUDGET_LIMIT,
    },
    broad_words={"server_error": _K.PROVIDER_ERROR, "invalid_request": _K.REQUEST_REJECTED},
    own_lines=(
        ("Not logged in", _K.AUTH_REJECTED),
        ("Invalid API key", _K.AUTH_REJECTED),
        ("Invalid auth token", _K.AUTH_REJECTED),
        ("Failed to authenticate", _K.AUTH_REJECTED),
        ("Prompt is too long", _K.CONTEXT_OVERFLOW),
        ("Credit balance is too low", _K.BILLING),
        ("Request timed out", _K.PROVIDER_MUTE),
        ("Stream idle timeout", _K.PROVIDER_MUTE),
        ("stream idle: no bytes", _K.PROVIDER_MUTE),
        ("API returned an empty or malformed response (HTTP 200)", _K.NOT_THE_API),
        ("Stream ended without receiving any events", _K.NOT_THE_API),
        ("Unable to connect to API", _K.NETWORK),
        ("Connection refused", _K.NETWORK),
        ("Connection to the API was lost", _K.NETWORK),
        ("Invalid URL", _K.HARNESS_USAGE),
        ("Configuration error", _K.HARNESS_USAGE),
        ("No conversation found", _K.HARNESS_USAGE),
    ),
    usage=re.compile(r"^(?:error: |Error: )|cannot be used with root|Invalid session ID|could not start:"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run.

    Everything after `--` is the prompt (tried with 2.1.330). A prompt whose
    first character is `/` would be run as a command of the CLI without asking
    the model, and end well; a newline in front makes it text again.
    """
    caps: list[str] = []
    if launch.max_turns is not None:
        caps.append(f"--max-turns={launch.max_turns}")
    if launch.max_usd is not None:
        caps.append(f"--max-budget-usd={launch.max_usd}")
    prompt = f"\n{launch.instruction}" if launch.instruction.startswith("/") else launch.instruction
    resume = (f"--resume={launch.session}",) if launch.session else ()
    return (launch.executable, *_STREAM, f"--model={launch.model}", *caps, *launch.flags, *resume, "--", prompt)


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.search(r"^(\d+\.\d+\.\d+\S*) \(Claude Code\)", output, re.MULTILINE)
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:  # noqa: ARG001  # the protocol's signature; Claude Code needs no file
    return {}


def reader() -> Reader:
    return JsonReader(_Telling().read)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Telling:
    """Remembers what an answer was begun with: its end tells how much came, not always of what it was made."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[str, Fields]] = {}

    def read(self, line: Fields) -> list[AgentEvent]:
        return self._streamed(line) if line.get("type") == "stream_event" else _read(line)

    def _streamed(self, line: Fields) -> list[AgentEvent]:
        """Answers of sub-agents come between those of the agent, each under the tool use that called it."""
        event, of = field(line, "event", dict), field(line, "parent_tool_use_id", str) or ""
        match (event or {}).get("type"):
            case "message_start":
                message = field(event, "message", dict)
                self._begun[of] = field(message, "model", str) or "", field(message, "usage", dict) or {}
            case "message_delta" if field(event, "usage", dict) is not None and of in self._begun:
                model, begun = self._begun.pop(of)
                told = {name: count for name, count in (field(event, "usage", dict) or {}).items() if count}
                return [AgentEvent(Act.OTHER, usage={model: _usage({**begun, **told}, _WIRE)})]
        return []


def _read(line: Fields) -> list[AgentEvent]:
    match line.get("type"):
        case "system":
            return _system(line)
        case "assistant":
            return _assistant(line)
        case "user":
            return _user(line)
        case "tool_progress":
            return [AgentEvent(Act.TOOL_RUNNING, tool=field(line, "tool_name", str))]
        case "result":
            return [_result(line)]
    return []


def _system(line: Fields) -> list[AgentEvent]:
    match line.get("subtype"):
        case "init":
            version = field(line, "claude_code_version", str)
            session = field(line, "session_id", str)
            return [AgentEvent(Act.INIT, model=field(line, "model", str), version=version, session=session)]
        case "api_retry":
            delay_ms = _number(line, "retry_delay_ms")
            return [
                AgentEvent(
                    Act.RETRYING,
                    error=field(line, "error", str),
                    status=field(line, "error_status", int),
                    attempt=field(line, "attempt", int),
                    delay_s=None if delay_ms is None else delay_ms / 1000,
                )
            ]
        case "status" if line.get("status") == "requesting":
            return [AgentEvent(Act.WAITING)]
        case "permission_denied":
            message = field(line, "message", str) or ""
            return [AgentEvent(Act.DENIED, text=message[:_PROSE_CHARS], tool=field(line, "tool_name", str))]
    return []


def _assistant(line: Fields) -> list[AgentEvent]:
    message = field(line, "message", dict) or {}
    if error := field(line, "error", str):
        # api_error says more where it is present: server_error covers a refused connection as well as a 500
        word = field(line, "api_error", str) or error
        text = "\n".join(field(block, "text", str) or "" for block in objects(message, "content"))
        status = field(line, "api_error_status", int)
        return [AgentEvent(Act.ERROR, text=text[:_ANSWER_CHARS], error=word, status=status)]
    model = field(message, "model", str)
    model = None if model == "<synthetic>" else model  # lines the CLI wrote itself
    events: list[AgentEvent] = []
    for block in objects(message, "content"):
        if block.get("type") == "text":
            events.append(AgentEvent(Act.SPOKE, text=(field(block, "text", str) or "")[:_PROSE_CHARS], model=model))
        elif block.get("type") == "tool_use":
            tool, call = field(block, "name", str), digest(block.get("name"), block.get("input"))
            events.append(AgentEvent(Act.TOOL_STARTED, tool=tool, model=model, print=call))
    return events


def _user(line: Fields) -> list[AgentEvent]:
    ended = [b for b in objects(field(line, "message", dict), "content") if b.get("type") == "tool_result"]
    events = [_ended(block.get("is_error") is not True, block.get("content")) for block in ended]
    operation = field(field(line, "tool_use_result", dict), "gitOperation", dict)
    if commit := field(operation, "commit", dict):
        events.append(AgentEvent(Act.COMMITTED, sha=field(commit, "sha", str)))
    return events


def _ended(ok: bool, said: object) -> AgentEvent:
    return AgentEvent(Act.TOOL_ENDED, text=last_words(said), ok=ok, print=digest(said))


def _result(line: Fields) -> AgentEvent:
    """The CLI's verdict. `subtype` says success even when the run failed, so `is_error` decides."""
    ok = line.get("is_error") is False
    subtype = field(line, "subtype", str) or ""
    word = subtype if subtype.startswith("error_") else field(line, "api_error", str)
    said = field(line, "result", str) or "\n".join(str(e) for e in field(line, "errors", list) or [])
    of_models = {name: m for name, m in (field(line, "modelUsage", dict) or {}).items() if isinstance(m, dict)}
    usage, models = {name: _usage(m, _VERDICT) for name, m in of_models.items()}, list(of_models.values())
    return AgentEvent(
        Act.RESULT,
        text=said[:_ANSWER_CHARS],
        error=None if ok else word,
        status=field(line, "api_error_status", int),
        ok=ok,
        tokens=sum(each.total for each in usage.values()) if usage else None,
        usd=_usd(line, models),
        usage=usage or None,
    )


def _usage(told: Fields, names: tuple[str, str, str, str]) -> Usage:
    fresh, output, read, write = (max(0, field(told, name, int) or 0) for name in names)
    return Usage(fresh=fresh, output=output, cache_read=read, cache_write=write)


def _usd(line: Fields, models: Sequence[Fields]) -> float | None:
    """The CLI's own figure, or None when it priced a model it does not know by guess (2.1.330 says so itself)."""
    if any(m.get("costBasis") == "unknown" for m in models):
        return None
    return _number(line, "total_cost_usd")


def _number(fields: Any, name: str) -> float | None:
    whole = field(fields, name, int)
    return field(fields, name, float) if whole is None else float(whole)

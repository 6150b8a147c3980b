"""Codex, headless: it speaks the Responses API alone, and is told of a provider on its command line.

Every failed try is an event that says so, the status in words; the verdict is
`turn.completed` or `turn.failed`. Of a 429 it keeps the number alone, of most
other answers the provider's message without its code (0.169.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from overnight.caps import TellsUsage
from overnight.events import Act, AgentEvent
from overnight.failures import Failure, FailureKind
from overnight.harnesses.lines import Fields, JsonReader, digest, field, last_words
from overnight.harnesses.protocol import Launch, Reader
from overnight.harnesses.verdict import Dialect, judge
from overnight.lockfile import ErrorRule, Header
from overnight.session import Sessions
from overnight.transcript import Transcript
from overnight.usage import Usage

NAME = "codex"
COMMAND = "codex"
HEADER_OF: Mapping[str, Header] = {"OVERNIGHT_CODEX_API_KEY": Header.BEARER}
CAPS = frozenset[str]()
TELLS_USAGE: TellsUsage = "at-end"
# 0.169.0, measured 2026-11-29: the file alone is enough, its databases are made anew. Its verdict sums the thread up.
SESSIONS: Sessions | str = Sessions(
    (".codex/sessions/**/rollout-*-{id}.jsonl",),
    ({"type": "event_msg", "payload.type": "token_count"}, {"type": "token_usage_record"}),
)

_RETRY = re.compile(r"Reconnecting\.\.\. (?:(?P<attempt>\d+)/\d+|waiting for network) \((?P<cause>.*)\)", re.DOTALL)
_STATUS = re.compile(r"(?:unexpected status |exceeded retry limit, last status: )(?P<status>\d{3}) ")
_NETWORK_WAITS = 6  # in a row, 90 s after the first; a refused connection it gives up sooner by itself (0.169.0)
_OUTCOME = ("aggregated_output", "exit_code", "result", "error", "status")
_NO_TOOLS = ("agent_message", "reasoning", "error", "todo_list")
_FORGETS = "--ephemeral"
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="Reconnecting",
    preamble="",
    own_words={},
    broad_words={},
    own_lines=(
        ("Missing environment variable:", _K.KEY_MISSING),
        ("Connection failed:", _K.NETWORK),
        ("stream disconnected before completion: Transport error:", _K.NETWORK),
        ("stream disconnected before completion: idle timeout", _K.PROVIDER_MUTE),
        ("stream disconnected before completion: stream closed before response.completed", _K.NOT_THE_API),
        ("Selected model is at capacity.", _K.OVERLOADED),
        ("We\u2019re currently experiencing high demand", _K.PROVIDER_ERROR),
        ("Quota exceeded. Check your plan", _K.BILLING),
        ("You\u2019ve hit your usage limit", _K.QUOTA_WINDOW),
        ("The model `", _K.MODEL_UNKNOWN),  # what it is left with of a 404 with the code model_not_found
        ("Codex ran out of room in the model's context window", _K.CONTEXT_OVERFLOW),
    ),
    usage=re.compile(r"^(?:error: |Error loading config|Error parsing -c overrides|Not inside a trusted directory)"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run. It knows no budget and no turn cap.

    A prompt of one dash would be read from standard input, so it gets a word in front.
    The lock has it keep no session, which a run with a later one in mind does.
    """
    prompt = f"Instruction: {launch.instruction}" if launch.instruction.strip() == "-" else launch.instruction
    flags = [flag for flag in launch.flags if flag != _FORGETS or not launch.keeps]
    end = ("resume", "--", launch.session, prompt) if launch.session else ("--", prompt)
    return (launch.executable, "exec", "--json", f"--model={launch.model}", *flags, *end)


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.fullmatch(r"codex-cli (\d+\.\d+\.\d+\S*)", output.strip())
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:  # noqa: ARG001  # the protocol's signature; all of it is flags
    return {}


def reader() -> Reader:
    return JsonReader(_Telling().read)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Telling:
    """Remembers the last words, since the verdict does not repeat them, and the tools that are running."""

    def __init__(self) -> None:
        self._answer = ""
        self._running: set[str] = set()
        self._waits = 0

    def read(self, line: Fields) -> list[AgentEvent]:
        match line.get("type"):
            case "thread.started":
                return [AgentEvent(Act.INIT, session=field(line, "thread_id", str))]
            case "turn.started":
                return [AgentEvent(Act.WAITING)]
            case "item.started" | "item.completed" as what:
                return self._item(field(line, "item", dict) or {}, ended=what == "item.completed")
            case "error":
                return [self._error(field(line, "message", str) or "")]
            case "turn.failed":
                text = (field(field(line, "error", dict), "message", str) or "")[:_ANSWER_CHARS]
                return [AgentEvent(Act.RESULT, text=text, status=_status(text), ok=False)]
            case "turn.completed":
                used = _usage(line)
                tokens, usage = (used.total, {"": used}) if used else (None, None)
                return [AgentEvent(Act.RESULT, text=self._answer, ok=True, tokens=tokens, usage=usage)]
        return []

    def _item(self, item: Fields, *, ended: bool) -> list[AgentEvent]:
        kind, number = field(item, "type", str), field(item, "id", str) or ""
        if kind == "agent_message" and ended:
            self._waits = 0
            self._answer = (field(item, "text", str) or "")[:_ANSWER_CHARS]
            return [AgentEvent(Act.SPOKE, text=self._answer[:_PROSE_CHARS])]
        if kind is None or kind in _NO_TOOLS:  # an `error` here is a notice, as on a model it has no data of
            return []
        self._waits = 0
        call = digest({name: value for name, value in item.items() if name not in _OUTCOME and name != "id"})
        events = [] if number in self._running else [AgentEvent(Act.TOOL_STARTED, tool=kind, print=call)]
        self._running.add(number)
        if ended:
            self._running.discard(number)
            ok, result = field(item, "status", str) != "failed", digest([item.get(name) for name in _OUTCOME])
            said = last_words(item)
            events.append(AgentEvent(Act.TOOL_ENDED, text=said, tool=kind, ok=ok, print=result))
        return events

    def _error(self, message: str) -> AgentEvent:
        retry = _RETRY.fullmatch(message)
        if retry is None:
            text = message[:_ANSWER_CHARS]
            return AgentEvent(Act.ERROR, text=text, status=_status(text))
        cause, attempt = retry["cause"][:_ANSWER_CHARS], retry["attempt"]
        status = _status(cause)
        self._waits = 0 if attempt else self._waits + 1
        return AgentEvent(
            Act.RETRYING,
            text=cause,
            error=cause.removeprefix(f"unexpected status {status} ")[:_PROSE_CHARS],
            status=status,
            attempt=int(attempt) if attempt else self._waits,
            endless=self._waits >= _NETWORK_WAITS,
        )


def _status(own_line: str) -> int | None:
    """The HTTP status in an error line, at its beginning: further on the provider's words begin.

    A body in place of a line is that of a 400, which alone it hands on whole.
    """
    found = _STATUS.match(own_line)
    if found is None:
        return 400 if own_line.startswith("{") else None
    return int(found["status"])


def _usage(line: Fields) -> Usage | None:
    """What was read from a cache stands in the input as well (0.169.0)."""
    told = field(line, "usage", dict)
    names = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens")
    sent, read, write, output = (max(0, field(told, name, int) or 0) for name in names)
    fresh = max(0, sent - read - write)
    return Usage(fresh=fresh, output=output, cache_read=read, cache_write=write) if told else None

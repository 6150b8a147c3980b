"""Qwen Code, headless: it calls every run a success, so its own error texts are told from the model's by structure.

What it says itself is an assistant message that used no tokens and begins with
`[API Error:`. It asks again without a word when it is refused with 429 or 5xx,
seven times in some 75 s, and says so only at the end (0.15.10).
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

NAME = "qwen"
COMMAND = "qwen"
HEADER_OF: Mapping[str, Header] = {"ANTHROPIC_API_KEY": Header.X_API_KEY}
CAPS = frozenset[str]()
TELLS_USAGE: TellsUsage = "each-answer"
# 0.15.10, measured 2026-11-29: looked for in the folder of its own work tree. The result sums the session up.
SESSIONS: Sessions | str = Sessions((".qwen/projects/*/chats/{id}.jsonl",))

_OWN = "[API Error: "
_STATUS = re.compile(r"\[API Error: (\d{3}) ")
_GROUP = re.compile(r"\nProcess Group PGID: \d+\b")
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="retry",
    preamble=_OWN,
    own_words={},
    broad_words={},
    own_lines=(
        ("Model stream ended with", _K.NOT_THE_API),
        ("Connection error.", _K.NETWORK),
        ("Premature close", _K.NETWORK),
        ("Request timed out.", _K.PROVIDER_MUTE),
        ("ANTHROPIC_API_KEY environment variable not found", _K.KEY_MISSING),
    ),
    usage=re.compile(r"^(?:Unknown argument|Not enough arguments|Invalid values|Error: )"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run. It knows no budget and no turn cap that we use.

    The prompt is the value of `--prompt=`, so no prompt can be taken for a flag.
    It runs `/clear` and its like without asking the model; a word in front makes
    them text.
    """
    command_like = launch.instruction.lstrip().startswith("/")
    prompt = f"Instruction: {launch.instruction}" if command_like else launch.instruction
    fixed = ("--output-format=stream-json", "--include-partial-messages", "--auth-type=anthropic")
    resume = (f"--resume={launch.session}",) if launch.session else ()
    return (launch.executable, *fixed, f"--model={launch.model}", *launch.flags, *resume, f"--prompt={prompt}")


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.fullmatch(r"(\d+\.\d+\.\d+\S*)", output.strip())
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:
    """Its waits, in the one file of settings that beats the repository's; QWEN_CODE_SYSTEM_SETTINGS_PATH names it."""
    waits: dict[str, Any] = {}
    if launch.timing is not None:
        waits = {"timeout": round(launch.timing.request_timeout_s * 1000), "maxRetries": launch.timing.retries}
    settings = {
        "$version": 4,
        "model": {"generationConfig": waits},
        "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
    }
    return {".qwen/overnight.json": json.dumps(settings)}


def reader() -> Reader:
    return JsonReader(_Telling().read)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Telling:
    """Remembers whether its own words came last, since its result does not say how the run went."""

    def __init__(self) -> None:
        self._own: AgentEvent | None = None
        self._used = 0

    def read(self, line: Fields) -> list[AgentEvent]:
        match line.get("type"):
            case "system" if line.get("subtype") == "init":
                version = field(line, "qwen_code_version", str)
                session = field(line, "session_id", str)
                return [AgentEvent(Act.INIT, model=field(line, "model", str), version=version, session=session)]
            case "assistant":
                return self._assistant(field(line, "message", dict) or {})
            case "user":
                ended = [b for b in objects(field(line, "message", dict), "content") if b.get("type") == "tool_result"]
                return [_tool_ended(block) for block in ended]
            case "result":
                return [self._result(line)]
        return []

    def _assistant(self, message: Fields) -> list[AgentEvent]:
        blocks, self._own = objects(message, "content"), None
        text = "".join(field(block, "text", str) or "" for block in blocks)
        if _OWN in text and not field(field(message, "usage", dict), "output_tokens", int):
            text = text[text.rindex(_OWN) :]  # words of the model that a stream without an end left standing come first
            self._own = AgentEvent(Act.ERROR, text=text[:_ANSWER_CHARS], status=_status(text))
            return [self._own]
        calls = [
            AgentEvent(Act.TOOL_STARTED, tool=field(b, "name", str), print=digest(b.get("name"), b.get("input")))
            for b in blocks
            if b.get("type") == "tool_use"
        ]
        used = _used(message)
        self._used += sum(usage.total for event in used for usage in (event.usage or {}).values())
        return [*([AgentEvent(Act.SPOKE, text=text[:_PROSE_CHARS])] if text else []), *calls, *used]

    def _result(self, line: Fields) -> AgentEvent:
        tokens = field(field(line, "usage", dict), "total_tokens", int)
        tokens = min(tokens, self._used) if tokens and self._used else tokens  # an earlier run's are in the sum
        said = field(line, "result", str) or field(field(line, "error", dict), "message", str) or ""
        if self._own is None and line.get("is_error") is False and tokens:
            return AgentEvent(Act.RESULT, text=said[:_ANSWER_CHARS], ok=True, tokens=tokens)
        own = self._own or AgentEvent(Act.ERROR, text=said[:_ANSWER_CHARS])
        return AgentEvent(Act.RESULT, text=own.text, status=own.status, ok=False, tokens=tokens)


def _used(message: Fields) -> list[AgentEvent]:
    """What was read from a cache stands in the input as well: their total is input and output (0.15.10)."""
    told, names = field(message, "usage", dict), ("input_tokens", "output_tokens", "cache_read_input_tokens")
    sent, output, read = (max(0, field(told, name, int) or 0) for name in names)
    usage = Usage(fresh=max(0, sent - read), output=output, cache_read=read)
    return [AgentEvent(Act.OTHER, usage={field(message, "model", str) or "": usage})] if usage.total else []


def _tool_ended(block: Fields) -> AgentEvent:
    ok = block.get("is_error") is False
    return AgentEvent(Act.TOOL_ENDED, text=last_words(block.get("content")), ok=ok, print=_result(block))


def _result(block: Fields) -> str:
    """The mark of a result, without the number of its processes: it is another at every call."""
    content = block.get("content")
    return digest(_GROUP.sub("", content) if isinstance(content, str) else content)


def _status(own_line: str) -> int | None:
    found = _STATUS.match(own_line)
    return int(found[1]) if found else None

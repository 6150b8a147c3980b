"""A harness without a model: follows a script in the instruction. Proves the pipeline, and every way it can break.

Without a script it is the smallest agent there can be: one endpoint, one tool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from overnight.caps import TellsUsage
from overnight.events import Act, AgentEvent
from overnight.failures import Failure, FailureKind
from overnight.harnesses.lines import Fields, JsonReader, digest, field
from overnight.harnesses.protocol import Launch, Reader
from overnight.harnesses.scripted_agent import VERSION
from overnight.harnesses.verdict import Dialect, judge
from overnight.lockfile import ErrorRule, Header
from overnight.session import Sessions
from overnight.transcript import Transcript
from overnight.usage import Usage

NAME = "scripted"
COMMAND = "python3"
HEADER_OF: Mapping[str, Header] = {
    "OVERNIGHT_SCRIPTED_BEARER": Header.BEARER,
    "OVERNIGHT_SCRIPTED_API_KEY": Header.X_API_KEY,
}
CAPS = frozenset[str]()
TELLS_USAGE: TellsUsage = "each-answer"
SESSIONS: Sessions | str = Sessions((".overnight/sessions/{id}.json",))

_AGENT = ".overnight/scripted_agent.py"
_K = FailureKind

_DIALECT = Dialect(
    retry_event="retry",
    preamble="",
    own_words={
        "timeout": _K.PROVIDER_MUTE,
        "connection": _K.NETWORK,
        "not-the-api": _K.NOT_THE_API,
        "no-key": _K.KEY_MISSING,
        "bad-key": _K.AUTH_REJECTED,
        "turn-limit": _K.TURN_LIMIT,
    },
    broad_words={},
    own_lines=(),
    usage=re.compile(r"^scripted: error: "),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run; `max_turns` bounds the calls of the model, `max_usd` has no effect."""
    caps = () if launch.max_turns is None else (f"--max-turns={launch.max_turns}",)
    kept = ("--keep",) if launch.keeps else ()
    resume = (f"--session={launch.session}",) if launch.session else ()
    options = (f"--model={launch.model}", *caps, *launch.flags, *kept, *resume)
    return (launch.executable, "-I", "-S", f"../home/{_AGENT}", *options, "--", launch.instruction)


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    """Shows that the host's interpreter runs; the agent itself is brought along."""
    return (executable, "-I", "-S", "-c", f"print('scripted {VERSION}')")


def read_version(output: str) -> str | None:
    match = re.fullmatch(r"scripted (\d+)", output.strip())
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:  # noqa: ARG001  # the protocol's signature; the agent is always the same
    return {_AGENT: Path(__file__).with_name("scripted_agent.py").read_text(encoding="utf-8")}


def reader() -> Reader:
    return JsonReader(_read)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


def _read(line: Fields) -> list[AgentEvent]:
    match line.get("type"):
        case "init":
            version, session = field(line, "version", str), field(line, "session", str)
            return [AgentEvent(Act.INIT, model=field(line, "model", str), version=version, session=session)]
        case "request":
            return [AgentEvent(Act.WAITING)]
        case "retry":
            attempt, delay_s = field(line, "attempt", int), field(line, "delay_s", float)
            return [AgentEvent(Act.RETRYING, *_trouble(line), attempt, delay_s)]
        case "tool_started":
            tool = field(line, "tool", str)
            call = digest(tool, line.get("command"))
            return [AgentEvent(Act.TOOL_STARTED, tool=tool, model=field(line, "model", str), print=call)]
        case "tool_ended":
            ok, tool = field(line, "ok", bool), field(line, "tool", str)
            return [AgentEvent(Act.TOOL_ENDED, tool=tool, ok=ok, print=digest(ok, _text(line)))]
        case "text":
            return [AgentEvent(Act.SPOKE, _text(line), model=field(line, "model", str))]
        case "usage":
            fresh, output = (max(0, field(line, name, int) or 0) for name in ("input", "output"))
            return [AgentEvent(Act.OTHER, usage={field(line, "model", str) or "": Usage(fresh=fresh, output=output)})]
        case "error":
            return [AgentEvent(Act.ERROR, *_trouble(line))]
        case "result":
            ok, tokens = bool(field(line, "ok", bool)), field(line, "tokens", int)
            return [AgentEvent(Act.RESULT, *_trouble(line), ok=ok, tokens=tokens)]
    return []


def _text(line: Fields) -> str:
    return field(line, "text", str) or ""


def _trouble(line: Fields) -> tuple[str, str | None, int | None]:
    """Text, error and status, as an event has them in this order."""
    return _text(line), field(line, "error", str), field(line, "status", int)

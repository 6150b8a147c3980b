"""GitHub Copilot's CLI, headless, with a provider of one's own: no login, every try told with its status.

A try that failed is `model.call_failure`, with the provider's own error inside;
the verdict is the `exitCode` of `result`. Ended by a signal it says exit code 0
there, after an `abort` (1.0.102).
"""

from __future__ import annotations

import json
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

NAME = "copilot"
COMMAND = "copilot"
HEADER_OF: Mapping[str, Header] = {
    "COPILOT_PROVIDER_API_KEY": Header.X_API_KEY,
    "COPILOT_PROVIDER_BEARER_TOKEN": Header.BEARER,
}
CAPS = frozenset[str]()
TELLS_USAGE: TellsUsage = "never"
# 1.0.102, measured 2026-11-29: its id is told with the verdict alone, so one that was killed cannot be gone on with
SESSIONS: Sessions | str = Sessions(
    (".copilot/session-state/{id}/events.jsonl", ".copilot/session-state/{id}/workspace.yaml")
)

_SHELL = re.compile(r"<shellId: \d+")  # counts up at every call
_PROSE_CHARS = 500
_ANSWER_CHARS = 8000
_K = FailureKind

_DIALECT = Dialect(
    retry_event="model.call_failure",
    preamble="",
    own_words={"authentication": _K.AUTH_REJECTED},
    broad_words={"rate_limit": _K.RATE_LIMITED, "error-in-200": _K.NOT_THE_API},
    own_lines=(
        ("Failed to finalize Anthropic message stream", _K.NOT_THE_API),
        ("Failed native model HTTP request: error sending request", _K.NETWORK),
        ("Failed native model HTTP request: error decoding response body", _K.NETWORK),
        ("Could not connect to", _K.NETWORK),
        ("error sending request for url", _K.NETWORK),
        ("No response was returned.", _K.NOT_THE_API),
    ),
    usage=re.compile(r"^(?:error: |Error: )"),
)


def argv(launch: Launch) -> tuple[str, ...]:
    """The command line of a run. The model is in the environment; `--model` would only repeat it.

    The prompt is the value of `--prompt=`, so no prompt can be taken for a flag.
    It knows no budget in money and no turn cap.
    """
    fixed = ("--output-format=json", f"--model={launch.model}")
    resume = (f"--resume={launch.session}",) if launch.session else ()
    return (launch.executable, *fixed, *launch.flags, *resume, f"--prompt={launch.instruction}")


def probe_argv(launch: Launch) -> tuple[str, ...]:
    return argv(launch)


def version_argv(executable: str) -> tuple[str, ...]:
    return (executable, "--version")


def read_version(output: str) -> str | None:
    match = re.search(r"^GitHub Copilot CLI (\d+\.\d+\.\d+\S*?)\.?$", output, re.MULTILINE)
    return match.group(1) if match else None


def home_files(launch: Launch) -> dict[str, str]:  # noqa: ARG001  # the protocol's signature; all of it is environment
    return {}


def reader() -> Reader:
    return JsonReader(_Telling().read)


def diagnose(transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
    return judge(transcript, rules, names, _DIALECT)


class _Telling:
    """Remembers what was answered and refused, since the last event of a run holds neither."""

    def __init__(self) -> None:
        self._answer = ""
        self._refused = AgentEvent(Act.ERROR)
        self._aborted = False
        self._tools: dict[str, str | None] = {}

    def read(self, line: Fields) -> list[AgentEvent]:
        data = field(line, "data", dict) or {}
        match line.get("type"):
            case "session.tools_updated":
                return [AgentEvent(Act.INIT, model=field(data, "model", str))]
            case "model.call_start":
                return [AgentEvent(Act.WAITING)]
            case "model.call_failure":
                self._refused = _refusal(data)
                return [self._refused]
            case "assistant.message":
                return self._spoke(field(data, "content", str) or "")
            case "tool.execution_start" | "tool.execution_partial_result" | "tool.execution_complete":
                return self._tool(str(line["type"]), data)
            case "session.error":
                return [self._error(data)]
            case "abort":
                self._aborted = True
            case "result":
                return self._result(field(line, "exitCode", int), field(line, "sessionId", str))
        return []

    def _spoke(self, text: str) -> list[AgentEvent]:
        if not text:
            return []
        self._answer = text[:_ANSWER_CHARS]
        return [AgentEvent(Act.SPOKE, text=text[:_PROSE_CHARS])]

    def _tool(self, kind: str, data: Fields) -> list[AgentEvent]:
        call = field(data, "toolCallId", str) or ""
        if kind == "tool.execution_start":
            self._tools[call] = field(data, "toolName", str)
            mark = digest(data.get("toolName"), data.get("arguments"))
            return [AgentEvent(Act.TOOL_STARTED, tool=self._tools[call], print=mark)]
        if kind == "tool.execution_partial_result":
            return [AgentEvent(Act.TOOL_RUNNING, tool=self._tools.get(call))]
        code = field(field(data, "shellExecution", dict), "exitCode", int)
        ok = field(data, "success", bool) is True and not code
        said = field(field(data, "result", dict), "content", str) or ""
        result = digest(_SHELL.sub("", said), data.get("error"))
        words = last_words([said, data.get("error")])
        tool = self._tools.pop(call, None)
        ended = AgentEvent(Act.TOOL_ENDED, text=words, tool=tool, ok=ok, print=result)
        denied = field(field(data, "error", dict), "code", str) == "denied"
        return [AgentEvent(Act.DENIED, text=words, tool=tool), ended] if denied else [ended]

    def _error(self, data: Fields) -> AgentEvent:
        """The end of its tries; what the provider said at the last of them says more than the sentence made from it."""
        status = field(data, "statusCode", int)
        text = self._refused.text if self._refused.status == status else ""
        text = text or (field(data, "message", str) or "")[:_ANSWER_CHARS]
        return AgentEvent(Act.ERROR, text=text, error=_word(data, "errorType"), status=status)

    def _result(self, exit_code: int | None, session: str | None) -> list[AgentEvent]:
        """Its verdict; none when it was told to stop, whatever it says."""
        ok = exit_code == 0
        text = self._answer if ok else ""
        return [] if self._aborted else [AgentEvent(Act.RESULT, text=text, ok=ok, session=session)]


def _refusal(data: Fields) -> AgentEvent:
    attempt = field(data, "retryAttempt", int)
    return AgentEvent(
        Act.RETRYING,
        text=_told(field(data, "errorMessage", str) or "")[:_ANSWER_CHARS],
        error=_word(data, "failureKind"),
        status=field(data, "statusCode", int),
        attempt=None if attempt is None else attempt + 1,
    )


def _word(data: Fields, name: str) -> str | None:
    return "error-in-200" if data.get("statusCode") == 200 else field(data, name, str)


def _told(message: str) -> str:
    """The error that the provider sent, in its usual shape; or the transport's words."""
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        return message
    return said if isinstance(said, str) else json.dumps({"error": said}, ensure_ascii=False)

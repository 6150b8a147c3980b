"""A harness that is a file: its command line, where its verdict stands, what its lines mean. No Python.

Each `declarations/*.toml` is one; `Declaration` says what may stand in it. An
agent that prints plain text shares its output with the model, which can write
any line there: nothing in it is believed before the process has ended, and an
answer forgives every error line before it.
"""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from overnight.caps import TellsUsage
from overnight.events import Act, AgentEvent, Exited
from overnight.facts import VariableName
from overnight.failures import BadInput, Failure, FailureKind
from overnight.harnesses.lines import Fields, Lines, digest, parse
from overnight.harnesses.protocol import Launch, Reader
from overnight.harnesses.verdict import Dialect, judge
from overnight.lockfile import ErrorRule, Header
from overnight.session import Sessions
from overnight.transcript import Transcript

FOLDER = Path(__file__).with_name("declarations")

_CHARS = 8000
_SAID = (Act.ERROR, Act.RETRYING, Act.SPOKE, Act.TOOL_STARTED, Act.TOOL_ENDED)

What = Literal["text", "error", "status", "attempt", "model", "tool", "tokens", "arguments", "result"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Line(_Strict):
    """What a line means. The first rule that fits is the one; no rule is tried on the other stream.

    In a JSON line `when` holds what must stand where, `read` where to find what;
    both by dotted path. On a plain line `pattern` is looked for, and its named
    groups are what is found.
    """

    act: Act
    stream: Literal["out", "err"] = "out"
    when: dict[str, str | int | bool] = {}
    read: dict[What, str] = {}
    pattern: re.Pattern[str] | None = None
    status: re.Pattern[str] | None = Field(None, description="Finds an HTTP status, its first group, in the text")
    ok: bool | None = None
    gathers: bool = Field(False, description="Its text is the plain lines before it that no rule fits")


def _with_prompt(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or "{prompt}" not in argv[-1]:
        raise ValueError("the last part has no {prompt}")
    return argv


class Version(_Strict):
    """How it says its version: the arguments, and the whole of what it prints, the version its first group."""

    argv: tuple[str, ...]
    pattern: re.Pattern[str]


class Declaration(_Strict):
    """One file. `argv` may hold `{model}` and `{flags}` (alone); its last part holds `{prompt}`."""

    name: str
    command: str
    headers: dict[VariableName, Header]
    argv: Annotated[tuple[str, ...], AfterValidator(_with_prompt)]
    command_like: re.Pattern[str] | None = Field(None, description="Prompts that get a word in front")
    version: Version
    home_files: dict[str, str] = {}
    output: Literal["json", "text"]
    verdict: Literal["event", "exit"] = Field(description="A line with act `result`, or that it ends with 0")
    preamble: str = ""
    begins: dict[str, FailureKind] = Field({}, description="How its error texts begin, after the preamble")
    usage: re.Pattern[str]
    lines: tuple[Line, ...]


class Declared:
    """What a harness module is, made from a declaration."""

    CAPS = frozenset[str]()
    SESSIONS: Sessions | str = "its file declares no way to"

    def __init__(self, declaration: Declaration) -> None:
        self._is, lines = declaration, declaration.lines
        self.NAME = declaration.name
        self.COMMAND = declaration.command
        self.HEADER_OF: Mapping[str, Header] = declaration.headers
        counts = any("tokens" in rule.read or (rule.pattern and "tokens" in rule.pattern.groupindex) for rule in lines)
        self.TELLS_USAGE: TellsUsage = "one-sum" if counts else "never"
        own_lines = tuple(declaration.begins.items())
        self._dialect = Dialect(
            "retry",
            declaration.preamble,
            {},
            {},
            own_lines,
            declaration.usage,
            said_by="stderr" if declaration.output == "text" else "event",
        )

    def argv(self, launch: Launch) -> tuple[str, ...]:
        """The command line of a run. It knows no budget and no turn cap."""
        like = self._is.command_like
        prompt = f"Instruction: {launch.instruction}" if like and like.match(launch.instruction) else launch.instruction
        *parts, last = self._is.argv
        told = [each for part in parts for each in (launch.flags if part == "{flags}" else (part,))]
        filled = [each.replace("{model}", launch.model) for each in told]
        return (launch.executable, *filled, last.replace("{prompt}", prompt))

    def probe_argv(self, launch: Launch) -> tuple[str, ...]:
        return self.argv(launch)

    def version_argv(self, executable: str) -> tuple[str, ...]:
        return (executable, *self._is.version.argv)

    def read_version(self, output: str) -> str | None:
        match = self._is.version.pattern.fullmatch(output.strip())
        return match.group(1) if match else None

    def home_files(self, launch: Launch) -> dict[str, str]:
        return {name: text.replace("{model}", launch.model) for name, text in self._is.home_files.items()}

    def reader(self) -> Reader:
        return _Reader(self._is)

    def diagnose(self, transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
        ending = transcript.ending
        if self._is.output == "text" and isinstance(ending, Exited) and ending.signal is not None:
            transcript = replace(transcript, said=deque())  # cut off, its last line may be the model's
        if self._is.verdict == "exit":
            newest = transcript.last(*_SAID)
            if ending is None:
                return None
            if isinstance(ending, Exited) and ending.code == 0 and newest and newest.event.act is Act.SPOKE:
                transcript = replace(transcript, said=transcript.said.copy())
                transcript.add_events(ending.seconds, [replace(newest.event, act=Act.RESULT, ok=True)])
        return judge(transcript, rules, names, self._dialect)


class _Reader:
    """Tries the rules on each line, and keeps what no rule fits for the next that gathers."""

    def __init__(self, declaration: Declaration) -> None:
        self._is = declaration
        self._lines = {"out": Lines(), "err": Lines()}
        self._rest = ""

    def feed(self, stream: Literal["out", "err"], data: bytes) -> list[AgentEvent]:
        return [event for line in self._lines[stream].feed(data) for event in self._events(stream, line)]

    def _events(self, stream: Literal["out", "err"], line: bytes | None) -> Iterator[AgentEvent]:
        if line is not None and not line.strip():
            return
        fields = parse(line) if line is not None and self._is.output == "json" else None
        text = "" if line is None else line.decode(errors="replace").rstrip("\r")
        for rule in self._is.lines:
            found = _read(rule, fields, text) if rule.stream == stream else None
            if found is not None:
                yield self._event(rule, found)
                return
        if stream == "out":
            self._rest = f"{self._rest}{text}\n"[-_CHARS:]
            yield AgentEvent(Act.OTHER)

    def _event(self, rule: Line, found: dict[str, Any]) -> AgentEvent:
        text = str(found.get("text") or "")[:_CHARS]
        if rule.gathers:
            text, self._rest = self._rest.strip(), ""
        status = rule.status.search(text) if rule.status else None
        return AgentEvent(
            rule.act,
            text=text,
            ok=rule.ok,
            error=_text(found.get("error")),
            status=int(status.group(1)) if status else _number(found.get("status")),
            attempt=_number(found.get("attempt")),
            model=_text(found.get("model")),
            tool=_text(found.get("tool")),
            tokens=_number(found.get("tokens")),
            print=_mark(found),
        )


def _read(rule: Line, fields: Fields | None, text: str) -> dict[str, Any] | None:
    """What the rule finds in a line; None when it does not fit."""
    if rule.pattern is not None:
        match = rule.pattern.search(text) if fields is None else None
        return match.groupdict() if match else None
    if fields is None or any(_at(fields, path) != value for path, value in rule.when.items()):
        return None
    return {what: _at(fields, path) for what, path in rule.read.items()}


def _mark(found: dict[str, Any]) -> str | None:
    if "arguments" in found:
        return digest(found.get("tool"), found["arguments"])
    return digest(found["result"]) if "result" in found else None


def _at(value: object, path: str) -> object:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: object) -> str | None:
    return value[:_CHARS] if isinstance(value, str) else None


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:18])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read(path: Path) -> Declared:
    """The harness that a file declares.

    Raises:
        ValueError: it is no TOML, or does not fit; pydantic's message names the place.
    """
    return Declared(Declaration.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))))


def declared_in(folder: Path, named_by: str) -> dict[Path, Declared]:
    """The harnesses that the TOML files of a folder declare, by file.

    Args:
        named_by: Who names the folder, for the words when it is none.

    Raises:
        BadInput: there is no such folder; or a file, the first field in it that is wrong, and what to write.
    """
    if not folder.is_dir():
        raise BadInput(named_by, str(folder), "is no folder", "Name the folder that holds the TOML files")
    found: dict[Path, Declared] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            found[path] = read(path)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise BadInput(str(path), field, first["msg"], f"See {FOLDER}/aider.toml for one that works") from error
        except (OSError, ValueError) as error:
            raise BadInput(str(path), "file", f"is no TOML: {error}", "Write it as TOML, in UTF-8") from error
    names = [harness.NAME for harness in found.values()]
    for path, harness in found.items():
        if names.count(harness.NAME) > 1:
            raise BadInput(str(path), "name", f"{harness.NAME!r} is declared twice", "Give each file its own name")
    return found


DECLARED = tuple(read(path) for path in sorted(FOLDER.glob("*.toml")))

"""Whole lines out of a stream of bytes, and JSON objects out of lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

import orjson

from overnight.events import Act, AgentEvent

MAX_LINE_BYTES = 16 * 1024 * 1024  # a tool result with a large file in it is one line; beyond this nobody reads it

Fields: TypeAlias = dict[str, Any]
"""One parsed JSON object of an agent. `field` reads it, since agents change their shapes between versions."""

T = TypeVar("T")

_LAST_CHARS = 200
_SAID_IN = ("text", "content", "output", "aggregated_output", "value", "error", "message")  # by the names agents use


class Lines:
    """Splits bytes at newlines and keeps the unfinished rest. How the bytes were cut into chunks changes nothing."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that `data` completes, without their newline; None for one longer than the limit."""
        *ends, rest = data.split(b"\n")
        lines: list[bytes | None] = []
        for end in ends:
            self._take(end)
            lines.append(bytes(self._pending) if len(self._pending) <= self._limit else None)
            self._pending.clear()
        self._take(rest)
        return lines

    def _take(self, part: bytes) -> None:
        self._pending += part[: self._limit + 1 - len(self._pending)]


class JsonReader:
    """A `Reader` for agents that print one JSON object a line on standard output.

    `read` turns one object into events; an object it has nothing to say about,
    and a line that is no object, are a sign of life. Standard error is kept by
    the transcript and gives no events: agents print warnings there in good runs.
    """

    def __init__(
        self, read: Callable[[Fields], list[AgentEvent]], plain: Callable[[str], list[AgentEvent]] | None = None
    ) -> None:
        self._lines = Lines()
        self._read = read
        self._plain = plain

    def feed(self, stream: Literal["out", "err"], data: bytes) -> list[AgentEvent]:
        if stream == "err":
            return []
        events: list[AgentEvent] = []
        for line in self._lines.feed(data):
            if line is None or line.strip():
                events += self._events(line) or [AgentEvent(Act.OTHER)]
        return events

    def _events(self, line: bytes | None) -> list[AgentEvent]:
        if line is None:
            return []
        fields = parse(line)
        if fields is not None:
            return self._read(fields)
        return self._plain(line.decode(errors="replace")) if self._plain else []


def parse(line: bytes) -> Fields | None:
    """The JSON object on this line, or None when it holds anything else. Its texts can all be encoded again."""
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError:
        parsed = _forgiving(line)
    return parsed if isinstance(parsed, dict) else None


def _forgiving(line: bytes) -> Any:
    """What a strict parser refuses, and Python's own takes: bytes that are no UTF-8, half of a pair, NaN."""
    try:
        parsed = json.loads(line.decode(errors="replace"))
        if b"\\ud" in line or b"\\uD" in line:  # an escaped half of a pair, as a tool's torn output leaves it
            parsed = json.loads(json.dumps(parsed, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return parsed


def digest(*parts: object) -> str:
    """A short mark by which two calls with the same arguments, or two same results, are known as one.

    `parts` are values out of JSON; the order of an object's fields changes nothing.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def last_words(result: object) -> str:
    """The end of what a tool said, to be shown and never to be judged by."""
    return " ".join(" ".join(_texts(result)).split())[-_LAST_CHARS:]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name in _SAID_IN:
            yield from _texts(value.get(name))


def field(fields: Any, name: str, kind: type[T]) -> T | None:
    """`fields[name]` when it is there and of this type, else None. A bool is not a number."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, bool) and kind is not bool:
        return None
    return value if isinstance(value, kind) else None


def objects(fields: Any, name: str) -> list[Fields]:
    """The objects in the list `fields[name]`; empty when it is no list."""
    return [item for item in field(fields, name, list) or [] if isinstance(item, dict)]

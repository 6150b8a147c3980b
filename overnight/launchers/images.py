"""Dockerfiles: ENV and ARG as they stand when RUN, CMD and ENTRYPOINT start something."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from overnight.launchers import shell
from overnight.launchers.lines import parts_of
from overnight.launchers.steps import Place, Program, Scope, Script, Set, Step, Text, Value

_INSTRUCTION = re.compile(
    rb"^[ \t]*([A-Za-z]+)[ \t]+((?:[^\\\n]|\\[^\n]|\\[ \t]*\r?\n(?:[ \t]*#[^\n]*\n)*)*)", re.MULTILINE
)
_PAIR = re.compile(rb"([A-Za-z_]\w*)=(\"(?:[^\"\\]|\\.)*\"|'[^']*'|(?:[^\s\\\"']|\\.)*)", re.DOTALL)
_OLD_PAIR = re.compile(rb"([A-Za-z_]\w*)[ \t]+(.+)", re.DOTALL)


def read(text: Text) -> Script:
    """Each stage on its own: what one sets, the next does not have unless it builds on it, which is not followed."""
    stages: list[list[Step]] = [[]]
    for match in _INSTRUCTION.finditer(text.data):
        name, start, raw = match[1].upper(), match.start(2), match[2].rstrip()
        if name == b"FROM":
            stages.append([])
        elif name in (b"ENV", b"ARG"):
            stages[-1].extend(_pairs(text, start, raw, old=name == b"ENV"))
        elif name in (b"RUN", b"CMD", b"ENTRYPOINT"):
            stages[-1].append(Scope(_command(text, start, raw)))
    return Script(text, [Scope(stage) for stage in stages if stage])


def _pairs(text: Text, start: int, raw: bytes, old: bool) -> Iterator[Set]:
    found = list(_PAIR.finditer(raw))
    if not found and old and (single := _OLD_PAIR.fullmatch(raw)):
        found = [single]
    for match in found:
        quoted = match[2][:1] in (b'"', b"'")
        inner = (match[2][1:-1] if quoted else match[2]).decode("utf-8", "replace")
        parts = (inner,) if match[2][:1] == b"'" else parts_of(inner)
        place = Place(text, start + match.start(2), start + match.end(2))
        name = Place(text, start + match.start(1), start + match.end(1))
        yield Set(match[1].decode(), Value(parts, place), name)


def _command(text: Text, start: int, raw: bytes) -> Program:
    place = Place(text, start, start + len(raw))
    if not raw.startswith(b"["):
        flags = re.match(rb"(?:--\w+=\S+\s+)*", raw)
        begin = start + (flags.end() if flags else 0)
        return list(shell.read_part(Value((None,), Place(text, begin, place.end))))
    try:
        words = json.loads(raw)
    except ValueError:
        return []
    at, values = start, []
    for word in words if isinstance(words, list) else []:
        written = json.dumps(word, ensure_ascii=False).encode()
        found = text.data.find(written, at, place.end)
        at = found if found >= 0 else at
        values.append(Value((str(word),), Place(text, at, at + len(written) if found >= 0 else place.end)))
    return list(shell.of_words(values, place))

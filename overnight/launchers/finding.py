"""What a check says: the place, the fact it breaks, why that matters, the corrected line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from overnight.launchers.steps import Place, Text

_KEY_LIKE = re.compile(r"\b(?:sk|tp|ak|key|pk)-[\w.-]{4,}|(?i:bearer)\s+(?!\$)[\w.-]{6,}|\b[0-9a-f]{24,}\b[\w.-]*")
MASK = "***"


@dataclass(frozen=True)
class Edit:
    place: Place
    new: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `edits` mend it; `certain` says that they may be applied without asking."""

    rule: str
    weight: str
    place: Place
    what: str
    fact: str
    provenance: str
    why: str
    mend: str
    edits: tuple[Edit, ...] = ()
    certain: bool = False

    @property
    def identity(self) -> tuple[str, str, int]:
        return self.place.text.shown, self.rule, self.place.start


def corrected(finding: Finding, secrets: Iterable[str]) -> str | None:
    """The line of the first edit as it should be, keys masked; None where no line can be given."""
    if not finding.edits:
        return None
    first = finding.edits[0].place
    start, end = first.text.line_at(first.start)
    end = max(end, first.text.line_at(first.end)[1])
    here = [e for e in finding.edits if e.place.text is first.text and start <= e.place.start and e.place.end <= end]
    line = apply(first.text.data[start:end], here, start).decode("utf-8", "replace").strip()
    return masked(line, secrets)


def apply(data: bytes, edits: Iterable[Edit], base: int = 0) -> bytes:
    """`data` with the edits made, from the end on; one that overlaps a later one is left out."""
    done: int | None = None
    for edit in sorted(set(edits), key=lambda e: (e.place.start, e.place.end), reverse=True):
        if done is not None and edit.place.end > done:
            continue
        done = edit.place.start
        data = data[: edit.place.start - base] + edit.new.encode() + data[edit.place.end - base :]
    return data


def masked(line: str, secrets: Iterable[str]) -> str:
    """A line without the keys that are written in it."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        line = line.replace(secret, MASK)
    return _KEY_LIKE.sub(MASK, line)


def allowed(text: Text, place: Place, rule: str) -> bool:
    """Whether the line, or the line above it, says `lock: allow`, alone or with the names of rules."""
    start, end = text.line_at(place.start)
    above = text.data[text.line_at(start - 1)[0] : start] if start else b""
    lines = [text.data[start:end], above if above.lstrip().startswith((b"#", b"//", b";")) else b""]
    for line in lines:
        if match := re.search(rb"lock: allow((?:[ ,]+[a-z0-9-]+)*)", line):
            names = re.findall(r"[a-z0-9-]+", match[1].decode())
            if not names or rule in names:
                return True
    return False

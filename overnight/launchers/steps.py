"""The common language of launchers: what happens to an environment, in order, until a command is started in it.

Readers write programs of these steps; `follow` carries them out. No step
holds more than the file says: what cannot be known is a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

HOLE = "\0"
"""Stands in a text for whatever the file does not say."""


@dataclass(frozen=True, eq=False)
class Text:
    """A file's bytes, as every place in it counts them. `shown` is the path as messages print it."""

    path: Path
    shown: str
    data: bytes

    def line_of(self, start: int) -> int:
        return self.data.count(b"\n", 0, start) + 1

    def column_of(self, start: int) -> int:
        """Counted from 1, in characters."""
        return len(self.data[self.data.rfind(b"\n", 0, start) + 1 : start].decode("utf-8", "replace")) + 1

    def line_at(self, start: int) -> tuple[int, int]:
        """Where the line around `start` begins and ends, its line end not included."""
        end = self.data.find(b"\n", start)
        return self.data.rfind(b"\n", 0, start) + 1, len(self.data) if end < 0 else end


@dataclass(frozen=True)
class Place:
    """Bytes `start` to `end` of a file."""

    text: Text
    start: int
    end: int

    @property
    def raw(self) -> str:
        return self.text.data[self.start : self.end].decode("utf-8", "replace")

    @property
    def line(self) -> int:
        return self.text.line_of(self.start)


@dataclass(frozen=True)
class Ref:
    """The value of a variable, or `default` where the file names one."""

    name: str
    default: Value | None = None


@dataclass(frozen=True)
class Value:
    """Literal text, references and holes (None), side by side. `place` covers it, quotes included."""

    parts: tuple[str | Ref | None, ...]
    place: Place

    @property
    def literal(self) -> str | None:
        """The text, when there is nothing else in it."""
        texts = [part for part in self.parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(self.parts) else None


@dataclass(frozen=True)
class Set:
    """`name` becomes `value`. `empty` is how this kind of file writes the empty value in the place of `value`.

    `exported` None means: as it was before, which is what a plain assignment in
    a shell does. `only_default` sets nothing where something is set.
    """

    name: str
    value: Value
    place: Place
    exported: bool | None = True
    empty: str = '""'
    only_default: bool = False


@dataclass(frozen=True)
class Export:
    name: str
    on: bool = True


@dataclass(frozen=True)
class ExportAll:
    """From here on every assignment is exported, or none by itself."""

    on: bool


@dataclass(frozen=True)
class Unset:
    name: str
    place: Place


@dataclass(frozen=True)
class Dropped:
    """A line that looks like an assignment and is none, with the words that say why and how it would be one."""

    name: str
    place: Place
    why: str
    source: str
    fix: tuple[Place, str] | None


@dataclass(frozen=True)
class Clear:
    """Everything is gone: `env -i`, a dict made from nothing, sudo without -E."""

    place: Place


@dataclass(frozen=True)
class Login:
    """A shell that reads its profile before it does what it is asked."""

    place: Place


@dataclass(frozen=True)
class Source:
    """Another file's steps happen here. `missing_ok` never matters to us: a file we cannot find is unknown."""

    name: Value
    kind: str


@dataclass(frozen=True)
class Launch:
    """A command is started. `own` happens to its environment alone, before it starts."""

    words: tuple[Value, ...]
    place: Place
    own: Program = ()
    replaces: bool = False
    """The shell ends with it (exec)."""


@dataclass(frozen=True)
class Condition:
    """`subject` is `literal`, or is not. A test that is no comparison is its own text, which is "yes"."""

    subject: str
    literal: str = "yes"
    holds: bool = True


@dataclass(frozen=True)
class Choice:
    """One of the arms happens. Each is (condition, program); the same condition decides the same way twice.

    A None condition is "none of the others"; without such an arm it may be that nothing happens.
    """

    arms: tuple[tuple[Condition | None, Program], ...]


@dataclass(frozen=True)
class Scope:
    """What happens inside stays inside: a subshell, one job of a workflow."""

    program: Program


@dataclass(frozen=True)
class Define:
    name: str
    program: Program


@dataclass(frozen=True)
class End:
    """Nothing after this happens: exit, return."""


Step: TypeAlias = (
    Set | Export | ExportAll | Unset | Dropped | Clear | Login | Source | Launch | Choice | Scope | Define | End
)
Program: TypeAlias = Sequence[Step]


@dataclass(frozen=True)
class Script:
    """A whole launcher. `whole` is False when the reader lost its way in a part of it."""

    text: Text
    program: Program
    whole: bool = True
    expands: bool = field(default=True)
    """Whether a `$NAME` in a value of this file is ever replaced; systemd and workflows do not."""

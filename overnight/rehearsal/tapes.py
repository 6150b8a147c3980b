"""Tapes from a YAML file, so that anybody can rehearse a batch of their own.

tapes:
  - match: "Add a greeting"
    steps:
      - write: {path: greeting.txt, text: "hello\\n"}
      - shell: git add -A && git commit -qm "Add a greeting"
      - wait_s: 2
      - say: Added and committed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from overnight.failures import BadInput
from overnight.rehearsal.model import Say, Shell, Step, Tape, Wait, Write
from overnight.yamlfile import parse, read_text

_STRICT = ConfigDict(frozen=True, extra="forbid")


class _Write(BaseModel):
    model_config = _STRICT
    path: Annotated[str, Field(min_length=1)]
    text: str


class _Step(BaseModel):
    model_config = _STRICT
    write: _Write | None = None
    shell: str | None = None
    say: str | None = None
    wait_s: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_deed(self) -> _Step:
        if [self.write, self.shell, self.say, self.wait_s].count(None) != 3:
            raise ValueError("a step is exactly one of write, shell, say, wait_s")
        return self

    def step(self) -> Step:
        if self.write is not None:
            return Write(self.write.path, self.write.text)
        if self.shell is not None:
            return Shell(self.shell)
        if self.say is not None:
            return Say(self.say)
        return Wait(self.wait_s or 0)


class _Tape(BaseModel):
    model_config = _STRICT
    match: Annotated[str, Field(min_length=1)]
    steps: tuple[_Step, ...]


class _File(BaseModel):
    model_config = _STRICT
    tapes: tuple[_Tape, ...]


def load_tapes(path: Path) -> tuple[Tape, ...]:
    """Read a tape file.

    Raises:
        BadInput: the file cannot be read, is not YAML, or does not fit; the first fault is named.
    """
    try:
        written = _File.model_validate(parse(path, read_text(path)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadInput(str(path), field, first["msg"], "See overnight/rehearsal/tapes.py for the shape") from error
    return tuple(Tape(t.match, tuple(s.step() for s in t.steps)) for t in written.tapes)

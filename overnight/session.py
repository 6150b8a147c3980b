"""The conversation of an agent that a later attempt may go on with, and what became of that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from overnight.failures import FailureKind

# a UUID, or what agents make instead of one; it becomes an argument and a part of a file's name
_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{5,63}$"
SessionId = Annotated[str, Field(pattern=_ID)]


def session_id(told: str | None) -> str | None:
    """The id that an agent told of its session, when it can be one."""
    return told if told is not None and re.fullmatch(_ID, told) else None


@dataclass(frozen=True)
class Sessions:
    """How a harness keeps its sessions, so that another run can go on with one.

    `files` are globs below HOME, `{id}` being the session's. They are text that names
    the work tree by its whole path, and their own names may hold that path with
    other characters for some of its. `sums` are the lines, JSON objects, in which it keeps
    what the session used so far, each by dotted path and value: a copy without
    them makes it count the new run alone.
    """

    files: tuple[str, ...]
    sums: tuple[Mapping[str, str], ...] = ()


class Resumed(BaseModel):
    """What an attempt that was to go on with an earlier run's session came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="The earlier run")
    after: FailureKind = Field(description="What ended that run")
    session: SessionId | None = Field(None, description="The session it went on with; null when it began afresh")
    why: str = Field("", description="Why it began afresh")

    def __str__(self) -> str:
        if self.session is None:
            return f"began afresh, without the session of {self.run_id}: {self.why}"
        return f"went on with the session of {self.run_id} ({self.session}), in a copy of its work tree"

    def afresh(self, why: str) -> Resumed:
        return self.model_copy(update={"session": None, "why": why})


@dataclass(frozen=True)
class Resume:
    """The other way to start an attempt: `argv` goes on with the session that `what` names; empty when that is none."""

    what: Resumed
    argv: tuple[str, ...] = ()
    sessions: Sessions = Sessions(())

"""What the command line of a run is made from, and who makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from overnight.caps import TellsUsage
from overnight.lockfile import Header, Timing
from overnight.session import Sessions


@dataclass(frozen=True)
class Launch:
    """What an argv is made from. `flags` come from the lock, harness's first, then the provider's.

    `max_usd` and `max_turns` are None for no cap. `executable` is the absolute
    path of the command on the host, or its bare name while that is not known.
    `base_url`, `header` and `timing` are for a harness that has to be told in a
    file what others read from their environment.
    The working directory is a sibling of HOME, so a file of `home_files` is
    `../home/NAME`. With `keeps` the session is kept for a later run, `session` is
    the id of one that is there already and gone on with.
    """

    executable: str
    instruction: str
    model: str
    flags: tuple[str, ...] = ()
    max_usd: float | None = None
    max_turns: int | None = None
    base_url: str = ""
    header: Header | None = None
    timing: Timing | None = None
    keeps: bool = False
    session: str | None = None


class Launcher(Protocol):
    """The part of a harness that a plan needs."""

    NAME: str
    COMMAND: str
    """The executable looked for on the host's path."""
    HEADER_OF: Mapping[str, Header]
    """Which wire header each credential variable produces."""
    CAPS: frozenset[str]
    """Which of the limits `max_usd` and `max_turns` it honours."""
    TELLS_USAGE: TellsUsage
    """When it says what it used: whether a cap can be watched from outside, and a cost be reckoned."""
    SESSIONS: Sessions | str
    """How it keeps what a later run can go on with; or why none can."""

    def argv(self, launch: Launch) -> tuple[str, ...]:
        """The command line of a run, or of one that goes on with `launch.session`.

        The instruction is one argument that cannot be taken for a flag.
        """
        ...

    def probe_argv(self, launch: Launch) -> tuple[str, ...]:
        """The command line of a probe: same program, same flags, one short answer, no tools."""
        ...

    def home_files(self, launch: Launch) -> dict[str, str]:
        """Files the harness needs under HOME, by relative path. Never a secret."""
        ...

"""What a harness must provide. A module that has these names is one, and so is a file that declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from overnight.caps import TellsUsage
from overnight.events import AgentEvent
from overnight.failures import Failure
from overnight.launch import Launch
from overnight.lockfile import ErrorRule, Header
from overnight.session import Sessions
from overnight.transcript import Transcript

__all__ = ["Harness", "Launch", "Reader"]


class Reader(Protocol):
    """Turns one run's output into agent events. Keeps the unfinished last line between calls."""

    def feed(self, stream: Literal["out", "err"], data: bytes) -> list[AgentEvent]:
        """Events of every line completed by `data`. A line that cannot be read is an OTHER event, never an error."""
        ...


class Harness(Protocol):
    """An agent's command line: a module that has these names, or a file read by `declared`."""

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

    def version_argv(self, executable: str) -> tuple[str, ...]: ...

    def read_version(self, output: str) -> str | None:
        """The version in the output of `version_argv`, or None when there is none."""
        ...

    def home_files(self, launch: Launch) -> dict[str, str]:
        """Files the harness needs under HOME, by relative path. Never a secret."""
        ...

    def reader(self) -> Reader: ...

    def diagnose(self, transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
        """What the harness's own words prove went wrong, from a finished or running transcript.

        `names` (provider, harness, host, model) fill the remedy. None means the
        harness reported no fault, which is not a promise of success: commits decide.
        """
        ...

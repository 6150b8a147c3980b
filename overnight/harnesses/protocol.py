"""What a harness must provide. A module that has these names is one, and so is a file that declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from overnight.events import AgentEvent
from overnight.failures import Failure
from overnight.launch import Launch, Launcher
from overnight.lockfile import ErrorRule
from overnight.transcript import Transcript

__all__ = ["Harness", "Launch", "Reader"]


class Reader(Protocol):
    """Turns one run's output into agent events. Keeps the unfinished last line between calls."""

    def feed(self, stream: Literal["out", "err"], data: bytes) -> list[AgentEvent]:
        """Events of every line completed by `data`. A line that cannot be read is an OTHER event, never an error."""
        ...


class Harness(Launcher, Protocol):
    """An agent's command line: a module that has these names, or a file read by `declared`."""

    def version_argv(self, executable: str) -> tuple[str, ...]: ...

    def read_version(self, output: str) -> str | None:
        """The version in the output of `version_argv`, or None when there is none."""
        ...

    def reader(self) -> Reader: ...

    def diagnose(self, transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str]) -> Failure | None:
        """What the harness's own words prove went wrong, from a finished or running transcript.

        `names` (provider, harness, host, model) fill the remedy. None means the
        harness reported no fault, which is not a promise of success: commits decide.
        """
        ...

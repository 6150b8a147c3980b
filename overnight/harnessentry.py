"""What the lock says of a harness, whatever the provider."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from overnight.facts import Entry, Fact, VariableName


class Timing(Entry):
    """How long the harness itself waits for the provider before it says so.

    The longest honest silence is `request_timeout_s * (retries + 1) + backoff_s`.
    """

    request_timeout_s: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]
    backoff_s: Annotated[float, Field(ge=0)]

    @property
    def longest_s(self) -> float:
        return self.request_timeout_s * (self.retries + 1) + self.backoff_s


class Version(Fact):
    """`hangs_with` are flags and variables with which this version never comes to its first request."""

    status: Literal["good", "bad"]
    note: str = ""
    hangs_with: tuple[str, ...] = ()


class ProbeMode(Entry):
    """What differs when the harness is started as a probe: flags added, waits shortened, wall limit."""

    flags: tuple[str, ...] = ()
    env: dict[VariableName, str] = Field({}, description="Instead of the harness's own")
    timing: Timing
    total_s: float


class Note(Fact):
    """What a flag or a variable does, as far as it matters here."""

    what: str = Field(min_length=1)


class Range(Fact):
    """The values of a variable that work. Outside them it is refused, floored, capped or ignored, as `what` says."""

    least: float | None = None
    most: float | None = None
    unit: Literal["ms", "s", "times"]
    what: str = Field(min_length=1)


class Stdin(Fact):
    """What standard input has to be, and what becomes of a run that is given another one."""

    must_be: Literal["closed", "any"]
    otherwise: str = Field(description="What happens when it stays open")


class Shadow(Fact):
    """A place outside the environment from which the harness takes names or credentials that nobody gave it."""

    carries: tuple[str, ...] = Field(description="Names, or what kind of thing, it can bring")
    wins: Literal["over-environment", "when-missing", "adds", "unverified"]
    stopped_by: str = Field(description="What makes the harness ignore it; empty where nothing is known to")


class HarnessEntry(Fact):
    """What holds for a harness whatever the provider.

    `env` values and `flags` may hold `{base_url}`, `{model}`, `{request_timeout_ms}`,
    `{request_timeout_s}` and `{retries}`. `timing` is None for a harness that cannot be told how long to wait.
    `shadows` are by path: `~/` is the user's home, `./` the repository worked on.
    """

    versions: dict[str, Version]
    flags: tuple[str, ...] = ()
    env: dict[VariableName, str] = Field({}, description="Set whatever the provider")
    absent: dict[VariableName, str] = Field({}, description="Must not exist, each with the reason")
    minimal: tuple[str, ...] = Field((), description="Flags with which it starts with the least of its own")
    timing: Timing | None = None
    probe: ProbeMode
    notes: dict[str, Note] = Field({}, description="By flag or variable: what it does")
    ranges: dict[VariableName, Range] = Field({}, description="By variable: the values that work")
    stdin: Stdin | None = None
    shadows: dict[str, Shadow] = Field({}, description="By path: what it brings from outside the environment")

"""Tell a run that is slow from a run that is stuck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.spec import Limits


@dataclass(frozen=True)
class Progress:
    """Counters of a run as of now. Ages in seconds on the host's boot clock, so a suspended laptop does not age a run.

    `quiet_s` is None before the first event. `cpu_s` and `processes` are shown
    in the evidence and never decide: an agent waiting on a provider is idle
    and healthy.
    """

    age_s: float
    quiet_s: float | None
    unchanged_s: float | None
    last_event: str = ""
    cpu_s: float = 0.0
    processes: int = 0


@dataclass(frozen=True)
class Silence:
    """The clock that ran out, with its reading."""

    clock: Literal["first_event_s", "quiet_s", "no_change_s"]
    reading_s: float
    limit_s: float
    progress: Progress

    @property
    def kind(self) -> FailureKind:
        return {
            "first_event_s": FailureKind.SILENT_START,
            "quiet_s": FailureKind.WENT_QUIET,
            "no_change_s": FailureKind.NO_CHANGE,
        }[self.clock]

    def failure(self, names: Mapping[str, str]) -> Failure:
        return fail(self.kind, *self.evidence(), names=names)

    def evidence(self) -> tuple[Evidence, ...]:
        p = self.progress
        last = f"last event: {p.last_event}" if p.last_event else "no event at all"
        ran_out = f"{self.clock} {self.limit_s:g} ran out at {self.reading_s:.0f} s; {last}"
        return (
            Evidence(source="clock", seen=ran_out, at_s=p.age_s),
            Evidence(source="host", seen=f"{p.processes} processes, {p.cpu_s:.1f} s CPU so far", at_s=p.age_s),
        )


def judge(progress: Progress, limits: Limits) -> Silence | None:
    """The first clock that ran out, or None while the run deserves more time. None is not a promise of success.

    Looks at three clocks in this order: time to the first event, time since
    the last event, time since the work tree last changed.

    Args:
        progress: Counters as of now.
        limits: `first_event_s`, `quiet_s`, `no_change_s`; None switches a clock off.
    """
    if progress.quiet_s is None:
        if limits.first_event_s is not None and progress.age_s > limits.first_event_s:
            return Silence("first_event_s", progress.age_s, limits.first_event_s, progress)
        return None
    if limits.quiet_s is not None and progress.quiet_s > limits.quiet_s:
        return Silence("quiet_s", progress.quiet_s, limits.quiet_s, progress)
    unchanged = progress.unchanged_s
    if limits.no_change_s is not None and unchanged is not None and unchanged > limits.no_change_s:
        return Silence("no_change_s", unchanged, limits.no_change_s, progress)
    return None

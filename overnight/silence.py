"""Tell a run that is slow from a run that is stuck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from overnight.events import Act
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.spec import Limits
from overnight.transcript import Transcript

LINGER_S = 60.0
"""So long a process may live in silence after its verdict. Claude Code 2.1.330 gave a second one 30 s later."""

LOOP_CALLS = 5
"""So many equal calls with equal results, one after the other, are a loop."""

Clock = Literal["first_event_s", "quiet_s", "turn_s", "no_change_s", "linger_s"]
_KINDS = {
    "first_event_s": FailureKind.SILENT_START,
    "quiet_s": FailureKind.WENT_QUIET,
    "turn_s": FailureKind.PROVIDER_MUTE,
    "no_change_s": FailureKind.NO_CHANGE,
}


@dataclass(frozen=True)
class Progress:
    """Counters of a run as of now. Ages in seconds on the host's boot clock, so a suspended laptop does not age a run.

    `quiet_s` is None before the first event. `answer_s` is how long the model
    has been at its answer, None while it is not its turn. `done` says that the
    harness has given its verdict. `cpu_s` and `processes` are shown in the
    evidence and never decide: an agent waiting on a provider is idle and healthy.
    """

    age_s: float
    quiet_s: float | None
    unchanged_s: float | None
    last_event: str = ""
    cpu_s: float = 0.0
    processes: int = 0
    answer_s: float | None = None
    done: bool = False


@dataclass(frozen=True)
class Silence:
    """The clock that ran out, with its reading."""

    clock: Clock
    reading_s: float
    limit_s: float
    progress: Progress

    @property
    def kind(self) -> FailureKind:
        """What it is called when nobody finds out more; a process that lingers after its verdict has no failure."""
        return _KINDS.get(self.clock, FailureKind.UNKNOWN)

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

    Looks at the clocks in this order: time to the first event, time since the
    verdict, time since the last event, time the model takes for one answer,
    time since the work tree last changed.

    Args:
        progress: Counters as of now.
        limits: `first_event_s`, `quiet_s`, `turn_s`, `no_change_s`; None switches a clock off.
    """
    if progress.quiet_s is None:
        return _ran_out("first_event_s", progress.age_s, limits.first_event_s, progress)
    if progress.done:
        return _ran_out("linger_s", progress.quiet_s, LINGER_S, progress)
    return (
        _ran_out("quiet_s", progress.quiet_s, limits.quiet_s, progress)
        or _ran_out("turn_s", progress.answer_s, limits.turn_s, progress)
        or _ran_out("no_change_s", progress.unchanged_s, limits.no_change_s, progress)
    )


def _ran_out(clock: Clock, reading_s: float | None, limit_s: float | None, progress: Progress) -> Silence | None:
    if limit_s is None or reading_s is None or reading_s <= limit_s:
        return None
    return Silence(clock, reading_s, limit_s, progress)


def repeated(transcript: Transcript) -> Evidence | None:
    """The call that the agent went on making with the same result until the end, when it did so LOOP_CALLS times."""
    calls: list[tuple[str | None, str | None, str | None]] = []
    at_s = 0.0
    for said in transcript.said:
        event = said.event
        if event.act is Act.TOOL_STARTED:
            calls.append((event.tool, event.print, None))
        elif event.act is Act.TOOL_ENDED and calls:
            tool, asked, _ = calls[-1]
            calls[-1], at_s = (tool, asked, event.print), said.at_s
    ended = [call for call in calls if None not in call[1:]]
    same = list(takewhile(lambda call: call == ended[-1], reversed(ended))) if ended else []
    if len(same) < LOOP_CALLS:
        return None
    seen = f"the same call of {same[0][0]} with the same result {len(same)} times in a row, to the end"
    return Evidence(source="event", seen=seen, at_s=at_s)

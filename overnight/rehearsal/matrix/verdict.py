"""Truth against verdict: what a cell came to, and what all of them come to together."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from overnight.failures import Failure, FailureKind
from overnight.rehearsal.matrix.case import Case

Score = Literal["right", "unknown", "wrong", "skipped"]

# true of the clock, and of nothing else: whoever is told one of these still has to find out
_NAMELESS = frozenset(
    {
        FailureKind.UNKNOWN,
        FailureKind.WENT_QUIET,
        FailureKind.SILENT_START,
        FailureKind.NO_CHANGE,
        FailureKind.TIME_LIMIT,
    }
)
# says nothing of a failed try until it has given up
_KEEPS_QUIET = frozenset({"goose", "qwen"})

UNKNOWN_SHARE = 0.03
UNSTEADY_SHARE = 0.02
WIRE_S = 2.0
SILENCE_S = 20.0
_RAN_OUT = re.compile(r"clock: (?:first_event_s|quiet_s|turn_s) (?P<limit>[\d.]+) ran out at (?P<reading>[\d.]+) s")


@dataclass(frozen=True)
class Result:
    """One cell.

    Args:
        verdict: The kind, or `succeeded`; empty for a cell that was skipped.
        evidence: Every sighting, strongest first.
        shown: Whether the evidence holds what it must; None when nothing is asked for.
        sign_s: Seconds from the start of the run to the first sign of the fault.
        to_verdict_s: Seconds from that sign to the moment the cause was known; None for a success.
        late_s: Seconds by which that was after the agent itself had ended; negative when we ended it.
        seconds: To the end of everything, commits at home.
        over_s: Seconds past its limit that a clock showed when we ended the run for it; None when we did not.
        first: What a first run of the cell was named, where this is a second one; None for a cell that ran once.
    """

    case: str
    says: str
    harness: str
    truth: tuple[str, ...]
    score: Score
    verdict: str
    evidence: tuple[str, ...] = ()
    shown: bool | None = None
    silent: bool = False
    on_the_wire: bool = False
    sign_s: float | None = None
    to_verdict_s: float | None = None
    late_s: float | None = None
    seconds: float = 0.0
    over_s: float | None = None
    first: str | None = None
    version: str | None = None
    log: str = ""

    @property
    def brief(self) -> str:
        return self.evidence[0] if self.evidence else ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """All cells together. Shares and times are of the cells that were not skipped.

    `wire_s` is the median from the first sign on the wire to the verdict, of agents that report what they meet.
    """

    cells: int
    right: int
    unknown: int
    wrong: int
    skipped: int
    unsteady: int
    median_s: float | None
    p90_s: float | None
    wire_s: float | None
    missed: tuple[str, ...]

    @property
    def words(self) -> str:
        times = (
            "" if self.median_s is None else f"; to the verdict {self.median_s:.1f} s median, {self.p90_s:.1f} s p90"
        )
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        unsteady = f" ({self.unsteady} of them in a second run)" if self.unsteady else ""
        names = f"{self.right} right{unsteady}, {self.unknown} unknown, {self.wrong} wrong"
        wire = "" if self.wire_s is None else f"; {self.wire_s:.1f} s median for what agents report from the wire"
        return f"{self.cells} cells: {names}{skipped}{times}{wire}"


def score(case: Case, harness: str, failure: Failure | None) -> Score:
    """Whether that was the right name; None is a success."""
    truth = case.truth_for(harness)
    if failure is None:
        return "right" if case.spared or not truth else "wrong"
    if failure.kind in truth:
        return "right"
    return "unknown" if failure.kind in _NAMELESS and truth else "wrong"


def shown(case: Case, failure: Failure | None) -> bool | None:
    """Whether the evidence names what it must; None where nothing is asked of this kind."""
    if not case.shown or failure is None or failure.kind not in case.truth:
        return None
    return re.search(case.shown, "\n".join(map(str, failure.evidence)), re.IGNORECASE) is not None


def totals(results: Sequence[Result], *, complete: bool = False) -> Totals:
    """The sums, and every part of the bar that is missed.

    Args:
        complete: A cell that was skipped is a miss.
    """
    ran = [r for r in results if r.score != "skipped"]
    counts = Counter(r.score for r in results)
    times = [r.to_verdict_s for r in ran if r.to_verdict_s is not None]
    missed = [*_names(ran, counts), *_times(ran), *_silences(ran)]
    if complete and counts["skipped"]:
        missed.append(f"{counts['skipped']} cells could not be run here")
    return Totals(
        cells=len(results),
        right=counts["right"],
        unknown=counts["unknown"],
        wrong=counts["wrong"],
        skipped=counts["skipped"],
        unsteady=sum(r.first is not None for r in ran),
        median_s=round(statistics.median(times), 2) if times else None,
        p90_s=round(quantile(times, 0.9), 2) if times else None,
        wire_s=round(statistics.median(telling), 2) if (telling := _telling(ran)) else None,
        missed=tuple(missed),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def over(evidence: Sequence[str]) -> float | None:
    """By how much a clock had run out, as the evidence tells; None where it tells of none."""
    found = next(filter(None, map(_RAN_OUT.match, evidence)), None)
    return float(found["reading"]) - float(found["limit"]) if found else None


def misses(result: Result) -> bool:
    """Whether this cell by itself misses the bar."""
    return result.score in ("wrong", "unknown") or result.shown is False or _late(result)


def _late(result: Result) -> bool:
    """A silence counts from the last event; an agent that no clock had ended is held to its own end."""
    late_s = result.late_s if result.over_s is None else result.over_s
    return result.silent and (late_s or 0) > SILENCE_S


def _names(ran: Sequence[Result], counts: Counter[Score]) -> Iterable[str]:
    if counts["wrong"]:
        yield f"{counts['wrong']} wrong, the bar is 0"
    if ran and counts["unknown"] > UNKNOWN_SHARE * len(ran):
        yield f"{counts['unknown']} unknown of {len(ran)}, the bar is {UNKNOWN_SHARE:.0%}"
    unsteady = [r for r in ran if r.first is not None]
    if ran and len(unsteady) > UNSTEADY_SHARE * len(ran):
        yield f"{len(unsteady)} of {len(ran)} right in a second run only, the bar is {UNSTEADY_SHARE:.0%}"


def _times(ran: Sequence[Result]) -> Iterable[str]:
    """For failures that show on the wire, and were named."""
    named = [r for r in ran if _on_the_wire(r)]
    telling = _telling(ran)
    if telling and (median := statistics.median(telling)) > WIRE_S:
        yield f"{median:.1f} s median from the first sign to the verdict, the bar is {WIRE_S:g} s"
    quiet = [r.late_s for r in named if r.harness in _KEEPS_QUIET and r.late_s is not None]
    if quiet and (median := statistics.median(quiet)) > WIRE_S:
        yield f"{median:.1f} s median from an agent's own end to the verdict, the bar is {WIRE_S:g} s"


def _on_the_wire(result: Result) -> bool:
    return result.on_the_wire and not result.silent and result.score == "right" and result.to_verdict_s is not None


def _telling(ran: Sequence[Result]) -> list[float]:
    """Seconds to the verdict for what shows on the wire, of agents that report what they meet."""
    return [r.to_verdict_s or 0.0 for r in ran if _on_the_wire(r) and r.harness not in _KEEPS_QUIET]


def _silences(ran: Sequence[Result]) -> Iterable[str]:
    late = [r for r in ran if _late(r)]
    if late:
        yield f"{len(late)} silences named later than {SILENCE_S:g} s after the limit: {_list(late)}"
    bare = [r for r in ran if r.shown is False and r.score == "right"]
    if bare:
        yield f"{len(bare)} named without the sighting that proves it: {_list(bare)}"


def _list(results: Sequence[Result]) -> str:
    return ", ".join(f"{r.harness} {r.case}" for r in results)

"""Nights in a row: how each ended, by who must act, and what was seen for the first time; from reports alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from overnight import past
from overnight.attribution import attributed
from overnight.failures import Failure, FailureKind, Family
from overnight.ledger import Ledger
from overnight.report import BatchReport, RunReport, Share, last_attempts
from overnight.route import Route

_HOST = frozenset({Family.HOST, Family.NETWORK})
_ACCOUNT = frozenset({Family.AUTH, Family.QUOTA, Family.PROVIDER, Family.SETUP})
# what these say differs from run to run, so it would make every night new
_WORDY = frozenset({Family.WORK, Family.STALL, Family.OURS, Family.UNKNOWN})
_VARIES = re.compile(
    r"""
    \d{4}-\d\d-\d\d[T ]?[\d:.]*Z?       # a moment
    | \b(?=[a-f-]*\d)[0-9a-f-]{8,}\b     # an id or a hash
    | \breq_?\w+                         # a request's id
    | (?<![\w:/])/[^\s,;:'"]+             # a path
    | \d+\.\d+ | \b\d{5,}\b             # seconds, sizes
    """,
    re.VERBOSE,
)
_LETTERS = 100


@dataclass(frozen=True)
class Night:
    """One batch. `causes` counts the tasks that did not succeed, by kind; `judged` is without infrastructure's."""

    batch_id: str
    name: str
    started_at: datetime
    tasks: int
    raw: Share
    judged: Share
    causes: dict[FailureKind, int]
    families: dict[Family, int]


@dataclass(frozen=True)
class Signature:
    """One way to fail at one place, as it is known again.

    `route` is where it was seen last. `new`: it was first seen in one of the
    nights that are told of, and not in the first night of all.
    """

    words: str
    kind: FailureKind
    first_at: datetime
    first_batch: str
    last_at: datetime
    nights: int
    tasks: int
    route: Route
    new: bool = False


@dataclass(frozen=True)
class History:
    """The newest nights, oldest first, and what failed in them, newest signature first."""

    nights: tuple[Night, ...]
    signatures: tuple[Signature, ...]
    earlier: int

    def to_json(self) -> dict[str, Any]:
        nights = [
            {**asdict(night), **{each: getattr(night, each).model_dump() for each in ("raw", "judged")}}
            for night in self.nights
        ]
        signatures = [{**asdict(each), "route": each.route.model_dump()} for each in self.signatures]
        return {"schema": 1, "nights": nights, "signatures": signatures, "earlier_nights": self.earlier}


def history(state: Path, newest: int, name: str = "") -> History:
    """What the state directory knows of its nights. A batch without a report yet is left out.

    Args:
        newest: So many nights are told of; those before are only looked at for what is not new.
        name: Batches of this name alone.
    """
    found = [report for ledger in past.ledgers(state) if (report := _report(ledger)) and name in ("", report.name)]
    return told(sorted(found, key=lambda report: report.started_at), newest)


def told(reports: Sequence[BatchReport], newest: int) -> History:
    """The same from reports, oldest first."""
    shown = reports[-newest:]
    sightings: dict[str, list[tuple[BatchReport, RunReport, Failure]]] = {}
    for report in reports:
        for run in last_attempts(report.runs):
            if run.failure is not None and run.state != "succeeded":
                sightings.setdefault(signature(run, run.failure), []).append((report, run, run.failure))
    begins = shown[0].started_at if shown else None
    known = [_signature(words, seen) for words, seen in sightings.items()]
    lately = [each for each in known if begins is not None and each.last_at >= begins]
    return History(
        nights=tuple(map(_night, shown)),
        signatures=tuple(
            replace(each, new=begins is not None and each.first_at >= begins and each.first_at > reports[0].started_at)
            for each in sorted(lately, key=lambda each: (each.first_at, each.tasks), reverse=True)
        ),
        earlier=len(reports) - len(shown),
    )


def signature(run: RunReport, failure: Failure) -> str:
    """`disk-full on box: ...`: the kind, where it belongs, and what was seen without all that differs every time."""
    if failure.family in _HOST:
        place = f"on {run.host}"
    elif failure.family in _ACCOUNT:
        place = f"of {run.provider} with {run.harness}"
    else:
        place = f"of {run.harness} with {run.model}"
    if failure.family in _WORDY or not failure.evidence:
        return f"{failure.kind} {place}"
    return f"{failure.kind} {place}: {_VARIES.sub('#', failure.evidence[0].seen)[:_LETTERS]}"


def _report(ledger: Ledger) -> BatchReport | None:
    """The report of a whole batch; a part of one that was spread stands in the whole one's."""
    return past.report(ledger) if ledger.directory.parent.name == "batches" else None


def _night(report: BatchReport) -> Night:
    rates = report.attribution or attributed(report.runs)
    failures = [run.failure for run in last_attempts(report.runs) if run.failure and run.state != "succeeded"]
    return Night(
        batch_id=report.batch_id,
        name=report.name,
        started_at=report.started_at,
        tasks=sum(report.counts.values()),
        raw=rates.raw,
        judged=rates.judged,
        causes=dict(Counter(failure.kind for failure in failures).most_common()),
        families=dict(Counter(failure.family for failure in failures).most_common()),
    )


def _signature(words: str, seen: Sequence[tuple[BatchReport, RunReport, Failure]]) -> Signature:
    first, last = seen[0][0], seen[-1][0]
    return Signature(
        words=words,
        kind=seen[0][2].kind,
        first_at=first.started_at,
        first_batch=first.batch_id,
        last_at=last.started_at,
        nights=len({report.batch_id for report, _, _ in seen}),
        tasks=len(seen),
        route=seen[-1][1].route,
    )

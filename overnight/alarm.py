"""It partly works: whether a night's failures follow something other than the model.

One attempt a task is counted, since the tries of one task are no strangers to
each other: the first, before any retry or detour could hide what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from overnight.attribution import is_aside
from overnight.exact import holm, independence
from overnight.failures import Family
from overnight.report import Alarm, RunReport, Split, last_attempts

LEVEL = 0.05
FACTORS: dict[str, Callable[[RunReport], str | None]] = {
    "host": lambda run: run.host,
    "CLI version": lambda run: f"{run.harness} {run.harness_version}" if run.harness_version else None,
    "route": lambda run: str(run.route),
    "key": lambda run: f"{run.credential} of {run.provider}" if run.credential else None,
    "environment": lambda run: run.environment,
    "repository": lambda run: run.origin,
    "hour": lambda run: f"{run.started_at:%H}:00 UTC" if run.started_at else None,
}
"""In the order in which they are named where no run tells them apart."""


@dataclass(frozen=True)
class _Test:
    """One factor held against success. `partition` says which runs share a value, whatever it is called."""

    factor: str
    runs: tuple[RunReport, ...]
    values: tuple[str, ...]
    partition: tuple[tuple[str, int], ...]
    unexplained_only: bool

    def split(self, p: float, together: Sequence[_Test]) -> Split:
        worst = self._worst()
        inside = [run for run, value in zip(self.runs, self.values, strict=True) if value in worst]
        return Split(
            factor=self.factor,
            values=worst,
            failures_inside=sum(map(_failed, inside)),
            failures=sum(map(_failed, self.runs)),
            successes_inside=sum(not _failed(run) for run in inside),
            successes=sum(not _failed(run) for run in self.runs),
            p=p,
            together=(*(f"{test.factor} {', '.join(test._worst())}" for test in together), *self._models(worst)),
            unexplained_only=self.unexplained_only,
        )

    def _models(self, worst: Sequence[str]) -> list[str]:
        """The models that only the runs inside had; empty where one of them also ran outside."""
        inside, outside = (
            {f"{r.model} of {r.provider}" for r, v in zip(self.runs, self.values, strict=True) if (v in worst) is here}
            for here in (True, False)
        )
        return [] if inside & outside else [f"model {', '.join(sorted(inside))}"]

    def chances(self) -> tuple[float, float]:
        counts = self._counts()
        return independence([n for n, _ in counts.values()], [failed for _, failed in counts.values()])

    def _counts(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for run, value in zip(self.runs, self.values, strict=True):
            n, failed = found.get(value, (0, 0))
            found[value] = (n + 1, failed + _failed(run))
        return found

    def _worst(self) -> tuple[str, ...]:
        """The values at which more fail than on the whole."""
        average = sum(map(_failed, self.runs)) / len(self.runs)
        return tuple(sorted(value for value, (n, failed) in self._counts().items() if failed / n > average))


def sounded(runs: Sequence[RunReport]) -> Alarm | None:
    """Look for a factor that splits success from failure; None when there is nothing mixed to look at.

    Failures with a proven cause of their own may hide what ails the rest, so
    the rest is looked at alone, too. Tests that no run tells apart are one
    test. All tests together are wrong in at most 5 of 100 nights without a cause.
    """
    kind, sample = _sample(runs)
    if kind is None:
        return None
    rest = [run for run in sample if not is_aside(run)]
    looks = [(sample, False), *([(rest, True)] if len(rest) < len(sample) and _mixed(rest) else [])]
    tests = [test for found, only in looks for name in FACTORS for test in _test(name, found, only)]
    distinct: dict[tuple[tuple[str, int], ...], list[_Test]] = {}
    for test in tests:
        distinct.setdefault(test.partition, []).append(test)
    groups = list(distinct.values())
    chances = [first.chances() for first, *_ in groups]
    corrected = holm([p for p, _ in chances])
    splits = [
        first.split(p, [other for other in others if other.factor != first.factor])
        for (first, *others), p in zip(groups, corrected, strict=True)
        if p <= LEVEL
    ]
    tested = {test.factor for test in tests}
    return Alarm(
        attempts=kind,
        successes=sum(not _failed(run) for run in sample),
        failures=sum(map(_failed, sample)),
        explained=sum(map(is_aside, sample)),
        tested=tuple(name for name in FACTORS if name in tested),
        same=tuple(name for name in FACTORS if name not in tested),
        can_tell=any(least * len(chances) <= LEVEL for _, least in chances),
        smallest_p=min(corrected, default=None),
        # a route is its host and more: by chance it may split better, and still the host is what to look at
        splits=tuple(sorted(splits, key=lambda split: (split.factor == "route", split.p))),
    )


def _sample(runs: Sequence[RunReport]) -> tuple[Literal["first", "last"] | None, list[RunReport]]:
    """One attempt of each task that can be judged: its first, or where those all ended alike, its last."""
    ran = [run for run in runs if run.attempt and run.state in ("succeeded", "failed", "lost") and not _stopped(run)]
    firsts, lasts = last_attempts(ran[::-1])[::-1], last_attempts(ran)
    if _mixed(firsts):
        return "first", firsts
    return ("last", lasts) if _mixed(lasts) else (None, [])


def _test(name: str, runs: Sequence[RunReport], unexplained_only: bool) -> list[_Test]:
    """The test of one factor, over the runs of which its value is known; none when those are alike."""
    known = [(run, value) for run in runs if (value := FACTORS[name](run)) is not None]
    values = tuple(value for _, value in known)
    firsts = {value: values.index(value) for value in values}
    found = tuple(run for run, _ in known)
    if len(firsts) < 2 or not _mixed(found):
        return []
    partition = tuple((run.task_id, firsts[value]) for run, value in known)
    return [_Test(name, found, values, partition, unexplained_only)]


def _mixed(runs: Sequence[RunReport]) -> bool:
    return 0 < sum(map(_failed, runs)) < len(runs)


def _failed(run: RunReport) -> bool:
    return run.state != "succeeded"


def _stopped(run: RunReport) -> bool:
    """Whether it says nothing: it goes on, or we are the ones who ended or lost it."""
    return run.left_running or (run.failure is not None and run.failure.family is Family.OURS)

"""Whose success rate it is: tasks counted with and without what was proven not to be the model's doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from overnight.exact import share
from overnight.failures import Family
from overnight.report import Attribution, RunReport, Share, Slice, last_attempts

ASIDE = frozenset(
    {
        Family.AUTH,
        Family.SETUP,
        Family.QUOTA,
        Family.PROVIDER,
        Family.NETWORK,
        Family.HOST,
        Family.HARNESS,
        Family.OURS,  # a task that somebody stopped says nothing of a model either
    }
)
_By = Literal["provider", "host", "harness", "model"]
_SLICES: dict[_By, Callable[[RunReport], str]] = {
    "provider": lambda run: run.provider,
    "host": lambda run: run.host,
    "harness": lambda run: f"{run.harness} {run.harness_version or '(version unknown)'}",
    "model": lambda run: f"{run.model} of {run.provider}",
}


def is_aside(run: RunReport) -> bool:
    """Whether it failed of something that is proven, and is neither the model's nor the instruction's.

    A failure keeps such a name only with a sighting that proves it, so its family is enough.
    """
    return run.failure is not None and run.state != "succeeded" and run.failure.family in ASIDE


def attributed(runs: Sequence[RunReport]) -> Attribution:
    """The rates of a batch, as a whole and by provider, host, harness version and model."""
    last = [run for run in last_attempts(runs) if not run.left_running]
    aside = Counter(run.failure.family for run in last if run.failure and is_aside(run))
    slices = [
        Slice(by=by, name=name, raw=_raw(found), judged=_judged(found))
        for by, named in _SLICES.items()
        for name, found in _grouped(last, named).items()
    ]
    return Attribution(
        raw=_raw(last),
        judged=_judged(last),
        failures=sum(run.state != "succeeded" for run in last),
        aside=dict(aside.most_common()),
        unknown=sum(bool(run.failure and run.failure.family is Family.UNKNOWN) for run in last),
        slices=tuple(slices),
    )


def _grouped(runs: Sequence[RunReport], named: Callable[[RunReport], str]) -> dict[str, list[RunReport]]:
    found: dict[str, list[RunReport]] = {}
    for run in runs:
        found.setdefault(named(run), []).append(run)
    return found


def _raw(runs: Sequence[RunReport]) -> Share:
    return share(sum(run.state == "succeeded" for run in runs), len(runs))


def _judged(runs: Sequence[RunReport]) -> Share:
    return _raw([run for run in runs if not is_aside(run)])

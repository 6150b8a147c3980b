"""When each attempt of a task waited, began, spoke, was quiet, tried again and ended; for drawing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from overnight.report import RunReport

Part = Literal["queue", "start", "run", "quiet", "collect", "verify"]
Sort = Literal["event", "retry", "trouble", "commit"]
_QUIET_S, _QUIET_SHARE = 30.0, 0.1
_MARKS = 300  # as many as can be told apart on a screen
_SORTS: Mapping[str, Sort] = {"retry": "retry", "error": "trouble", "permission denied": "trouble", "commit": "commit"}


@dataclass(frozen=True)
class Mark:
    """One thing the agent said, in seconds since its run began."""

    at_s: float
    said: str
    sort: Sort


@dataclass(frozen=True)
class Bar:
    """A stretch of an attempt, in seconds since the task was first due."""

    part: Part
    from_s: float
    to_s: float

    @property
    def seconds(self) -> float:
        return self.to_s - self.from_s


@dataclass(frozen=True)
class Lane:
    """One attempt. `marks` are in the task's seconds, as the bars are."""

    run: RunReport
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]

    @property
    def end_s(self) -> float:
        return max((bar.to_s for bar in self.bars), default=0.0)


def marks(path: Path) -> list[Mark]:
    """What the event log of a run holds; lines that a crash tore, and a log that is not here, tell nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return list(_marks(text))


def lanes(runs: Sequence[RunReport], said: Mapping[str, Sequence[Mark]]) -> list[Lane]:
    """The attempts of one task on one axis, first to last.

    Args:
        said: Marks of each run by its id.
    """
    found: list[Lane] = []
    for run in runs:
        before = found[-1].end_s if found else 0.0
        found.append(_lane(run, said.get(run.run_id, ()), before))
    return found


def _lane(run: RunReport, said: Sequence[Mark], before: float) -> Lane:
    """The wait is counted from when the task was first due, so it covers earlier attempts; not so after a resume."""
    spent = run.seconds
    at = max(spent.queued or 0.0, before)
    bars = [Bar("queue", before, at)]
    begun = at + (spent.start or 0.0)
    bars.append(Bar("start", at, begun))
    ended = begun + (spent.run or 0.0)
    bars.append(Bar("run", begun, ended))
    bars += [Bar("quiet", begun + one, begun + other) for one, other in _gaps(said, spent.run or 0.0)]
    home = ended + (spent.collect or 0.0)
    bars.append(Bar("collect", ended, home))
    if run.verify is not None:
        again_s = run.verify.again.seconds if run.verify.again else 0.0
        bars.append(Bar("verify", home, home + run.verify.seconds + again_s))
    step = max(1, -(-len(said) // _MARKS))
    shown = [mark for i, mark in enumerate(said) if mark.sort != "event" or i % step == 0][:_MARKS]
    moved = tuple(Mark(min(begun + mark.at_s, ended), mark.said, mark.sort) for mark in shown)
    return Lane(run, tuple(bar for bar in bars if bar.seconds > 0), moved)


def _gaps(said: Sequence[Mark], run_s: float) -> Iterator[tuple[float, float]]:
    """The stretches in which nothing was noted, when they were long for this run."""
    moments = [0.0, *(mark.at_s for mark in said if mark.at_s < run_s), run_s]
    least = max(_QUIET_S, run_s * _QUIET_SHARE)
    return ((one, other) for one, other in pairwise(moments) if other - one >= least)


def _marks(text: str) -> Iterator[Mark]:
    for line in text.splitlines():
        try:
            event = json.loads(line)
            if event["event"] == "agent":
                words = str(event["said"])
                yield Mark(float(event["at_s"]), words, _sort(words))
        except (ValueError, KeyError, TypeError):
            continue


def _sort(words: str) -> Sort:
    return next((sort for begins, sort in _SORTS.items() if words.startswith(begins)), "event")

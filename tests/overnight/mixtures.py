"""Nights of mixed success with a known cause, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from overnight.alarm import sounded
from overnight.failures import FailureKind
from overnight.report import RunReport
from tests.overnight.samples import AT, proven, run

NOTHING_CAME = proven(FailureKind.NO_COMMIT)


@dataclass(frozen=True)
class Cause:
    """What a night suffers from: a factor's one value at which fewer succeed. `factor` empty is no cause at all."""

    factor: str
    inside: float
    outside: float

    def __str__(self) -> str:
        if not self.factor:
            return f"nothing; {self.outside:.0%} succeed"
        return f"{self.factor}; {self.inside:.0%} succeed inside, {self.outside:.0%} outside"


def night(cause: Cause, random: Random, n: int = 16) -> list[RunReport]:
    """One attempt of `n` tasks. Every factor has its values dealt out anew, the cause's two evenly."""
    dealt = {
        "host": ["a", "b"],
        "CLI version": ["2.1.330", "2.1.331"],
        "key": ["k1", "k2"],
        "environment": ["e1", "e2", "e3"],
        "repository": ["app", "lib", "web", "doc"],
        "hour": [str(hour) for hour in range(6)],
        "route": ["glm-5.2", "glm-5.1"],
    }
    hands = {name: [values[i % len(values)] for i in range(n)] for name, values in dealt.items()}
    if cause.factor:
        good, bad, *_ = dealt[cause.factor]
        hands[cause.factor] = [good, bad] * (n // 2)
    for hand in hands.values():
        random.shuffle(hand)
    runs = []
    for i in range(n):
        at = {name: hand[i] for name, hand in hands.items()}
        inside = bool(cause.factor) and at[cause.factor] == dealt[cause.factor][1]
        well = random.random() < (cause.inside if inside else cause.outside)
        runs.append(_run(i, at, well))
    return runs


def _run(i: int, at: dict[str, str], well: bool) -> RunReport:
    outcome: dict[str, Any] = {} if well else {"state": "failed", "failure": NOTHING_CAME}
    return run(
        task_id=f"t{i}",
        host=at["host"],
        harness_version=at["CLI version"],
        credential=at["key"],
        environment=at["environment"],
        origin=at["repository"],
        started_at=AT + timedelta(hours=int(at["hour"])),
        model=at["route"],
        **outcome,
    )


@dataclass(frozen=True)
class Tally:
    """Over many nights: how many were mixed, how many named the cause first or among others, how many another thing."""

    nights: int
    mixed: int
    first: int
    named: int
    other: int


def tally(cause: Cause, seed: int, nights: int, n: int = 16) -> Tally:
    """Simulate nights of one cause. What no run tells apart from the cause counts as the cause."""
    random = Random(seed)
    alarms = [sounded(night(cause, random, n)) for _ in range(nights)]
    found = [[set(_names(split)) for split in alarm.splits] for alarm in alarms if alarm is not None]
    return Tally(
        nights,
        mixed=sum(alarm is not None for alarm in alarms),
        first=sum(bool(names) and cause.factor in names[0] for names in found),
        named=sum(any(cause.factor in each for each in names) for names in found),
        # a route is finer than its host: it follows whatever its host does
        other=sum(any(not each & _follow(cause.factor) for each in names) for names in found),
    )


def _follow(factor: str) -> set[str]:
    return {factor, "route"} if factor == "host" else {factor}


def _names(split: Any) -> Iterator[str]:
    yield split.factor
    yield from (name for name in FACTOR_NAMES for words in split.together if words.startswith(f"{name} "))


FACTOR_NAMES = ("host", "CLI version", "route", "key", "environment", "repository", "hour")

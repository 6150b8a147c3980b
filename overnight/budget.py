"""A budget as a function of what was told: readings in, the cap that is reached out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from overnight.spec import BudgetCaps

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Reading:
    """What one attempt is known to have used so far. None is not known, and never counts as nothing in words."""

    run_id: str
    provider: str
    tokens: int | None
    usd: float | None

    def later(self, other: Reading) -> Reading:
        """Both as one: a run cannot give back what it used, so the larger figure stands."""
        return Reading(self.run_id, self.provider, _most(self.tokens, other.tokens), _most(self.usd, other.usd))


@dataclass(frozen=True)
class Reached:
    """A cap that is used up. `unknown` attempts are not in the figure."""

    cap: str
    limit: float
    spent: float
    runs: int
    unknown: int

    def __str__(self) -> str:
        unit = "USD" if self.cap.endswith("max_usd") else "tokens"
        figure = f"{self.spent:.2f}" if unit == "USD" else f"{self.spent:.0f}"
        left_out = f", {self.unknown} more not known" if self.unknown else ""
        return f"{self.cap} {self.limit:g} is reached: {figure} {unit} of {self.runs} attempts{left_out}"


def tally(readings: Iterable[Reading]) -> dict[str, Reading]:
    """The reading of each attempt, whatever the order in which they came, and however often."""
    found: dict[str, Reading] = {}
    for reading in readings:
        before = found.get(reading.run_id)
        found[reading.run_id] = reading.later(before) if before else reading
    return found


def reached(caps: BudgetCaps, name: str, readings: Iterable[Reading]) -> Reached | None:
    """The first cap that these attempts have used up, tokens before money; None while there is room.

    Args:
        name: What the caps are called in the batch file.
    """
    attempts = list(tally(readings).values())
    for cap, limit, each in (
        ("max_tokens", caps.max_tokens, [attempt.tokens for attempt in attempts]),
        ("max_usd", caps.max_usd, [attempt.usd for attempt in attempts]),
    ):
        known = [figure for figure in each if figure is not None]
        if limit is not None and sum(known) >= limit:
            return Reached(f"{name}.{cap}", limit, sum(known), len(known), len(each) - len(known))
    return None


def left(caps: BudgetCaps, readings: Iterable[Reading], cap: Literal["max_tokens", "max_usd"]) -> float | None:
    """What these attempts have left of a cap, at least nothing; None without that cap. Unknown usage is not in it."""
    limit: float | None = getattr(caps, cap)
    if limit is None:
        return None
    used = [each.tokens if cap == "max_tokens" else each.usd for each in tally(readings).values()]
    return max(0.0, limit - sum(figure for figure in used if figure is not None))


def _most(one: N | None, other: N | None) -> N | None:
    known = [figure for figure in (one, other) if figure is not None]
    return max(known) if known else None

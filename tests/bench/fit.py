"""Straight lines and percentiles, for what a bench has to say of growth and of latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """`at_zero + slope * x`; `r2` is how much of the scatter it explains."""

    at_zero: float
    slope: float
    r2: float


def line(points: Sequence[tuple[float, float]]) -> Line:
    """Least squares through at least two different places."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("a line needs two different places")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    at_zero = mean_y - slope * mean_x
    left = sum((y - at_zero - slope * x) ** 2 for x, y in points)
    whole = sum((y - mean_y) ** 2 for _, y in points)
    return Line(at_zero, slope, 1 - left / whole if whole else 1.0)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of them does not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

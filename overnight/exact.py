"""The only home of scipy, which takes most of a second to import: so nobody pays for it before a report is due."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import log, prod

from overnight.report import Share

_TABLES = 200_000  # counted out one by one up to here, 0.3 s; drawn at random beyond
_DRAWS, _SEED = 9_999, 7
_SAME = 1 + 1e-7  # two tables are as likely as each other within rounding; scipy's own tolerance


def share(successes: int, n: int) -> Share:
    """So many of so many, with Wilson's interval."""
    if not n:
        return Share(successes=0, n=0, low=None, high=None)
    from scipy.stats import binomtest

    bounds = binomtest(successes, n).proportion_ci(method="wilson")
    return Share(successes=successes, n=n, low=round(float(bounds.low), 4), high=round(float(bounds.high), 4))


def independence(sizes: Sequence[int], failures: Sequence[int]) -> tuple[float, float]:
    """Fisher's exact test, as Freeman and Halton extended it to more than two groups.

    Args:
        sizes: Runs of each group.
        failures: How many of them failed.

    Returns:
        The chance of a table at most as likely as this one, and of the least
        likely table with these margins: no split of these runs could do better.
        Beyond 200,000 tables both are found by 9,999 random ones, always the same.
    """
    if max(sizes) == 1:
        return 1.0, 1.0  # every table is as likely as any other
    failed = sum(failures)
    if prod(size + 1 for size in sizes) > _TABLES:
        return _drawn(sizes, failures, failed)
    from scipy.stats import multivariate_hypergeom

    ways = product(*(range(min(size, failed) + 1) for size in sizes[:-1]))
    full = [(*way, failed - sum(way)) for way in ways if 0 <= failed - sum(way) <= sizes[-1]]
    chances = multivariate_hypergeom.pmf(full, m=list(sizes), n=failed)
    own, least = chances[full.index(tuple(failures))], chances.min()
    return float(chances[chances <= own * _SAME].sum()), float(chances[chances <= least * _SAME].sum())


def _drawn(sizes: Sequence[int], failures: Sequence[int], failed: int) -> tuple[float, float]:
    """The table at hand counts as one of those drawn, so the chance is never 0."""
    from scipy.stats import multivariate_hypergeom

    tables = multivariate_hypergeom(m=list(sizes), n=failed, seed=_SEED)
    bar = tables.logpmf(list(failures)) + log(_SAME)
    as_rare = 1 + int((tables.logpmf(tables.rvs(size=_DRAWS)) <= bar).sum())
    return as_rare / (_DRAWS + 1), 1 / (_DRAWS + 1)


def holm(chances: Sequence[float]) -> list[float]:
    """Each chance, corrected for having looked so often (Holm's step-down)."""
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    corrected, floor = [0.0] * len(chances), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, chances[i] * (len(chances) - rank)))
        corrected[i] = floor
    return corrected

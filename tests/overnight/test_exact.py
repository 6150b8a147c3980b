from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import comb

import pytest

from overnight import exact
from overnight.exact import holm, independence, share


def counted(sizes: list[int], failures: list[int]) -> tuple[float, float]:
    """The same chances by dealing the failures out in every possible way."""
    owner = [group for group, size in enumerate(sizes) for _ in range(size)]
    ways = Counter(
        tuple(Counter(owner[i] for i in hit)[group] for group in range(len(sizes)))
        for hit in combinations(range(len(owner)), sum(failures))
    )
    total, own, least = sum(ways.values()), ways[tuple(failures)], min(ways.values())
    return sum(n for n in ways.values() if n <= own) / total, sum(n for n in ways.values() if n <= least) / total


@pytest.mark.parametrize(
    ("sizes", "failures"),
    [
        ([8, 8], [8, 0]),
        ([8, 8], [3, 5]),
        ([12, 3], [4, 3]),
        ([5, 5, 6], [5, 0, 1]),
        ([2, 3, 1, 4, 3], [2, 0, 1, 1, 0]),
        ([1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]),
    ],
)
def test_the_chances_are_those_of_counting_every_way(sizes: list[int], failures: list[int]) -> None:
    assert independence(sizes, failures) == pytest.approx(counted(sizes, failures))


def test_eight_against_eight() -> None:
    assert independence([8, 8], [8, 0])[0] == pytest.approx(2 / comb(16, 8))


def test_too_many_tables_are_drawn_and_come_out_near(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, failures = [4] * 6, [4, 3, 0, 1, 2, 1]
    counted_out = independence(sizes, failures)[0]
    monkeypatch.setattr(exact, "_TABLES", 1)
    drawn = independence(sizes, failures)[0]
    assert drawn == pytest.approx(counted_out, abs=0.02)
    assert drawn == independence(sizes, failures)[0], "twice the same report"


def test_as_many_groups_as_a_large_night_has() -> None:
    assert independence([1] * 500, [1] * 250 + [0] * 250) == (1.0, 1.0), "a repository a task says nothing"
    assert independence([2] * 250, [1] * 250)[0] > 0.5
    assert independence([20] * 24, [20] * 12 + [0] * 12)[0] == 1e-4


def test_wilsons_interval() -> None:
    """Figures of Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20."""
    assert (share(81, 263).low, share(81, 263).high) == (0.2553, 0.3662)
    assert (share(15, 148).low, share(15, 148).high) == (0.0624, 0.1605)
    assert (share(0, 20).low, share(0, 20).high) == (0.0, 0.1611)
    assert share(0, 0).low is None


def test_holm_steps_down_and_never_below_the_step_before() -> None:
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []

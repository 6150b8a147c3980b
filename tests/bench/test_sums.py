"""The benches' own arithmetic: what they say of what they saw."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.bench.__main__ import PARTS, written
from tests.bench.fit import line, percentile
from tests.bench.rig import Part, Row, against, table, within
from tests.bench.streams import rows

AT = datetime(2026, 11, 29, 11, 0, tzinfo=UTC)


def test_a_line_through_points_that_lie_on_one() -> None:
    found = line([(10, 130), (100, 220), (1000, 1120)])
    assert (round(found.slope, 9), round(found.at_zero, 6), round(found.r2, 9)) == (1.0, 120.0, 1.0)


def test_a_line_says_how_little_it_explains() -> None:
    found = line([(0, 0), (1, 1), (2, 0)])
    assert (found.slope, round(found.at_zero, 9), round(found.r2, 9)) == (0.0, round(1 / 3, 9), 0.0)


def test_one_place_makes_no_line() -> None:
    with pytest.raises(ValueError, match="two different places"):
        line([(5, 1), (5, 2)])


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_one_of_the_values(share: float, wanted: int) -> None:
    assert percentile([*range(100, 0, -1)], share) == wanted


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_ratio_meets_its_bar_or_misses_it() -> None:
    assert against("w", 15.0, 10.0, "s", most=1.5) == Row("w", "15.0 s", "10.0 s", "1.50 x", "<= 1.5 x", True)
    assert against("w", 15.1, 10.0, "s", most=1.5).met is False
    assert against("w", 15.1, 10.0, "s").met is None
    assert (within("w", 60.0, "kB", 60.0).met, within("w", 60.1, "kB", 60.0).met, within("w", 1.0, "s").met) == (
        True,
        False,
        None,
    )


def test_the_table_says_plainly_what_was_missed() -> None:
    lines = table([against("a", 3, 1, "s", most=2), against("b", 1, 1, "s", most=2), against("c", 1, 1, "s")])
    assert [each.split(" | ")[-1].strip(" |") for each in lines[2:]] == ["**missed**", "met", ""]


def test_bars_of_streams_are_for_500_and_growth_is_fitted() -> None:
    seen = {
        runs: {"cpu": runs / 5000, "rss": 1e8 + 76e3 * runs, "p99": 0.1, "links": 2, "threads": runs, "rate": 2 * runs}
        for runs in (10, 500, 1000)
    }
    found = rows(seen)
    assert [row.what for row in found if row.met is False] == ["500 runs: controller CPU, of one core"]
    assert found[-2].ours == "76 kB"
    assert found[-1].ours == "2.00 % of a core"


def test_the_page_names_each_missed_bar_and_how_to_measure_again() -> None:
    part = Part(
        "Overhead of a run", "python -m tests.bench.overhead", (against("wall", 3, 1, "s", most=2),), ("A note.",)
    )
    page = written([(part, AT)], "2 shared cores", "prefect 3.8.8")
    assert "0 of 1 bars met. Missed:\n- overhead of a run: wall\n" in page
    assert "`python -m tests.bench.overhead`, 2026-11-29 11:00 UTC." in page
    assert page.endswith("A note.\n")


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    part = Part("T", "c", (against("w", 1, 2, "s"), Row("x", "y")), ("n",))
    (tmp_path / "p.json").write_text(json.dumps(asdict(part)))
    assert Part.read(tmp_path / "p.json") == part


def test_every_part_can_be_run_alone() -> None:
    assert all(Path(__file__).with_name(f"{name}.py").exists() for name in PARTS)

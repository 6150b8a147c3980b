"""The sums of a matrix and its bar."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.rehearsal.matrix import __main__ as matrix
from overnight.rehearsal.matrix.verdict import Result, Totals, misses, over, quantile, totals
from tests.overnight.rehearsal.test_matrix import result


def test_totals_of_a_good_matrix() -> None:
    sums = totals([result(to_verdict_s=s, on_the_wire=True) for s in (0.5, 1.0, 9.0)])
    assert sums == Totals(3, 3, 0, 0, 0, 0, 1.0, 9.0, 1.0, ())
    assert sums.words == (
        "3 cells: 3 right, 0 unknown, 0 wrong; to the verdict 1.0 s median, 9.0 s p90"
        "; 1.0 s median for what agents report from the wire"
    )


@pytest.mark.parametrize(
    ("results", "missed"),
    [
        ([result("wrong")], "1 wrong, the bar is 0"),
        ([result("unknown"), *[result()] * 30], "1 unknown of 31, the bar is 3%"),
        ([result(to_verdict_s=2.5, on_the_wire=True)], "2.5 s median from the first sign"),
        (
            [result(harness="qwen", to_verdict_s=70, late_s=3.0, on_the_wire=True)],
            "3.0 s median from an agent's own",
        ),
        (
            [result(silent=True, to_verdict_s=61, over_s=21.0)],
            "1 silences named later than 20 s after the limit",
        ),
        ([result(shown=False)], "1 named without the sighting"),
        ([result(first="went-quiet"), *[result()] * 30], "1 of 31 right in a second run only, the bar is 2%"),
    ],
    ids=["wrong", "unknown", "slow", "late", "silence", "bare", "unsteady"],
)
def test_each_part_of_the_bar_can_be_missed(results: list[Result], missed: str) -> None:
    [line] = totals(results).missed
    assert line.startswith(missed)


@pytest.mark.parametrize(
    "results",
    [
        [result("unknown"), *[result()] * 40],
        [result(harness="qwen", to_verdict_s=70, late_s=1.0, on_the_wire=True)],
        [result(silent=True, to_verdict_s=99, over_s=19.0, on_the_wire=True)],
        [result("skipped")],
        [result(first="went-quiet"), *[result()] * 60],
    ],
    ids=["unknown", "keeps quiet", "silence", "skipped", "unsteady"],
)
def test_each_part_of_the_bar_can_be_met(results: list[Result]) -> None:
    assert totals(results).missed == ()


def test_a_cell_that_was_skipped_is_a_miss_where_all_must_run() -> None:
    assert totals([result("skipped")], complete=True).missed == ("1 cells could not be run here",)


@pytest.mark.parametrize(
    ("found", "again"),
    [
        (result(), False),
        (result("skipped"), False),
        (result("wrong"), True),
        (result("unknown"), True),
        (result(shown=False), True),
        (result(silent=True, to_verdict_s=61, over_s=21.0), True),
        (result(silent=True, to_verdict_s=61, late_s=0.1), False),
        (result(silent=True, to_verdict_s=61, late_s=20.1), True),
    ],
)
def test_what_misses_the_bar_is_run_once_more(found: Result, again: bool) -> None:
    assert misses(found) is again


@pytest.mark.parametrize(
    ("second", "more", "shown"),
    [
        ([], ["--once"], ("wrong", None)),
        ([result()], [], ("right", "billing")),
        ([result("wrong", verdict="overloaded")], [], ("wrong", None)),
    ],
    ids=["told not to", "right", "wrong again"],
)
def test_a_few_cells_get_a_second_run(
    second: list[Result], more: list[str], shown: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "_run", lambda *_: second)
    options, cells = matrix._parser().parse_args(more), matrix._cells(["codex"], ["429"])
    [found] = matrix._again([result("wrong", verdict="billing")], cells, options, Path(), {})
    assert (found.score, found.first) == shown


@pytest.mark.parametrize(
    ("evidence", "seconds"),
    [
        (("host: x", "clock: quiet_s 40 ran out at 47 s; last event: y at 4 s at 51.0 s"), 7.0),
        (("clock: turn_s 45 ran out at 56 s; no event at all",), 11.0),
        (("event: the clock: quiet_s 40 ran out at 99 s",), None),
        ((), None),
    ],
)
def test_by_how_much_a_clock_had_run_out(evidence: tuple[str, ...], seconds: float | None) -> None:
    assert over(evidence) == seconds


def test_a_second_run_is_told_apart() -> None:
    sums = totals([result(first="went-quiet"), result()])
    assert "2 right (1 of them in a second run)" in sums.words


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 5), (0.9, 9), (0.91, 10), (1.0, 10)])
def test_quantiles(share: float, expected: float) -> None:
    assert quantile(list(range(1, 11)), share) == expected

"""What the matrix says on a terminal: a line a cell, the totals, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from overnight.rehearsal.matrix.cell import Cell
from overnight.rehearsal.matrix.verdict import Result, Totals

_PIPE_WIDTH = 1000  # a table that nobody looks at on a terminal is never folded
_COLOURS = {"right": "green", "unknown": "yellow", "wrong": "red", "skipped": "dim"}
_EVIDENCE_CHARS = 90


def show(results: Sequence[Result], sums: Totals) -> None:
    """Every cell, then what they come to."""
    console = _console()
    columns = ("fault", "agent", "truth", "verdict", "", "evidence", "to verdict", "in all")
    table = _table(columns, numbers=2)
    for r in results:
        proof = r.brief[:_EVIDENCE_CHARS] if r.shown is not False else f"(not shown) {r.brief[:_EVIDENCE_CHARS]}"
        twice = f", the second time; first {r.first}" if r.first is not None else ""
        score = Text(f"{r.score}{twice}", _COLOURS[r.score])
        table.add_row(
            r.case,
            r.harness,
            " | ".join(r.truth),
            r.verdict,
            score,
            Text(proof),
            _seconds(r.to_verdict_s),
            _seconds(r.seconds),
        )
    console.print(table, crop=False)
    console.print(Text(f"\n{sums.words}", "bold"))
    for line in sums.missed:
        console.print(Text(f"missed: {line}", "red"))
    if not sums.missed:
        console.print(Text("The bar is met.", "green"))


def show_cases(cells: Sequence[Cell]) -> None:
    """Every fault, what is right for it, and its agents."""
    table = _table(("fault", "what happens", "right", "agents"), numbers=0)
    for case in dict.fromkeys(cell.case.name for cell in cells):
        own = [cell for cell in cells if cell.case.name == case]
        truths = dict.fromkeys(" | ".join(sorted(c.case.truth_for(c.harness))) or "succeeded" for c in own)
        spared = " (or succeeded)" if own[0].case.spared else ""
        table.add_row(case, own[0].case.says, "; ".join(truths) + spared, " ".join(c.harness for c in own))
    _console().print(table, crop=False)


def say(words: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{words}\n")


class Progress:
    """One line on standard error that is written over, or a line a cell where nobody looks."""

    def __init__(self, cells: int) -> None:
        self._cells, self._done, self._bad = cells, 0, 0
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()

    def count(self, result: Result) -> None:
        self._done += 1
        self._bad += result.score != "right"
        line = f"{self._done}/{self._cells} cells, {self._bad} not right, {time.monotonic() - self._began:.0f} s"
        last = f"{result.harness} {result.case}: {result.verdict} ({result.score})"
        sys.stderr.write(f"\r\x1b[K{line}; {last}" if self._live else f"{line}; {last}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._live:
            sys.stderr.write("\n")


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _table(columns: Sequence[str], numbers: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        right = place >= len(columns) - numbers
        table.add_column(name, overflow="fold", justify="right" if right else "left")
    return table


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"

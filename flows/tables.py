"""Rows on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 1000  # a table that nobody looks at on a terminal is never folded
_COLOURS = {"open": "green", "shut": "red", "succeeded": "green", "failed": "red", "lost": "red", "removed": "green"}


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "") -> None:
    """One line a row, of each the named columns; None is an empty cell."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    if title:
        console.print(Text(title, "bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        words = ["" if row[name] is None else str(row[name]) for name in columns]
        table.add_row(*(Text(word, _COLOURS.get(word, "")) for word in words))
    console.print(table, crop=False)

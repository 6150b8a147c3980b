"""What a person sees while a batch runs: a live table on a terminal, one line per change anywhere else."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_COLOURS = {"succeeded": "green", "failed": "red", "lost": "red", "skipped": "yellow", "cancelled": "yellow"}


class _Lenient(Console):
    """rich ends the program when its reader has gone; a night goes on without one."""

    def on_broken_pipe(self) -> None:
        self.mute()

    def mute(self) -> None:
        """Say no more. What is buffered must go somewhere, or Python ends with code 120 instead of ours."""
        self.quiet = True
        with open(os.devnull, "w", encoding="ascii") as nowhere, suppress(OSError):
            os.dup2(nowhere.fileno(), self.file.fileno())


class Progress:
    """Takes `tell` from any thread; a terminal that is gone or a full disk costs lines and nothing else.

    Use as a context manager.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = _Lenient(file=stream, highlight=False, soft_wrap=not stream.isatty())
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._rows: dict[str, tuple[str, str, float]] = {}
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=2, transient=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            with suppress(OSError):
                self._live.stop()

    def tell(self, where: str, stage: str, words: str) -> None:
        """One change. `where` is a task id, a route or a host."""
        with self._lock:
            age = time.monotonic() - self._began
            self._rows[where] = (stage, words, age)
            lasting = stage in ("done", "preflight", "route", "breaker", "link", "batch")
            if lasting or not self._console.is_terminal:
                line = Text.assemble((f"{age:7.1f} s  ", "dim"), (f"{where}  ", "bold"), f"{stage}: ")
                line.append(words, _colour(words))
                self._print(line)

    def say(self, words: str) -> None:
        """A line that belongs to no task."""
        with self._lock:
            self._print(Text(words))

    def _print(self, line: Text) -> None:
        try:
            self._console.print(line)
        except OSError:
            self._console.mute()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        now = time.monotonic() - self._began
        for where, (stage, words, at) in list(self._rows.items()):
            if stage in ("preflight", "breaker", "link", "batch"):
                continue
            shown = words if len(words) < 70 else words[:69] + "…"
            table.add_row(Text(where, "bold"), stage, Text(shown, _colour(words)), Text(f"{now - at:.0f} s ago", "dim"))
        return table


def _colour(words: str) -> str:
    first = words.split(",")[0].split(":")[0].split()[0] if words.split() else ""
    if first == "open":
        return "green"
    return "red" if first == "SHUT" else _COLOURS.get(first, "")

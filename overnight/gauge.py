"""How much is left, read out of the body of a call that costs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from overnight.facts import Entry


@dataclass(frozen=True)
class Level:
    """One reading: of a plan's window, or of a balance. None is what the body does not say.

    `empty` is whether, by the provider's own figure, nothing is left; it is
    False for a reading that decides nothing.
    """

    name: str
    empty: bool
    used_percent: float | None = None
    left: float | None = None
    resets_at: datetime | None = None

    def __str__(self) -> str:
        if self.used_percent is not None:
            words = f"{self.used_percent:.3g} % of {self.name} used"
        else:
            words = f"{self.name}: {self.left:.2f} left"
        resets = f", resets at {self.resets_at:%Y-%m-%d %H:%M} UTC" if self.resets_at else ""
        return f"{words}{resets}"


class Gauge(Entry):
    """Where a body says how much is left. Paths are dotted, those but `each` below each of its items.

    A window is told by `used_percent`; a balance by `left`, or by `total` and
    `used`. An item without its figures gives no reading.
    """

    of: Literal["window", "balance"]
    name: str = Field(description="What it is called")
    each: str = Field("", description="The list whose items are read; empty for the body itself")
    where: dict[str, str | int] = Field({}, description="Items that say otherwise are left out")
    used_percent: str = ""
    left: str = ""
    total: str = ""
    used: str = ""
    resets_ms: str = Field("", description="Milliseconds since 1970")
    decides: bool = Field(True, description="False where a route may work with nothing left")

    def read(self, body: object) -> Iterator[Level]:
        found = _at(body, self.each) if self.each else body
        for item in found if isinstance(found, list) else [found]:
            if all(_at(item, path) == wanted for path, wanted in self.where.items()):
                yield from self._level(item)

    def _level(self, item: object) -> Iterator[Level]:
        resets_at = _moment(_number(item, self.resets_ms))
        if self.of == "window":
            percent = _number(item, self.used_percent)
            if percent is not None:
                yield Level(self.name, self.decides and percent >= 100, used_percent=percent, resets_at=resets_at)
            return
        left, total, used = (_number(item, path) for path in (self.left, self.total, self.used))
        if left is None and total is not None and used is not None:
            left = total - used
        if left is not None:
            yield Level(self.name, self.decides and left <= 0, left=left, resets_at=resets_at)


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _number(item: object, path: str) -> float | None:
    """A figure, also one that is written as a text."""
    value = _at(item, path) if path else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _moment(milliseconds: float | None) -> datetime | None:
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None

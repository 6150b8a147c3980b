"""The time a night is planned by. A rehearsal runs it faster, so that eight hours pass in two minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

VARIABLE = "OVERNIGHT_REHEARSAL_CLOCK"
"""`SPEED@SINCE`, SINCE in seconds since 1970. Set by rehearsals for the batch they start, by nobody else."""


@dataclass(frozen=True)
class Clock:
    """From `since` on it goes `speed` times as fast as the machine's own. Moments are seconds since 1970."""

    speed: float = 1.0
    since: float = 0.0

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Clock:
        """The machine's own clock, but in a rehearsal that says otherwise."""
        speed, _, since = environ.get(VARIABLE, "").partition("@")
        return cls(float(speed), float(since)) if since else cls()

    def __str__(self) -> str:
        return f"{self.speed:g}@{self.since:.3f}"

    def now(self) -> float:
        at = time.time()
        return at if self.speed == 1.0 else self.since + (at - self.since) * self.speed

    def until(self, moment: float) -> float:
        """Seconds that one really has to wait."""
        return (moment - self.now()) / self.speed


def now() -> datetime:
    """This moment, by the machine's own clock."""
    return datetime.now(UTC)

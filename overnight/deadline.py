"""When a night ends: what a user writes, as a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from overnight.failures import BadInput, Evidence, Failure, FailureKind, fail

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def deadline_at(text: str, begun: datetime, source: str) -> datetime:
    """The next time the clock of this machine shows `07:00` after `begun`, or the moment that is written in full.

    A moment without an offset is this machine's own time.

    Raises:
        BadInput: it is neither.
    """
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        local = begun.astimezone()
        # by the calendar, not by 24 hours: the clocks may change tonight
        at = datetime(local.year, local.month, local.day, int(clock[1]), int(clock[2])).astimezone()
        return at if at > begun else (at.replace(tzinfo=None) + timedelta(days=1)).astimezone()
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        mend = "Write a time of day as 07:00, in quotes, or a moment as 2026-12-01T07:00+01:00"
        raise BadInput(source, "deadline", f"{text!r} is no time of day and no moment", mend) from None


def too_late(at: float) -> Failure:
    """Why an attempt is not begun any more."""
    seen = f"the deadline {spoken(at)} came before this attempt began"
    return fail(FailureKind.DEADLINE, Evidence(source="clock", seen=seen))


def spoken(at: float) -> str:
    """A moment for a person, in this machine's own time."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S %z}"

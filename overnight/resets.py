"""When a used-up window opens again, by the provider's own words or header."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from overnight.failures import Failure, FailureKind

_MOMENT = re.compile(
    r"reset\w*\s+(?:at|on)\s+(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_SECONDS = re.compile(r"limit reached\|(\d{10})\b")
# ZhiPu writes Beijing's time and says nothing of it; a moment that has no zone is one of these
_ZONES = (timezone(timedelta(hours=8)), UTC)


def reset_s(failure: Failure, now: float) -> float | None:
    """Seconds until a used-up window opens; None for another failure, and where nobody said when.

    Of the zones that a moment without one may be in, the one counts in which it comes soonest.
    """
    if failure.kind is not FailureKind.QUOTA_WINDOW:
        return None
    if failure.retry_after_s is not None:
        return failure.retry_after_s
    found = [at - now for seen in failure.evidence for at in _moments(seen.seen) if at > now]
    return min(found, default=None)


def _moments(words: str) -> list[float]:
    found = [float(seconds) for seconds in _SECONDS.findall(words)]
    for day, clock, zone in _MOMENT.findall(words):
        text = f"{day}T{clock}{'+00:00' if zone.upper() in ('Z', 'UTC') else zone}"
        try:
            at = datetime.fromisoformat(text)
        except ValueError:  # the 31st of a short month
            continue
        found += [at.timestamp()] if zone else [at.replace(tzinfo=each).timestamp() for each in _ZONES]
    return found

"""Whether a provider's peak hours speak against a start now, and what they make of its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from overnight.lockfile import Provider
from overnight.tariff import Peak

_STEP = timedelta(minutes=1)  # a peak is told in minutes
_JOINED = 32  # peaks that follow on each other without a gap; more of them leave no hour to wait for


@dataclass(frozen=True)
class OffPeak:
    """Until when a start should wait, and why."""

    until: datetime
    why: str


def peaks(provider: Provider, model: str, at: datetime) -> Iterator[Peak]:
    """The rules of a provider in whose hours this moment lies."""
    for rule in provider.peak:
        if (not rule.models or model in rule.models) and rule.end(at) is not None:
            yield rule


def off_peak(provider: Provider, model: str, now: datetime) -> OffPeak | None:
    """When the peak hours are over in which `now` lies.

    Peaks that join are one. None outside of them, and for a provider that
    never has other hours: nothing is worth waiting for then.

    Args:
        now: Aware; the answer is in the same zone.
    """
    why, until = [str(rule) for rule in peaks(provider, model, now)], now
    for _ in range(_JOINED):
        ends = [end for rule in peaks(provider, model, until) if (end := rule.end(until)) is not None]
        if not ends:
            return OffPeak(until, "; ".join(why)) if why else None
        until = max(ends)
    return None


def price_times(provider: Provider, model: str, began: datetime, ended: datetime) -> tuple[float, bool]:
    """By what the off-peak price of a run is multiplied at most, and whether that held all the time."""
    rules = [rule for rule in provider.peak if rule.of == "price" and (not rule.models or model in rule.models)]
    touched = [rule for rule in rules if _touches(rule, began, ended)]
    if not touched:
        return 1.0, True
    inside = [rule for rule in touched if (end := rule.end(began)) is not None and ended <= end]
    most = max(rule.times for rule in touched)
    return most, any(rule.times == most for rule in inside)


def _touches(rule: Peak, began: datetime, ended: datetime) -> bool:
    if rule.end(began) is not None or rule.end(ended) is not None:
        return True
    at = began
    while at < ended:
        at = min(ended, at + _STEP)
        if rule.end(at) is not None:
            return True
    return False

"""When the night begins: what a user writes, checked, and the default."""

from __future__ import annotations

import re
import zoneinfo

import tzlocal

from overnight.failures import BadInput
from overnight.lockfile import suggest

BEGINS = "01:00"
DOCTOR_EARLIER_MIN = 30


def clock(at: str | None) -> int:
    """Minutes after midnight of `HH:MM`; None is one o'clock.

    Raises:
        BadInput: it is no time of day.
    """
    text = at or BEGINS
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise BadInput("command line", "--at", f"{text!r} is no time of day", f"Write it as {BEGINS}")
    return 60 * int(found[1]) + int(found[2])


def zone(name: str | None) -> str:
    """A time zone by its IANA name; None is this machine's, or UTC where it does not say.

    Raises:
        BadInput: there is no such zone.
    """
    if name is None:
        try:
            return tzlocal.get_localzone_name() or "UTC"
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):  # a machine set up badly
            return "UTC"
    known = zoneinfo.available_timezones()
    if name not in known:
        raise BadInput("command line", "--timezone", f"unknown time zone {name!r}", suggest(name, known)[:200])
    return name


def daily(minutes: int) -> str:
    """A cron line for every day at so many minutes after midnight; also before it or after the next."""
    hour, minute = divmod(minutes % (24 * 60), 60)
    return f"{minute} {hour} * * *"


def spoken(cron: str) -> str:
    """A cron line for a person, where it is one of `daily`."""
    found = re.fullmatch(r"(\d+) (\d+) \* \* \*", cron)
    return f"every day at {int(found[2]):02}:{int(found[1]):02}" if found else f"cron {cron}"

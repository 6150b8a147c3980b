"""Peak hours: across midnight, in any zone, joined, and on some days only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from overnight import lockfile
from overnight.lockfile import Provider
from overnight.peak import off_peak, peaks
from overnight.tariff import Peak

LOCK = lockfile.load()
PAGE = {"source": "a page", "date": "2026-11-29", "confidence": "official"}
MINUTE = timedelta(minutes=1)


def rule(begins: str, ends: str, utc_offset: str = "+08:00", **more: Any) -> Peak:
    fields = {"begins": begins, "ends": ends, "utc_offset": utc_offset, "times": 3, "of": "quota", **more}
    return Peak.model_validate({**fields, "provenance": PAGE})


def provider(*rules: Peak) -> Provider:
    return LOCK.providers["moonshot"].model_copy(update={"peak": rules})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def until(found: Provider, moment: str, model: str = "kimi-k3") -> str | None:
    held = off_peak(found, model, at(moment))
    return held.until.isoformat(timespec="minutes") if held else None


@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        ("2026-11-29T05:59+00:00", None),
        ("2026-11-29T06:00+00:00", "2026-11-29T10:00+00:00"),
        ("2026-11-29T09:59:59+00:00", "2026-11-29T10:00+00:00"),
        ("2026-11-29T10:00+00:00", None),
        ("2026-11-29T01:30-05:00", "2026-11-29T05:00-05:00"),
        ("2026-11-29T15:00+08:00", "2026-11-29T18:00+08:00"),
        ("2026-11-29T00:00-10:00", None),
        ("2026-11-28T21:00-10:00", "2026-11-29T00:00-10:00"),
    ],
)
def test_the_rule_of_zai_by_clocks_of_the_world(moment: str, ends: str | None) -> None:
    held = off_peak(LOCK.providers["zai"], "glm-5.1", at(moment))
    assert (held.until.isoformat(timespec="minutes") if held else None) == ends
    assert held is None or held.why.startswith("3 times the quota 14:00-18:00 UTC+08:00")


def test_a_model_that_is_not_named_has_no_peak() -> None:
    assert off_peak(LOCK.providers["zai"], "glm-4.7", at("2026-11-29T07:00+00:00")) is None


@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        ("2026-11-29T21:59+00:00", None),
        ("2026-11-29T22:00+00:00", "2026-11-30T03:00+00:00"),
        ("2026-11-30T00:00+00:00", "2026-11-30T03:00+00:00"),
        ("2026-11-30T02:59+00:00", "2026-11-30T03:00+00:00"),
        ("2026-11-30T03:00+00:00", None),
    ],
)
def test_a_peak_may_pass_midnight(moment: str, ends: str | None) -> None:
    assert until(provider(rule("22:00", "03:00", "+00:00")), moment) == ends


def test_the_weekday_is_that_on_which_it_began_where_it_is_told_by() -> None:
    friday_night = provider(rule("22:00", "03:00", "+08:00", weekdays=[5]))
    assert until(friday_night, "2026-11-27T14:00+00:00") == "2026-11-27T19:00+00:00"  # 22:00 on Friday in Beijing
    assert until(friday_night, "2026-11-27T18:00+00:00") == "2026-11-27T19:00+00:00"  # 02:00 on Saturday there
    assert until(friday_night, "2026-11-28T14:00+00:00") is None


def test_peaks_that_join_are_waited_for_as_one() -> None:
    hours = (("08:00", "10:00"), ("10:00", "12:00"), ("13:00", "14:00"))
    both = provider(*(rule(begins, ends, "+00:00") for begins, ends in hours))
    assert until(both, "2026-11-29T09:00+00:00") == "2026-11-29T12:00+00:00"


def test_who_has_no_other_hours_is_not_waited_for() -> None:
    always = provider(rule("00:00", "12:00", "+00:00"), rule("12:00", "00:00", "+00:00"))
    assert off_peak(always, "kimi-k3", at("2026-11-29T09:00+00:00")) is None
    assert list(peaks(always, "kimi-k3", at("2026-11-29T09:00+00:00")))


def test_a_zone_that_changes_its_clocks_changes_nothing() -> None:
    new_york = ZoneInfo("America/New_York")
    for day in range(7, 10):  # clocks go forward on 8 March 2026
        moment = datetime(2026, 3, day, 7, tzinfo=UTC).astimezone(new_york)
        held = off_peak(LOCK.providers["zai"], "glm-5.1", moment)
        assert held is not None
        assert held.until.astimezone(UTC) == datetime(2026, 3, day, 10, tzinfo=UTC)


_clock = st.times().map(lambda t: f"{t.hour:02}:{t.minute:02}")
_offset = st.sampled_from(["+08:00", "+00:00", "-05:00", "+05:30", "-09:30", "+14:00"])
_days = st.lists(st.integers(1, 7), min_size=1, unique=True)
_rules = st.lists(st.builds(rule, _clock, _clock, _offset, weekdays=_days), max_size=3)
_moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))


@given(_rules, _moments, st.integers(-14 * 60, 14 * 60))
def test_the_answer_is_outside_and_nothing_before_it_is(rules: list[Peak], moment: datetime, ahead: int) -> None:
    found = provider(*rules)
    held = off_peak(found, "kimi-k3", moment)
    inside = list(peaks(found, "kimi-k3", moment))
    assert held is None or inside
    if held is not None:
        assert held.until > moment
        assert not list(peaks(found, "kimi-k3", held.until))
        assert list(peaks(found, "kimi-k3", held.until - MINUTE / 60))
    elsewhere = off_peak(found, "kimi-k3", moment.astimezone(timezone(timedelta(minutes=ahead))))
    assert (elsewhere.until if elsewhere else None) == (held.until if held else None)


@pytest.mark.parametrize("wrong", [{"times": 1}, {"weekdays": []}, {"begins": "24:00"}, {"utc_offset": "UTC+8"}])
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule(**{"begins": "14:00", "ends": "18:00", **wrong})

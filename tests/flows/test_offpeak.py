"""A batch that avoids peak hours waits for their end without a slot, and is heard when its end is wanted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.offpeak import slot_off_peak
from overnight.night import Night
from overnight.spec import HostSpec, TaskSpec
from tests.overnight.nights import Evening, make_lock, stop_when

PEAK = datetime(2026, 11, 29, 7, tzinfo=UTC)
OVER = datetime(2026, 11, 29, 10, tzinfo=UTC)


@pytest.fixture
def evening(tmp_path: Path) -> Evening:
    """One whose provider is that of Z.ai's hours. Nothing in it is connected to."""
    path = make_lock(tmp_path / "lock.json", "http://127.0.0.1:9")
    lock = json.loads(path.read_text())
    page = {"source": "a page", "date": "2026-11-29", "confidence": "official"}
    hours = {"begins": "14:00", "ends": "18:00", "utc_offset": "+08:00", "times": 3, "of": "quota"}
    lock["providers"]["rehearsal"]["peak"] = [{**hours, "provenance": page}]
    path.write_text(json.dumps(lock))
    return Evening(tmp_path, str(tmp_path), HostSpec(kind="local"), path, peak="avoid")


class Clock:
    """Goes on a bit at each look."""

    def __init__(self, at: datetime, step: timedelta) -> None:
        self.at, self.step = at, step

    def __call__(self) -> datetime:
        self.at += self.step
        return self.at


class Leap(Clock):
    """Off peak at the first look, in the peak at the second, past it from the third on."""

    def __init__(self) -> None:
        super().__init__(PEAK, timedelta(0))
        self.looks = iter([PEAK - timedelta(hours=2), PEAK])

    def __call__(self) -> datetime:
        self.at = next(self.looks, OVER)
        return self.at


def got(night: Night, task: TaskSpec, clock: Clock) -> list[datetime]:
    """When slots were taken, the last of them the one that was kept."""
    taken: list[datetime] = []

    @asynccontextmanager
    async def slot(_task: TaskSpec) -> AsyncIterator[None]:
        taken.append(clock.at)
        yield

    async def one() -> None:
        async with slot_off_peak(night, task, slot, clock):
            pass

    asyncio.run(one())
    return taken


def test_a_start_waits_for_the_end_of_the_peak(evening: Evening) -> None:
    task = evening.task("t", "x")
    with evening.night(task) as night:
        (taken,) = got(night, task, Clock(OVER - timedelta(seconds=0.4), timedelta(seconds=0.1)))
    assert taken >= OVER
    assert "t | queue | waits until 2026-11-29 10:00 UTC: 3 times the quota 14:00-18:00 UTC+08:00" in evening.told


def test_a_slot_that_came_in_the_peak_is_given_back(evening: Evening) -> None:
    task = evening.task("t", "x")
    with evening.night(task) as night:
        taken = got(night, task, Leap())
    assert len(taken) == 2
    assert taken[-1] >= OVER


def test_where_peaks_are_allowed_nothing_waits(evening: Evening) -> None:
    evening.peak = "allow"
    task = evening.task("t", "x")
    with evening.night(task) as night:
        assert len(got(night, task, Clock(PEAK, timedelta(0)))) == 1
    assert not [line for line in evening.told if "waits until" in line]


def test_who_wants_the_end_is_heard(evening: Evening) -> None:
    task = evening.task("t", "x")
    with evening.night(task) as night:
        stop_when(night, lambda: any("waits until" in line for line in evening.told))
        assert len(got(night, task, Clock(PEAK, timedelta(0)))) == 1


def test_a_run_that_may_live_already_is_followed_at_once(evening: Evening) -> None:
    task = evening.task("t", "x")
    with evening.night(task, batch_id="b") as night:
        night.ledger.save("b.t.1", "plan", {})
        assert len(got(night, task, Clock(PEAK, timedelta(0)))) == 1

"""Where a batch avoids peak hours: starts wait for their end, before they take a slot and not while they hold one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

from overnight.night import Night, now
from overnight.peak import OffPeak, off_peak
from overnight.spec import TaskSpec
from tasks.calls import in_thread

_HEED_S = 1.0


@asynccontextmanager
async def slot_off_peak(
    night: Night,
    task: TaskSpec,
    slot: Callable[[TaskSpec], AbstractAsyncContextManager[Any]],
    clock: Callable[[], datetime] = now,
) -> AsyncIterator[None]:
    """A slot that was got outside peak hours. What may live on its host already gets one at once, to be followed."""
    while True:
        await until_off_peak(night, task, clock)
        async with slot(task):
            if _held(night, task, clock()) is None:
                yield
                return


async def until_off_peak(night: Night, task: TaskSpec, clock: Callable[[], datetime] = now) -> None:
    """Wait while the peak hours of the task's provider last, unless somebody wants the end meanwhile."""
    told: datetime | None = None
    while (held := _held(night, task, clock())) is not None:
        if told != held.until:
            told = held.until
            night.tell(task.id, "queue", f"waits until {held.until:%Y-%m-%d %H:%M} UTC: {held.why}")
        left_s = (held.until - clock()).total_seconds()
        await in_thread(night.interrupted.wait, max(0.0, min(left_s, _HEED_S)))


def _held(night: Night, task: TaskSpec, at: datetime) -> OffPeak | None:
    """Why the next attempt of the task should not start yet."""
    if night.batch.peak == "allow" or night.wish(task.id) is not None:
        return None
    following = f"{night.ledger.batch_id}.{task.id}.{len(night.ledger.attempts(task.id)) + 1}"
    if night.ledger.planned(following):
        return None
    return off_peak(night.lock.providers[task.route.provider], task.route.model, at)

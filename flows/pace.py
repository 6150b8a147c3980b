"""Requests within a while, counted across batches and workers by leases that nobody gives back.

A request holds a slot of a Prefect global concurrency limit for as long as its
window lasts. So no window ever holds more than its number, whoever asked and
whatever became of him; a limit that decays would let twice as many through.
An agent at work is never held up: what it asks keeps later runs from starting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.private_server import OutOfReach

_COUNT_S = 10.0
_LOOK_S = 15.0


@dataclass(frozen=True)
class Window:
    """So many requests in any `per_s` seconds; `name` is that of the limit."""

    name: str
    requests: int
    per_s: float

    def __str__(self) -> str:
        return f"{self.name}: {self.requests} requests in {self.per_s:g} s"


class Pace:
    """What the runs of one batch ask of one provider, in each of its windows.

    Args:
        further: How many requests all runs have made so far beside the first of each.
    """

    def __init__(self, windows: Sequence[Window], further: Callable[[], int]) -> None:
        self._windows = windows
        self._further = further
        self._counted = 0
        self._counter = asyncio.create_task(self._count()) if windows else None

    async def start(self, goes_on: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Take a run's first request from each window; waits until there is room for it, or it shall not start.

        Args:
            tell: Told once of each window that is full.
        """
        for window in self._windows:
            told = False
            while goes_on() and (pause_s := await _take(window, 1)) is not None:
                if not told:
                    tell(f"waits for {window}")
                told = True
                await asyncio.sleep(pause_s)

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(_COUNT_S)
            await self._take_further()

    async def _take_further(self) -> None:
        """Take what the agents asked since; what a full window has no room for is not counted."""
        so_far = self._further()
        if so_far > self._counted:
            for window in self._windows:
                await _take_what_fits(window, so_far - self._counted)
            self._counted = so_far

    async def close(self) -> None:
        """Count what was asked to the end."""
        if self._counter is not None:
            self._counter.cancel()
            with suppress(asyncio.CancelledError):
                await self._counter
            await self._take_further()


async def _take(window: Window, requests: int) -> float | None:
    """Seconds until it is worth asking again; None when they were taken, or Prefect cannot tell."""
    try:
        async with get_client() as client:
            await client.increment_concurrency_slots_with_lease(
                [window.name], requests, mode="concurrency", lease_duration=window.per_s
            )
    except OutOfReach as error:
        return denied_s(error)
    return None


async def _take_what_fits(window: Window, requests: int) -> None:
    try:
        async with get_client() as client:
            limit = await client.read_global_concurrency_limit_by_name(window.name)
    except OutOfReach as error:
        get_run_logger().warning("requests are not counted for now: %s", error)
        return
    if (free := min(requests, limit.limit - limit.active_slots)) > 0:
        await _take(window, free)


def denied_s(error: BaseException) -> float | None:
    """How long to wait before Prefect is asked for a slot again; None when it cannot tell whether there is one."""
    answer = error.response if isinstance(error, PrefectHTTPStatusError) else None
    if answer is not None and answer.status_code == HTTPStatus.LOCKED:
        return min(float(answer.headers["Retry-After"]), _LOOK_S)
    get_run_logger().warning("no slot from Prefect: %s", error)
    limit_is_0 = answer is not None and answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    return _LOOK_S if limit_is_0 else None  # somebody wants nothing to start

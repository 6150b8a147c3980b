"""Prefect's server may be away for a while, and a night waits for it.

Its own client tries again only where it was answered once before (3.8.8), and
most of our calls are the first of their client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prefect import get_run_logger
from prefect.exceptions import PrefectHTTPStatusError

from flows.private_server import OutOfReach

T = TypeVar("T")
AWAY_S, AGAIN_S = 600.0, 3.0


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What a call to Prefect's API gives; made again while the API is away, for up to 10 minutes.

    Raises:
        OutOfReach: it refused the call, or stayed away.
    """
    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            return await call()
        except OutOfReach as error:
            _check(error, deadline)
        await asyncio.sleep(AGAIN_S)


def patiently_here(call: Callable[[], T]) -> T:
    """The same for a call that blocks, from a thread."""
    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            return call()
        except OutOfReach as error:
            _check(error, deadline)
        time.sleep(AGAIN_S)


def _check(error: OutOfReach, deadline: float) -> None:
    refused = isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500
    if refused or time.monotonic() > deadline:
        raise error
    get_run_logger().warning("Prefect does not answer, the runs go on: %s", str(error) or type(error).__name__)

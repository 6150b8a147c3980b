"""How a Prefect task calls the blocking functions of `overnight`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# a followed run holds a thread (76 kB resident, measured on 2026-11-29), made when it is needed: a run that found none
# would start and be followed by nobody
_POOL = ThreadPoolExecutor(4096, "overnight")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in a thread of our own pool; asyncio's default pool has 6 threads on 2 cores.

    The context goes along, and with it Prefect's settings: without them a
    client in the thread would start a server of its own.
    """
    call: Callable[[], Any] = partial(copy_context().run, function, *args, **kwargs)
    result: R = await asyncio.get_running_loop().run_in_executor(_POOL, call)
    return result

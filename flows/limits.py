"""Slots that hold across workers: Prefect's global concurrency limits, held by leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
)
from prefect.exceptions import ObjectAlreadyExists

from flows.patience import patiently
from flows.private_server import OutOfReach
from overnight.night import Night
from overnight.spec import TaskSpec

# the shortest that Prefect 3.8.8 allows; so long is a slot lost after its holder was killed
_LEASE_S = 60.0
_LOOK_S = 15.0
_AGAIN_S = 5.0


def host_limit(host: str) -> str:
    """Name of the limit that holds a host's slots."""
    return f"overnight-host-{host}"


def provider_limit(provider: str) -> str:
    """Name of the limit that holds what a provider allows at once; it exists where the lock or a user made it."""
    return f"overnight-provider-{provider}"


@asynccontextmanager
async def room(night: Night, task: TaskSpec) -> AsyncIterator[None]:
    """One of the host's slots and one of the provider's, shared with everybody on this Prefect server.

    Waits until both are free; an interrupted batch waits no longer, and what
    already runs on its host needs no slot to be ended. The safety device is
    the host's own list of runs; a lease that is lost meanwhile stops nothing.
    """
    host = task.route.host
    await patiently(lambda: _make(host_limit(host), night.batch.hosts[host].slots))
    names = [host_limit(host), provider_limit(task.route.provider)]
    while not night.interrupted.is_set():
        entered = left = False
        try:
            async with concurrency(
                names, timeout_seconds=_LOOK_S, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False
            ):
                entered = True
                yield
                left = True
        except AcquireConcurrencySlotTimeoutError:
            if not entered:
                continue
            raise
        except ConcurrencySlotAcquisitionError as error:  # the API is away, or the limit is 0
            if entered:
                raise
            get_run_logger().warning("no slot yet: %s", error.__cause__ or error)
            await asyncio.sleep(_AGAIN_S)
            continue
        except OutOfReach:
            if not left:  # giving the slot back may fail; its lease ends by itself
                raise
        return
    yield


async def _make(name: str, slots: int) -> None:
    """See that the limit is there and as large as asked for."""
    async with get_client() as client:
        try:
            await client.upsert_global_concurrency_limit_by_name(name, slots)
        except ObjectAlreadyExists:  # another worker made it in the same moment
            await client.upsert_global_concurrency_limit_by_name(name, slots)

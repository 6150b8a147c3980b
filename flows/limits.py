"""Slots that hold across batches and workers: Prefect's global concurrency limits, held by leases.

One call for a slot costs 20 ms and a thread, and a refused one waits long
(3.8.8), so a batch asks only for as many as it really runs, and hands a slot
on to its next task for a while before it gives it back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError, concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.pace import Pace, Window, denied_s
from flows.private_server import OutOfReach
from overnight.ceilings import Ceilings, in_place_of
from overnight.failures import FailureError
from overnight.night import Night
from overnight.redact import fingerprint
from overnight.spec import TaskSpec
from tasks.calls import in_thread

# the shortest that Prefect 3.8.8 allows; so long is a slot lost after its holder was killed
_LEASE_S = 60.0
# another batch gets its turn after this long, and a slot nobody here wants goes back at once
_HAND_ON_S = 60.0
_UNWANTED_S = 0.3
# what it writes as an error for each refusal, whoever asked is told as well (3.8.8)
logging.getLogger("prefect._internal.concurrency").addFilter(
    lambda record: "ConcurrencySlotAcquisitionWithLeaseService" not in record.getMessage()
)


def host_limit(host: str) -> str:
    """Name of the limit that holds a host's slots."""
    return f"overnight-host-{host}"


def provider_limit(provider: str) -> str:
    """Name of the limit that holds what is asked of a provider at once; lock or batch give its size."""
    return f"overnight-provider-{provider}"


def key_limit(provider: str, key_id: str) -> str:
    """The same for one key of the provider; `key_id` tells keys apart and does not tell the key."""
    return f"overnight-key-{provider}-{key_id}"


def requests_limit(limit: str) -> str:
    """Name of the limit beside `limit` that holds the requests of a while."""
    return limit.replace("overnight-", "overnight-requests-", 1)


def ceilings(night: Night, provider: str) -> Ceilings:
    """What holds for a provider in this batch."""
    return in_place_of(night.lock.providers[provider].limits, night.batch.providers.get(provider))


@dataclass
class _Lease:
    """One slot of each limit in `names`, kept by a task of its own, since Prefect gives it back where it was taken."""

    names: tuple[str, ...]
    since: float = field(default_factory=time.monotonic)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    given_back: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        entered = False
        try:
            async with concurrency(
                list(self.names),
                max_retries=0,  # with a time limit instead, what is granted in the moment it ends is lost
                lease_duration=_LEASE_S,
                raise_on_lease_renewal_failure=False,
            ):
                entered = True
                self.held.set()
                await self.given_back.wait()
        except (OutOfReach, ConcurrencySlotAcquisitionError) as error:
            if not entered:
                raise
            # giving it back may fail; then the lease ends by itself
            get_run_logger().warning("a slot could not be given back: %s", error)


class Room:
    """The slots of one batch: one of the host's, the provider's and the key's for each attempt, and its requests.

    The safety device is the host's own list of runs, and within this batch its
    schedule; a lease that is lost meanwhile stops nothing, and while Prefect
    cannot be asked the batch goes on by its own count.
    """

    def __init__(self) -> None:
        self._spare: dict[tuple[str, ...], list[_Lease]] = {}
        self._made: dict[str, asyncio.Task[None]] = {}
        self._inherits: asyncio.Task[float] | None = None
        self._paces: dict[str, asyncio.Task[tuple[str, Pace]]] = {}

    @asynccontextmanager
    async def slot(self, night: Night, task: TaskSpec, adopted: bool) -> AsyncIterator[None]:
        """Waits until all are free; a task that shall end waits no longer, and one that already runs never."""
        host, provider = task.route.host, task.route.provider
        if self._inherits is None:
            self._inherits = asyncio.create_task(_inherits_until(night))
        inherits_until = await self._inherits  # asked once, before any run of this start lives or has ended
        if provider not in self._paces:
            self._paces[provider] = asyncio.create_task(self._pace(night, provider))
        if adopted:  # and waits for nothing that Prefect has to answer
            yield
            return
        await self._ready(host_limit(host), night.batch.hosts[host].slots, exactly=True)
        of_key, pace = await self._paces[provider]
        names = (host_limit(host), provider_limit(provider), of_key)
        await pace.start(lambda: night.wish(task.id) is None, partial(night.tell, task.id, "queue"))
        spare = self._spare.setdefault(names, [])
        lease = spare.pop() if spare else await self._taken(night, task, names, inherits_until)
        try:
            yield
        finally:
            if lease is not None:
                self._hand_on(lease)

    async def _pace(self, night: Night, provider: str) -> tuple[str, Pace]:
        """See that the provider's limits are there. Gives the name of its key's, and who keeps its windows."""
        key_id = await in_thread(_key_id, night, provider)
        mine, whole = night.batch.providers.get(provider, Ceilings()), ceilings(night, provider)
        of_key, windows = key_limit(provider, key_id), []
        for name, wanted, each in (
            (provider_limit(provider), mine, whole),
            (of_key, mine.each_key, whole.each_key),
        ):
            if each.concurrent is not None:
                await self._ready(name, each.concurrent, exactly=wanted.concurrent is not None)
            if each.requests is not None:
                windows.append(Window(requests_limit(name), each.requests, each.per_s))
                await self._ready(requests_limit(name), each.requests, exactly=wanted.requests is not None)
        return of_key, Pace(windows, lambda: night.spending.further(provider))

    async def _taken(
        self, night: Night, task: TaskSpec, names: tuple[str, ...], inherits_until: float
    ) -> _Lease | None:
        """A new lease; None when the task shall end, or Prefect is away.

        None also where none is free in the first minute of a batch whose runs live without a controller: who was
        killed holds its leases for so long, and they count as this one's.
        """
        while night.wish(task.id) is None:
            lease = _Lease(names)
            lease.keeper = asyncio.create_task(lease.keep())
            holds = asyncio.create_task(lease.held.wait())
            try:
                await asyncio.wait({lease.keeper, holds}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                lease.given_back.set()  # at once, should it still be granted
                raise
            finally:
                holds.cancel()
            if lease.held.is_set():
                return lease
            pause_s: float | None = None
            try:
                await lease.keeper
            except (OutOfReach, ConcurrencySlotAcquisitionError) as error:
                pause_s = denied_s(error.__cause__ or error)
            if pause_s is None or time.monotonic() < inherits_until:
                return None
            await asyncio.sleep(pause_s)
        return None

    def _hand_on(self, lease: _Lease) -> None:
        """Keep it for the next task a moment, unless others had to wait for it long enough."""
        if time.monotonic() - lease.since > _HAND_ON_S:
            lease.given_back.set()
            return
        spare = self._spare[lease.names]
        spare.append(lease)

        def unwanted() -> None:
            if lease in spare:
                spare.remove(lease)
                lease.given_back.set()

        asyncio.get_running_loop().call_later(_UNWANTED_S, unwanted)

    async def _ready(self, name: str, slots: int, *, exactly: bool) -> None:
        """See once a batch that the limit is there."""
        if name not in self._made:
            self._made[name] = asyncio.create_task(_make(name, slots, exactly=exactly))
        await self._made[name]

    async def close(self) -> None:
        """Give everything back that is not in use."""
        keepers = []
        for spare in self._spare.values():
            for lease in spare:
                lease.given_back.set()
                keepers.append(lease.keeper)
            spare.clear()
        await asyncio.gather(*(each for each in keepers if each is not None), return_exceptions=True)
        paces = await asyncio.gather(*self._paces.values(), return_exceptions=True)
        await asyncio.gather(*(each[1].close() for each in paces if not isinstance(each, BaseException)))


def _key_id(night: Night, provider: str) -> str:
    """The same in every batch; of a key that is missing, nothing will start."""
    try:
        return fingerprint(night.key(provider), provider)
    except FailureError:
        return "none"


async def _inherits_until(night: Night) -> float:
    living = await in_thread(night.ledger.living)
    return time.monotonic() + (_LEASE_S if living else 0.0)


async def _make(name: str, slots: int, *, exactly: bool) -> None:
    """See that the limit is there, and as large as asked for if `exactly`; without Prefect's server, do nothing."""

    async def make() -> None:
        async with get_client() as client:
            if not exactly:
                try:
                    await client.read_global_concurrency_limit_by_name(name)
                    return
                except ObjectNotFound:
                    pass
            try:
                await client.upsert_global_concurrency_limit_by_name(name, slots)
            except ObjectAlreadyExists:  # another worker made it in the same moment
                await client.upsert_global_concurrency_limit_by_name(name, slots)

    try:
        await make()
    except OutOfReach as error:
        get_run_logger().warning("Prefect does not answer, slots are counted here alone: %s", error)


@asynccontextmanager
async def rooms() -> AsyncIterator[Room]:
    """The slots of a batch, given back at its end."""
    room = Room()
    try:
        yield room
    finally:
        await room.close()

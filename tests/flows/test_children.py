"""Waiting for the flow runs of a spread batch."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Paused, Running

from flows.spread import Children
from overnight.night import Night


class Server:
    """Tells the same of every flow run it is asked for."""

    def __init__(self, run: FlowRun) -> None:
        self.run = run

    async def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return [self.run]


def children() -> Children:
    return Children({}, asyncio.Semaphore(1), {})


def night() -> Night:
    return cast(Night, type("Night", (), {"interrupt": None, "wish": lambda *_: None})())


async def test_a_fault_of_the_watcher_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_children: Children, _night: Night) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(Children, "_watch", broken)
    mine = children()
    with pytest.raises(LookupError, match="ours"):
        async with asyncio.timeout(60), mine.watched(night()):
            await mine._ended("a", FlowRun(id=uuid4(), flow_id=uuid4()), AsyncExitStack())


async def test_a_flow_run_that_waits_for_a_person_leaves_its_place_to_others() -> None:
    mine, place = children(), asyncio.Semaphore(1)
    run = FlowRun(id=uuid4(), flow_id=uuid4(), state=Running())
    async with AsyncExitStack() as slots:
        await slots.enter_async_context(place)
        waiting = asyncio.ensure_future(mine._ended("a", run, slots))
        await asyncio.sleep(0)  # it begins to wait
        server = Server(run)
        await mine._look(cast(PrefectClient, server), night())
        assert place.locked()
        server.run = run.model_copy(update={"state": Paused()})
        for _ in range(2):
            await mine._look(cast(PrefectClient, server), night())
            assert not place.locked()
        waiting.cancel()
    await place.acquire()
    assert place.locked(), "given back once"

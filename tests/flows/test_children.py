"""Waiting for the flow runs of a spread batch."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Paused, Running

from flows.single import single
from flows.spread import Children, _parameters
from overnight.handover import Deliver, Guards
from overnight.night import Night
from tests.overnight.samples import batch, task


class Server:
    """Tells the same of every flow run it is asked for."""

    def __init__(self, *runs: FlowRun) -> None:
        self.runs = list(runs)
        self.set: list[tuple[UUID, str | None]] = []

    async def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return self.runs

    async def set_flow_run_state(self, run_id: UUID, state: State[Any]) -> None:
        self.set.append((run_id, state.name))


def children() -> Children:
    return Children({}, asyncio.Semaphore(1))


def night() -> Night:
    return cast(Night, type("Night", (), {"interrupt": None, "wish": lambda *_: None})())


async def test_a_fault_of_the_watcher_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_children: Children, _night: Night) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(Children, "_watch", broken)
    mine = children()
    with pytest.raises(LookupError, match="ours"):
        async with asyncio.timeout(60), mine.watched(night()):
            await mine._ended("a", FlowRun(id=uuid4(), flow_id=uuid4()), AsyncExitStack(), lambda: None)


async def test_the_end_of_one_task_is_asked_of_its_flow_run_alone_and_once() -> None:
    mine = children()
    asked = cast(
        Night, type("Night", (), {"interrupt": None, "wish": lambda _, task_id="": "cancel" * (task_id == "a")})()
    )
    runs = {name: FlowRun(id=uuid4(), flow_id=uuid4(), state=Running()) for name in "ab"}
    async with AsyncExitStack() as slots:
        waiting = [asyncio.ensure_future(mine._ended(name, run, slots, lambda: None)) for name, run in runs.items()]
        await asyncio.sleep(0)  # they begin to wait
        server = Server(*runs.values())
        for _ in range(2):
            await mine._look(cast(PrefectClient, server), asked)
        assert server.set == [(runs["a"].id, "Cancelling")]
        mine._let_go()
        await asyncio.gather(*waiting)


async def test_a_flow_run_that_waits_for_a_person_leaves_its_place_to_others() -> None:
    mine, place = children(), asyncio.Semaphore(1)
    run = FlowRun(id=uuid4(), flow_id=uuid4(), state=Running())
    async with AsyncExitStack() as slots:
        await slots.enter_async_context(place)
        waiting = asyncio.ensure_future(mine._ended("a", run, slots, lambda: None))
        await asyncio.sleep(0)  # it begins to wait
        server = Server(run)
        await mine._look(cast(PrefectClient, server), night())
        assert place.locked()
        server.runs = [run.model_copy(update={"state": Paused()})]
        for _ in range(2):
            await mine._look(cast(PrefectClient, server), night())
            assert not place.locked()
        waiting.cancel()
    await place.acquire()
    assert place.locked(), "given back once"


def test_a_task_that_is_spread_keeps_its_guards_its_check_and_its_way_out() -> None:
    guards, way = Guards(size="refuse", allow_paths=("src/**",)), Deliver(how="push", remote="up", branch="n/{task}")
    asked = task(repo="https://git.example/app.git", guards=guards, deliver=way, verify_on="here", verify_twice=True)
    spending = SimpleNamespace(share=lambda asked: asked.limits.model_copy(update={"max_tokens": 5}))
    ledger = SimpleNamespace(batch_id="b1")
    whole = SimpleNamespace(batch=batch(asked), ledger=ledger, search_path="", spending=spending)
    given = _parameters(cast(Night, whole), asked, 2)
    assert set(given) <= set(inspect.signature(single.fn).parameters)
    assert Guards.model_validate(given["guards"]) == guards
    # the base is pinned to a commit there, so the branch that it was goes along
    assert Deliver.model_validate(given["deliver"]) == way.model_copy(update={"base": "main"})
    assert (given["verify_on"], given["verify_twice"]) == ("here", True)
    assert (given["attempt"], given["limits"]["attempts"], given["limits"]["max_tokens"]) == (2, 1, 5)

"""Waiting for the flow runs of a spread batch."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Paused, Running

from flows.part_given import parameters
from flows.shared_budget import _FULL, _TOKENS
from flows.single import single
from flows.spread import Children, _Child
from overnight.handover import Deliver, Guards
from overnight.ledger import Ledger
from overnight.night import Night
from overnight.spec import Budget
from overnight.spending import Spending
from tests.overnight.samples import LOCK, batch, planner, task


class Server:
    """Tells the same of every flow run it is asked for."""

    def __init__(self, *runs: FlowRun) -> None:
        self.runs = list(runs)
        self.set: list[tuple[UUID, str | None]] = []
        self.labelled: list[tuple[UUID, list[str]]] = []

    async def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return self.runs

    async def set_flow_run_state(self, run_id: UUID, state: State[Any]) -> None:
        self.set.append((run_id, state.name))

    async def update_flow_run_labels(self, run_id: UUID, labels: dict[str, Any]) -> None:
        self.labelled.append((run_id, list(labels)))
        next(run for run in self.runs if run.id == run_id).labels.update(labels)


def children() -> Children:
    return Children({}, asyncio.Semaphore(1))


def night(ends: str = "") -> Night:
    """A night without a budget, in which the end of one task is asked for."""
    spending = SimpleNamespace(full=lambda _: None)
    wish = lambda task_id="": "cancel" if task_id and task_id == ends else None  # noqa: E731  # as its callers see it
    return cast(Night, SimpleNamespace(interrupt=None, wish=wish, spending=spending))


def child(run: FlowRun, slots: AsyncExitStack, name: str = "a") -> _Child:
    return _Child(f"b1.{name}.1", task(id=name), run, slots, lambda: None)


async def test_a_fault_of_the_watcher_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_children: Children, _night: Night) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(Children, "_watch", broken)
    mine = children()
    with pytest.raises(LookupError, match="ours"):
        async with asyncio.timeout(60), mine.watched(night()):
            await mine._ended(child(FlowRun(id=uuid4(), flow_id=uuid4()), AsyncExitStack()))


async def test_the_end_of_one_task_is_asked_of_its_flow_run_alone_and_once() -> None:
    mine = children()
    runs = {name: FlowRun(id=uuid4(), flow_id=uuid4(), state=Running()) for name in "ab"}
    async with AsyncExitStack() as slots:
        waiting = [asyncio.ensure_future(mine._ended(child(run, slots, name))) for name, run in runs.items()]
        await asyncio.sleep(0)  # they begin to wait
        server = Server(*runs.values())
        for _ in range(2):
            await mine._look(cast(PrefectClient, server), night(ends="a"))
        assert server.set == [(runs["a"].id, "Cancelling")]
        mine._let_go()
        await asyncio.gather(*waiting)


async def test_what_flow_runs_tell_counts_once_and_each_that_works_is_told_once_of_a_full_cap(tmp_path: Path) -> None:
    mine, spec = children(), batch(task(id="a"), task(id="b"), budget=Budget(max_tokens=200))
    capped = night()
    capped.tell = lambda *_: None
    capped.spending = Spending(spec, LOCK, planner(spec, batch_id="b1"), Ledger(tmp_path, "b1"))
    runs = {name: FlowRun(id=uuid4(), flow_id=uuid4(), state=Running(), labels={_TOKENS: 110}) for name in "ab"}
    asks = FlowRun(id=uuid4(), flow_id=uuid4(), state=Paused())
    server = Server(*runs.values(), asks)
    async with AsyncExitStack() as slots:
        every = {**runs, "c": asks}
        waiting = [asyncio.ensure_future(mine._ended(child(run, slots, name))) for name, run in every.items()]
        await asyncio.sleep(0)  # they begin to wait
        server.runs[1].labels.clear()
        for _ in range(3):
            await mine._look(cast(PrefectClient, server), capped)
        assert server.labelled == [], "the same word, heard again, is no further use"
        server.runs[1].labels[_TOKENS] = 95
        for _ in range(3):
            await mine._look(cast(PrefectClient, server), capped)
        assert sorted(server.labelled) == sorted((run.id, [_FULL]) for run in runs.values())
        mine._let_go()
        await asyncio.gather(*waiting)


async def test_a_flow_run_that_waits_for_a_person_leaves_its_place_to_others() -> None:
    mine, place = children(), asyncio.Semaphore(1)
    run = FlowRun(id=uuid4(), flow_id=uuid4(), state=Running())
    async with AsyncExitStack() as slots:
        await slots.enter_async_context(place)
        waiting = asyncio.ensure_future(mine._ended(child(run, slots)))
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
    given = parameters(cast(Night, whole), asked, 2)
    assert set(given) <= set(inspect.signature(single.fn).parameters)
    assert Guards.model_validate(given["guards"]) == guards
    # the base is pinned to a commit there, so the branch that it was goes along
    assert Deliver.model_validate(given["deliver"]) == way.model_copy(update={"base": "main"})
    assert (given["verify_on"], given["verify_twice"]) == ("here", True)
    assert (given["attempt"], given["limits"]["attempts"], given["limits"]["max_tokens"]) == (2, 1, 5)

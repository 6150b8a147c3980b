"""An attempt on a worker tells the batch what it uses, and Prefect's silence costs it nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from flows import shared_budget
from flows.shared_budget import BUDGETED, shared, tags_for
from overnight import lockfile
from overnight.budget import Reached, Reading
from overnight.ledger import Ledger
from overnight.night import Night
from overnight.spec import Budget, BudgetCaps
from tests.overnight import samples
from tests.overnight.nights import Evening

Answer = Callable[[], Awaitable[None]]


async def well() -> None:
    """It takes it."""


async def away() -> None:
    raise httpx.ConnectError("away")


async def frozen() -> None:
    await asyncio.Event().wait()


class Api:
    """Prefect's server, which answers what it is told as it is bidden, one after the other."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.told: list[dict[str, Any]] = []
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(update_flow_run_labels=self._update)

    async def _update(self, _child: UUID, labels: dict[str, Any]) -> None:
        self.told.append(labels)
        self.asked.set()
        await self.answers.pop(0)()

    async def heard(self, count: int) -> None:
        while len(self.told) < count:
            self.asked.clear()
            await asyncio.wait_for(self.asked.wait(), 60)


@contextmanager
def attempt(tmp_path: Path, **flow_run: Any) -> Iterator[Night]:
    """One attempt of a batch that was spread, in its flow run."""
    run = FlowRun(id=uuid4(), flow_id=uuid4(), **{"tags": [BUDGETED], **flow_run})
    evening = Evening(tmp_path, "/srv/app", samples.BOX, lockfile.DEFAULT_LOCK)
    with evening.night(samples.task()) as night:
        night.ledger = Ledger(tmp_path / "state", "b1", "shout")
        given: dict[str, Any] = {"flow_run": run, "parameters": {}}
        with FlowRunContext.model_construct(**given):
            yield night


def used(tokens: int) -> Reading:
    return Reading("b1.shout.1", "zai", tokens, None)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_budget, "TELL_S", 0.01)


async def test_what_was_not_taken_is_told_again_and_only_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(away, well, well)
    monkeypatch.setattr(shared_budget, "get_client", api.client)
    with attempt(tmp_path) as night:
        async with shared(night):
            night.spending.tells(used(110))
            night.spending.tells(used(220))
            await api.heard(2)
            night.spending.tells(used(330))
            await api.heard(3)
    assert [told["overnight.tokens"] for told in api.told] == [220, 220, 330]
    assert all("overnight.usd" not in told for told in api.told), "what nobody knows is not told as nothing"


async def test_a_server_that_never_answers_holds_no_run_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(frozen)
    monkeypatch.setattr(shared_budget, "get_client", api.client)
    with attempt(tmp_path) as night:
        async with asyncio.timeout(60), shared(night):
            night.spending.tells(used(110))
            await api.heard(1)
            night.spending.tells(used(220))


async def test_without_a_budget_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(well)
    monkeypatch.setattr(shared_budget, "get_client", api.client)
    with attempt(tmp_path, tags=[]) as night:
        async with shared(night):
            night.spending.tells(used(110))
            await asyncio.sleep(0.1)
    assert api.told == []
    assert not tags_for(Budget())
    assert tags_for(Budget(providers={"zai": BudgetCaps(max_usd=1)})) == {BUDGETED}


async def test_an_attempt_that_a_worker_takes_when_the_cap_is_full_does_not_begin(tmp_path: Path) -> None:
    full = Reached("budget.max_tokens", 200, 220, 2, 0)
    with attempt(tmp_path, labels={shared_budget._FULL: json.dumps(asdict(full))}) as night:
        assert night.spending.refusal("zai") is None
        async with shared(night):
            refused = night.spending.refusal("zai")
    assert refused is not None
    assert f"{full}, before this attempt started" in refused.evidence[0].seen

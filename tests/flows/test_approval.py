"""A flow run that asks a person, while the API goes away or the run is cancelled or tried again."""

from __future__ import annotations

import asyncio
import threading
from itertools import count
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import State
from prefect.flow_runs import pause_flow_run
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Running

from flows import approval
from flows.approval import Decision
from overnight.night import Night

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]


def a_night() -> Night:
    """What asking needs of one."""
    return cast(Night, SimpleNamespace(interrupted=threading.Event()))


async def paused(run_id: UUID) -> bool:
    async with get_client() as client:
        state = (await client.read_flow_run(run_id)).state
    return state is not None and state.is_paused()


async def until_paused(run_id: UUID, wanted: bool = True) -> None:
    async with asyncio.timeout(60):
        for _ in count():
            if await paused(run_id) == wanted:
                return
            await asyncio.sleep(0.1)


async def answer(run_id: UUID, **form: Any) -> None:
    await until_paused(run_id)
    async with get_client() as client:
        await client.resume_flow_run(run_id, run_input=form)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Prefect's own waiting gives up once the flow run is paused, as after a minute without the API."""
    gave_up = asyncio.Event()

    async def pause(**how: Any) -> Any:
        asked = asyncio.ensure_future(cast(Any, pause_flow_run(**how)))
        await until_paused(flow_run.id)
        asked.cancel()
        gave_up.set()
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(approval, "pause_flow_run", pause)
    return gave_up


async def started(night: Night) -> tuple[UUID, asyncio.Future[Decision | None]]:
    """A flow run that asks, and what it will have heard."""
    began: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()

    @flow(name="asking")
    async def asking() -> Decision | None:
        began.set_result(UUID(str(flow_run.id)))
        return await approval._decision(night, "one commit")

    heard: asyncio.Future[Decision | None] = asyncio.ensure_future(cast(Any, asking()))
    return await began, heard


async def test_an_answer_given_after_the_api_was_away_is_heard(lost: asyncio.Event) -> None:
    run_id, heard = await started(a_night())
    await lost.wait()
    await answer(run_id, deliver="only those named below", tasks="a")
    decision = await asyncio.wait_for(heard, 60)
    assert decision is not None
    assert (decision.deliver, decision.tasks) == ("only those named below", "a")


async def test_a_flow_run_that_goes_on_without_an_answer_delivers_nothing(lost: asyncio.Event) -> None:
    run_id, heard = await started(a_night())
    await lost.wait()
    async with get_client() as client:
        await client.set_flow_run_state(run_id, Running(), force=True)
    assert await asyncio.wait_for(heard, 60) is None


async def test_a_cancel_before_it_could_ask_is_no_fault() -> None:
    heard: list[Decision | None] = []

    @flow(name="cancelled-early")
    async def asking() -> State[Any]:
        async with get_client() as client:
            await client.set_flow_run_state(UUID(str(flow_run.id)), Cancelling(), force=True)
        heard.append(await approval._decision(a_night(), "one commit"))
        return Cancelled()

    state: State[Any] = await cast(Any, asking(return_state=True))
    assert (heard, state.is_cancelled()) == ([None], True)


async def test_asking_twice_in_one_flow_run_pauses_twice() -> None:
    began: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()

    @flow(name="asking-twice")
    async def asking() -> list[Decision | None]:
        began.set_result(UUID(str(flow_run.id)))
        return [await approval._decision(a_night(), word) for word in ("first", "second")]

    heard = asyncio.ensure_future(cast(Any, asking()))
    run_id = await began
    for word in ("none", "all"):
        await answer(run_id, deliver=word)
        await until_paused(run_id, False)
    assert [decision.deliver for decision in await asyncio.wait_for(heard, 60)] == ["none", "all"]

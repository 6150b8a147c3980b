"""Artifacts and the events of a batch, as a real server keeps them; and an API that does not answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from overnight.doctor.records import Checkup, Diagnosis
from overnight.failures import Evidence, FailureKind, fail
from overnight.report import RouteReport
from tasks import pages
from tasks.board import open_board
from tasks.diagnose import diagnose
from tasks.publish import publish, publish_checkup
from tests.overnight.nights import Evening
from tests.tasks.pages import (
    artifacts,
    asked,
    ended_task_runs,
    events,
    in_a_flow,
    report_of,
    run_of,
    shown,
    started,
    until,
)

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]
REFUSED = fail(FailureKind.AUTH_REJECTED, Evidence(source="probe", seen="HTTP 401"), names={"provider": "rehearsal"})


def one_night(evening: Evening, batch_id: str) -> str:
    """A night of one task that succeeded; the page of its outcome."""
    task = evening.task("greet", "Add a greeting")
    with evening.night(task, batch_id=batch_id) as night:
        run = run_of(night, task, branch=f"overnight/{batch_id}/greet", usd=0.25)

        async def body() -> None:
            await shown(diagnose(night, run, return_state=True))
            await publish(night, report_of(night, run))

        runs = ended_task_runs(in_a_flow(body), 2)
    [outcome] = [run["id"] for run in runs if run["name"].endswith("outcome")]
    return f"/runs/task-run/{outcome}"


def test_two_nights_are_one_history_on_each_page(evening: Evening) -> None:
    one_night(evening, "night-1")
    page = one_night(evening, "night-2")
    for key in ("t-runs", "t-report", "t-task-greet"):
        words = [each["description"] for each in artifacts(key)]
        assert [sum(batch_id in word for word in words) for batch_id in ("night-1", "night-2")] == [1, 1]
    [row] = json.loads(artifacts("t-runs")[-1]["data"])
    assert (row["task"], row["state"], row["cause"], row["commits"], row["usd"]) == ("greet", "succeeded", "", 0, 0.25)
    assert (row["branch"], row["page"]) == ("overnight/night-2/greet", page)
    assert f"[Its task run]({page})" in artifacts("t-task-greet")[-1]["data"]
    assert page not in (evening.state / "batches" / "night-2" / "report.md").read_text()


def test_the_end_of_a_batch_is_announced_with_what_failed(evening: Evening) -> None:
    task = evening.task("greet", "Add a greeting")
    with evening.night(task, batch_id="announced") as night:
        run = run_of(night, task, state="failed", failure=REFUSED)

        async def body() -> None:
            await publish(night, report_of(night, run))

        in_a_flow(body)
    [event] = events("overnight.batch.finished", "announced")
    labels, payload = event["resource"], event["payload"]
    assert labels["prefect.resource.id"] == "overnight.batch.t"
    assert (labels["overnight.state"], labels["overnight.exit-code"]) == ("failed", "1")
    assert payload["words"] == "t: 1 failed"
    assert [(each["task"], each["kind"], each["remedy"]) for each in payload["failed"]] == [
        ("greet", "auth-rejected", REFUSED.remedy)
    ]


def test_what_a_doctor_found_is_a_table_and_a_page(evening: Evening) -> None:
    names = {"host": "box", "harness": "scripted", "provider": "rehearsal"}
    routes = [
        RouteReport(**names, model="good", state="open", preflight_s=1.0),
        RouteReport(**names, model="bad", state="shut", preflight_s=0.5, failure=REFUSED),
    ]

    async def body() -> None:
        await publish_checkup("Weekly Look", Checkup(diagnoses=tuple(Diagnosis(route=route) for route in routes)))

    in_a_flow(body)
    [table] = artifacts("doctor-weekly-look")
    linked = "[Every call, and the evidence](../key/doctor-weekly-look-report)"
    assert table["description"] == f"Routes of Weekly Look: 1 open, 1 shut. {linked}"
    rows = [(row["model"], row["state"], row["cause"], row["mend"]) for row in json.loads(table["data"])]
    assert rows == [("bad", "shut", "auth-rejected", REFUSED.remedy), ("good", "open", "", "")]
    [page] = artifacts("doctor-weekly-look-report")
    assert f"mend: {REFUSED.remedy}" in page["data"]


def test_the_board_is_true_while_the_batch_runs(evening: Evening) -> None:
    one, two, three = (evening.task(name, "Add a greeting") for name in ("one", "two", "three"))
    seen: list[tuple[float, str]] = []

    async def shows(words: str) -> None:
        def look() -> bool:
            [board] = artifacts("t-progress")[-1:]
            seen.append((round(board["data"]), board["description"]))
            return bool(board["description"] == words)

        await asyncio.to_thread(until, look)

    with evening.night(one, two, three, batch_id="board") as night:

        async def body() -> None:
            board = await open_board(night)
            await shows("0 of 3 decided")
            for task in (one, two, three):
                started(night, task)
            await shows("0 of 3 decided; 3 running")
            await board.decided(run_of(night, one))
            await shows("1 of 3 decided: 1 succeeded; 2 running")
            await board.decided(run_of(night, two, state="failed", failure=REFUSED))
            await board.decided(run_of(night, three, state="cancelled", left_running=True))
            await shows("2 of 3 decided: 1 succeeded, 1 failed; 1 left running")

        in_a_flow(body)
    assert {progress for progress, _ in seen} == {0, 33, 67}


def test_the_board_of_many_tasks_writes_no_more_than_once_a_second(
    evening: Evening, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []
    send: Callable[..., Awaitable[httpx.Response]] = httpx.AsyncClient.send

    async def noted(self: httpx.AsyncClient, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        writes.append(request.method)
        return await send(self, request, **kwargs)

    monkeypatch.setattr(httpx.AsyncClient, "send", noted)
    monkeypatch.setattr("tasks.board.LOOK_S", 60.0)
    tasks = [evening.task(f"t{n}", "Add a greeting") for n in range(50)]
    with evening.night(*tasks, batch_id="many") as night:

        async def body() -> None:
            board = await open_board(night)
            writes.clear()
            for task in tasks:
                await board.decided(run_of(night, task))
            assert writes == ["PATCH"]

        in_a_flow(body)
    assert artifacts("t-progress")[-1]["description"] == "50 of 50 decided: 50 succeeded"
    assert artifacts("t-progress")[-1]["data"] == 100


def test_a_page_that_the_api_does_not_take_is_missing_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"http://127.0.0.1:{mute.getsockname()[1]}/api"
            async with PrefectClient(url) as silent:
                monkeypatch.setattr(pages, "WRITE_S", 0.2)
                taken.append(await pages.written(silent.read_flow_runs()))
        monkeypatch.setattr(pages, "WRITE_S", 20.0)
        async with PrefectClient(url) as gone:
            taken.append(await pages.written(gone.read_flow_runs()))

    flow_run = in_a_flow(body)
    assert taken == [False, False]
    until(
        lambda: [
            line
            for line in asked("/logs/filter", logs={"flow_run_id": {"any_": [str(flow_run)]}})
            if "a page is missing" in line["message"]
        ]
    )

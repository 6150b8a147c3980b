"""Names, tags, states and log lines of task runs, as a real server shows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from overnight.failures import Evidence, FailureKind, fail
from tasks.diagnose import diagnose
from tasks.dispatch import dispatch
from tasks.marks import mark_flow_run, tags_of
from tasks.monitor import monitor
from tasks.preflight import preflight
from tasks.skip import skip
from tests.overnight.nights import COMMIT, Evening, script
from tests.tasks.pages import asked, ended_task_runs, events, in_a_flow, run_of, shown, until

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]
TAGS = ["harness:scripted", "host:box", "provider:rehearsal"]
ROUTE = "scripted on box with rehearsal-large of rehearsal"
SEEN = Evidence(source="clock", seen="no event for 420 s")


def test_a_refused_key_shows_as_such_and_is_tried_once(evening: Evening) -> None:
    evening.key = "sk-rehearsal-refused-0123456789abcdef"
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="refused") as night:

        async def body() -> None:
            await shown(preflight(night, task, return_state=True))

        [run] = ended_task_runs(in_a_flow(body), 1)
    assert run["name"] == f"batch t / preflight {ROUTE}"
    assert (run["state_type"], run["state_name"], run["run_count"]) == ("FAILED", "Failed", 1)
    assert run["state"]["message"].startswith("auth-rejected: ")
    assert "Mend: replace the key: overnight credentials add rehearsal" in run["state"]["message"]
    assert sorted(run["tags"]) == ["cause:auth-rejected", *TAGS]
    [event] = events("overnight.route.shut", "refused")
    assert event["resource"]["prefect.resource.id"] == "overnight.route.box.scripted.rehearsal.rehearsal-large"
    assert event["resource"]["overnight.kind"] == "auth-rejected"
    assert event["resource"]["overnight.family"] == "auth"
    assert evening.key not in str(event)
    assert evening.key not in str(run)


def test_an_open_route_is_green(evening: Evening) -> None:
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="open") as night:

        async def body() -> None:
            await shown(preflight(night, task, return_state=True))

        [run] = ended_task_runs(in_a_flow(body), 1)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")
    assert run["state"]["message"].startswith("open after ")


def test_a_run_on_its_host_is_named_tagged_and_its_log_says_where_the_agents_words_are(evening: Evening) -> None:
    task = evening.task("greet", script('{"say": "words of the agent"}', f'{{"sh": "{COMMIT}"}}'))
    with evening.night(task, batch_id="named") as night:

        async def body() -> None:
            await dispatch(night, night.planner.resolve(task, 1, None))
            await monitor(night, night.planner.resolve(task, 1, None))

        flow_run = in_a_flow(body)
        runs = ended_task_runs(flow_run, 2)
    assert sorted(run["name"] for run in runs) == ["batch t / greet #1 dispatch", "batch t / greet #1 monitor"]
    assert [sorted(run["tags"]) for run in runs] == [TAGS, TAGS]

    def lines() -> list[str]:
        found = asked("/logs/filter", logs={"flow_run_id": {"any_": [str(flow_run)]}})
        told = [line["message"] for line in found if "overnight logs named.greet.1" in line["message"]]
        assert not any("words of the agent" in line["message"] for line in found)
        return told if len(told) == 2 else []

    until(lines)


def test_tags_ask_the_api_for_nothing(evening: Evening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect looks up a concurrency limit for tags it knows before the call; an absent API would fail the task."""
    paths: list[str] = []
    send: Callable[..., Awaitable[httpx.Response]] = httpx.AsyncClient.send

    async def noted(self: httpx.AsyncClient, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        paths.append(request.url.path)
        return await send(self, request, **kwargs)

    monkeypatch.setattr(httpx.AsyncClient, "send", noted)
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="free") as night:

        async def body() -> None:
            paths.clear()
            await shown(diagnose(night, run_of(night, task), return_state=True))
            await shown(skip(night, run_of(night, task, run_id="", attempt=0), return_state=True))
            assert paths == []

        runs = ended_task_runs(in_a_flow(body), 2)
    assert [sorted(run["tags"]) for run in runs] == [TAGS, TAGS]


def test_a_stalled_attempt_a_skipped_task_and_their_events(evening: Evening) -> None:
    first, second = evening.task("first", "Add a greeting"), evening.task("second", "Add a greeting")
    quiet = fail(FailureKind.WENT_QUIET, SEEN)
    shut = fail(FailureKind.AUTH_REJECTED, Evidence(source="probe", seen="401"), names=first.route.names)
    with evening.night(first, second, batch_id="ends") as night:

        async def body() -> None:
            stalled = run_of(night, first, state="failed", failure=quiet, attempt=1)
            await shown(diagnose(night, stalled, return_state=True))
            await shown(skip(night, night.skipped(second, shut), return_state=True))

        runs = {run["name"]: run for run in ended_task_runs(in_a_flow(body), 2)}
        assert night.ledger.outcome("ends.first.1") is not None
    assert runs.keys() == {"batch t / first #1 outcome", "batch t / second skipped"}
    stalled = runs["batch t / first #1 outcome"]
    assert (stalled["state_type"], stalled["state_name"], stalled["run_count"]) == ("FAILED", "Failed", 1)
    assert "cause:went-quiet" in stalled["tags"]
    assert stalled["state"]["message"].startswith("went-quiet: no event for 420 s. Mend: ")
    skipped = runs["batch t / second skipped"]
    assert (skipped["state_type"], skipped["state_name"]) == ("CANCELLED", "Skipped")
    found = until(lambda: two if len(two := events("overnight.run.finished", "ends")) == 2 else [])
    by_task = {event["resource"]["overnight.task"]: event for event in found}
    labels = by_task["first"]["resource"]
    assert labels["prefect.resource.id"] == "overnight.task.t.first"
    assert {name: labels[f"overnight.{name}"] for name in ("state", "kind", "family", "provider", "host", "batch")} == {
        "state": "failed",
        "kind": "went-quiet",
        "family": "stall",
        "provider": "rehearsal",
        "host": "box",
        "batch": "t",
    }
    assert by_task["first"]["payload"]["evidence"] == ["clock: no event for 420 s"]
    assert by_task["first"]["payload"]["remedy"] == quiet.remedy
    roles = {
        related["prefect.resource.role"]: related["prefect.resource.id"] for related in by_task["first"]["related"]
    }
    assert roles["batch"] == "overnight.batch.t"
    assert roles["route"] == "overnight.route.box.scripted.rehearsal.rehearsal-large"
    assert by_task["second"]["resource"]["overnight.state"] == "skipped"


def test_a_flow_run_can_be_tagged_from_within(evening: Evening) -> None:
    task = evening.task("t", "Add a greeting")

    async def body() -> None:
        await mark_flow_run(tags_of([task.route]), "batch t")

    flow_run = in_a_flow(body)
    [found] = asked("/flow_runs/filter", flow_runs={"id": {"any_": [str(flow_run)]}})
    assert (found["name"], sorted(found["tags"])) == ("batch t", TAGS)

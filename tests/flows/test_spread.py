"""A batch whose tasks are flow runs of their own on a work pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from flows.limits import key_limit, provider_limit, requests_limit
from flows.part_report import THROUGH
from overnight.breaker import BreakerFile
from overnight.redact import fingerprint
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Shell, Tape, Wait
from tests.flows.served import Served, served
from tests.flows.test_resume_session import ENDS_WELL, ONE, TWO, subjects
from tests.flows.test_single import has_committed, living, until, words
from tests.overnight.nights import COMMIT, KEY, MODEL, script

pytestmark = pytest.mark.full

QUICK, IDLE, SLOW, LONG = "Add a greeting", "Only talk about it", "Take your time over it", "Never end"
TAPES = (
    Tape(QUICK, (Shell(COMMIT),)),
    Tape(SLOW, (Shell(COMMIT), Wait(20))),
    Tape(LONG, (Shell(COMMIT), Wait(300))),
    Tape(IDLE, ()),
)
ANSWER = 110  # tokens of the emulated provider's
LIMITS = {"first_event_s": None, "quiet_s": None, "total_s": 300, "grace_s": 1, "attempts": 1}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("spread"), TAPES, "--workers", "2") as here:
        yield here


def batch_file(up: Served, name: str, tasks: list[dict[str, Any]], **more: Any) -> Path:
    route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": MODEL}
    defaults = {"repo": str(up.repo), "base": "main", "route": route, "limits": LIMITS, "ask_for_commit": False}
    path = up.directory / f"{name}.yaml"
    whole = {"schema": 1, "name": name, "spread": True, "hosts": {"box": up.host}, "defaults": defaults, "tasks": tasks}
    whole |= more
    path.write_text(json.dumps(whole))
    return path


def tasks(instruction: str, count: int) -> list[dict[str, Any]]:
    return [{"id": f"t{i}", "instruction": instruction} for i in range(count)]


def report(up: Served, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(up.state.glob(f"batches/{name}-*/report.json")).read_text())
    return found


def test_each_task_is_a_flow_run_and_the_batch_reports_them_all(up: Served) -> None:
    asked = {"rehearsal": {"concurrent": 9, "each_key": {"requests": 50, "per_s": 3600}}}
    path = batch_file(up, "wide", [*tasks(QUICK, 4), {"id": "idle", "instruction": IDLE}], providers=asked)
    run = up.ended(up.start("batch/batch", files=[str(path)]), 300)
    assert words(run).startswith("Failed: 4 succeeded, 1 failed; no-commit: ")
    assert run.name == "batch wide"
    found = report(up, "wide")
    assert {r["task_id"]: r["state"] for r in found["runs"]} == {
        **{f"t{i}": "succeeded" for i in range(4)},
        "idle": "failed",
    }
    for i in range(4):
        assert up.git("log", "--format=%s", f"main..overnight/{found['batch_id']}/t{i}") == "Add greeting"
    assert len(list(up.runs.glob("wide-*.t*"))) == 4
    at_once, window = provider_limit("rehearsal"), key_limit("rehearsal", fingerprint(KEY, "rehearsal"))
    read = "read_global_concurrency_limit_by_name"
    limits = [up.call(methodcaller(read, name)) for name in (at_once, requests_limit(window))]
    assert [(limit.limit, limit.active_slots) for limit in limits] == [(9, 0), (50, 9)], "2 answers a commit, and 1"


def flow_processes(name: str, up: Served) -> list[psutil.Process]:
    """The processes that carry flow runs of this name."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        environ = process.info["environ"] or {}
        run_id = environ.get("PREFECT__FLOW_RUN_ID")
        if run_id and environ.get("PREFECT_API_URL") == up.api[0] and up.run(UUID(run_id)).name.startswith(name):
            found.append(process)
    return found


def check_whole(up: Served, name: str) -> None:
    found = report(up, name)
    for i in range(3):
        assert up.git("log", "--format=%s", f"main..overnight/{found['batch_id']}/t{i}") == "Add greeting"
    assert sorted(p.name.split(".")[1] for p in up.runs.glob(f"{name}-*.t*")) == ["t0", "t1", "t2"]
    assert not living(up)


def test_tasks_whose_flows_died_are_found_again_and_nothing_runs_twice(up: Served) -> None:
    begun = up.start("batch/batch", files=[str(batch_file(up, "torn", tasks(SLOW, 3)))])
    until(lambda: has_committed(up, "torn", 3), 120)
    for process in flow_processes("batch torn / ", up):
        with suppress(psutil.NoSuchProcess):  # gone with the one before
            process.kill()
    assert words(up.ended(begun, 400)) == "Completed: 3 succeeded"
    check_whole(up, "torn")


def shot(up: Served, name: str, begun: UUID) -> UUID:
    """The flow run that goes on with a batch whose own is killed now."""
    for process in flow_processes(f"batch {name}", up):
        if process.environ()["PREFECT__FLOW_RUN_ID"] == str(begun):
            process.kill()
    assert words(up.ended(begun)).startswith("Crashed: ")
    return up.start("batch/batch", resume=next(up.state.glob(f"batches/{name}-*")).name)


def test_a_batch_whose_flow_died_is_resumed_and_finds_its_flow_runs(up: Served) -> None:
    begun = up.start("batch/batch", files=[str(batch_file(up, "shot", tasks(SLOW, 3)))])
    until(lambda: has_committed(up, "shot", 3), 120)
    assert words(up.ended(shot(up, "shot", begun), 400)) == "Completed: 3 succeeded"
    check_whole(up, "shot")


def test_cancel_reaches_every_task(up: Served) -> None:
    begun = up.start("batch/batch", files=[str(batch_file(up, "stop", tasks(LONG, 3)))])
    until(lambda: has_committed(up, "stop", 3), 120)
    up.cancel(begun)
    assert words(up.ended(begun)).startswith("Cancelled")
    until(lambda: not living(up))
    until(lambda: len(up.git("for-each-ref", "--format=%(refname)", "refs/heads/overnight/stop-*/*").split()) == 3)


def test_the_command_ends_one_task_that_a_worker_carries_and_then_the_rest(up: Served) -> None:
    begun = up.start("batch/batch", files=[str(batch_file(up, "halt", tasks(LONG, 2)))])
    until(lambda: has_committed(up, "halt", 2), 120)
    batch_id = next(up.state.glob("batches/halt-*")).name
    said = up.overnight("cancel", batch_id, "t0", "--state", up.state)
    assert said.startswith(f"{batch_id}.t0.1: cancelled, 1 commit")
    places = [psutil.Process(pid).cwd() for pid in living(up)]
    assert places
    assert all(f"{batch_id}.t1.1" in place for place in places), "the other one goes on"
    up.overnight("cancel", batch_id, "--state", up.state)
    assert words(up.ended(begun)).startswith("Cancelled")
    assert not living(up)
    assert {run["task_id"]: run["state"] for run in report(up, "halt")["runs"]} == {
        "t0": "cancelled",
        "t1": "cancelled",
    }
    assert len(up.git("for-each-ref", "--format=%(refname)", f"refs/heads/overnight/{batch_id}/*").split()) == 2


def ended(up: Served, name: str) -> list[tuple[str, str, str, str | None]]:
    """How each attempt of a batch ended: its run's end, provider, state and cause."""
    return [
        (run["run_id"].partition(".")[2], run["provider"], run["state"], (run["failure"] or {}).get("kind"))
        for run in report(up, name)["runs"]
    ]


def evidence(up: Served, name: str, number: int) -> str:
    return "; ".join(seen["seen"] for seen in report(up, name)["runs"][number]["failure"]["evidence"])


def test_the_batch_chooses_the_route_of_each_attempt_and_each_is_a_flow_run(up: Served) -> None:
    route = [{"provider": name} for name in ("rehearsal", "spare")]
    moves = {"id": "moves", "instruction": QUICK, "route": route, "limits": {"attempts": 2}}
    up.provider.set_fault("well", Fault(FaultKind.KEY_REFUSED, spares_probes=True))
    try:
        run = up.ended(up.start("batch/batch", files=[str(batch_file(up, "moved", [moves]))]), 300)
    finally:
        up.provider.set_fault("well", None)
    assert words(run) == "Completed: 1 succeeded"
    assert ended(up, "moved") == [
        ("moves.1", "rehearsal", "failed", "auth-rejected"),
        ("moves.2", "spare", "succeeded", None),
    ]
    named = FlowRunFilterName(like_="batch moved / ")
    runs = up.call(methodcaller("read_flow_runs", flow_run_filter=FlowRunFilter(name=named)))
    assert {run.name for run in runs} == {"batch moved / moves", "batch moved / moves #2"}
    found = report(up, "moved")
    [passed] = found["runs"][1]["passed_over"]
    assert (passed["route"]["provider"], passed["because"]) == ("rehearsal", "shut")
    assert {route["provider"]: route["state"] for route in found["routes"]} == {"rehearsal": "shut", "spare": "open"}
    assert sorted(path.name for path in (up.state / "parts" / found["batch_id"]).iterdir()) == ["moves", "moves+2"]


def test_the_first_on_a_new_route_runs_alone_until_its_worker_has_heard_an_answer(up: Served) -> None:
    route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": "rehearsal-small"}
    path = batch_file(up, "alone", [{**task, "route": route} for task in tasks(SLOW, 2)])
    assert words(up.ended(up.start("batch/batch", files=[str(path)]), 400)) == "Completed: 2 succeeded"
    named = FlowRunFilter(name=FlowRunFilterName(like_="batch alone / "))
    first, second = sorted(up.call(methodcaller("read_flow_runs", flow_run_filter=named)), key=lambda run: run.created)
    assert THROUGH in first.tags
    assert first.start_time < second.created < first.end_time, "it came after the answer, and not after the end"


def test_the_next_attempt_is_told_what_the_check_said(up: Served) -> None:
    task = {"id": "told", "instruction": QUICK, "verify": "echo so it failed; false", "feed_back": True}
    path = batch_file(up, "back", [{**task, "limits": {"attempts": 2}}])
    assert words(up.ended(up.start("batch/batch", files=[str(path)]), 300)).startswith(
        "Failed: 1 failed; verify-failed"
    )
    assert [end for _, _, _, end in ended(up, "back")] == ["verify-failed"] * 2
    batch_id = report(up, "back")["batch_id"]
    second = up.state / "parts" / batch_id / "told+2" / "runs" / f"{batch_id}.told.2" / "plan.json"
    assert "so it failed" in json.loads(second.read_text())["argv"][-1]


def test_the_next_attempt_goes_on_with_the_session_of_the_first(up: Served) -> None:
    task = {"id": "on", "instruction": script(ONE, *ENDS_WELL, TWO), "verify": "cat two", "resume_session": True}
    path = batch_file(up, "on", [{**task, "feed_back": True, "limits": {"attempts": 2}}])
    assert words(up.ended(up.start("batch/batch", files=[str(path)]), 300)) == "Completed: 1 succeeded"
    first, second = report(up, "on")["runs"]
    assert (subjects(first), subjects(second)) == (["one"], ["one", "two"])
    assert second["resumed"]["session"] == first["session"] == second["session"]


def test_a_budget_holds_for_what_workers_run_and_for_what_has_not_begun(up: Served) -> None:
    hosts = {"box": {**up.host, "slots": 1}}
    path = batch_file(up, "dear", tasks(SLOW, 2), budget={"max_tokens": 1}, hosts=hosts)
    up.ended(up.start("batch/batch", files=[str(path)]), 300)
    assert ended(up, "dear") == [
        ("t0.1", "rehearsal", "failed", "budget-limit"),
        ("", "rehearsal", "skipped", "budget-limit"),
    ]
    assert "limits.max_tokens is 1" in evidence(up, "dear", 0)
    assert "budget.max_tokens 1 is reached" in evidence(up, "dear", 0)


def test_a_budget_that_runs_use_up_together_ends_them_at_their_provider_also_after_a_resume(up: Served) -> None:
    other = {"id": "other", "instruction": QUICK, "route": {"provider": "spare"}}
    budget = {"providers": {"rehearsal": {"max_tokens": 2 * ANSWER}}}
    path = batch_file(up, "used", [*tasks(LONG, 2), other], budget=budget)
    begun = up.start("batch/batch", files=[str(path)])
    until(lambda: has_committed(up, "used", 3), 120)
    up.ended(shot(up, "used", begun), 200)
    assert ended(up, "used") == [
        ("t0.1", "rehearsal", "failed", "budget-limit"),
        ("t1.1", "rehearsal", "failed", "budget-limit"),
        ("other.1", "spare", "succeeded", None),
    ]
    for number in range(2):
        assert f"budget.providers.rehearsal.max_tokens {2 * ANSWER} is reached: {2 * ANSWER} tokens of 2 attempts" in (
            evidence(up, "used", number)
        )
        branch = f"overnight/{report(up, 'used')['batch_id']}/t{number}"
        assert up.git("log", "--format=%s", f"main..{branch}") == "Add greeting"


def test_a_stacked_task_starts_from_what_this_repository_never_had(up: Served) -> None:
    """Git forgets here what was collected, as if another machine had, while the checks of the tasks below wait."""
    gate, commits = up.directory / "gate", "git add -A && git commit -qm"
    below = {"verify": f"until [ -e {gate} ]; do sleep 0.2; done"}
    whole: list[dict[str, Any]] = [
        {"id": "kept", "instruction": script(f'{{"sh": "echo 1 > one && {commits} one"}}'), **below},
        {"id": "lost", "instruction": script(f'{{"sh": "echo 2 > two && {commits} two"}}'), **below},
    ]
    above = {"instruction": script(f'{{"sh": "cat one > three && {commits} three"}}'), "stacked": True}
    whole += [{"id": f"on-{task['id']}", "after": [task["id"]], **above} for task in whole]
    begun = up.start("batch/batch", files=[str(batch_file(up, "stack", whole))])
    until(lambda: len(list(up.runs.glob("stack-*.verify/started.json"))) == 2, 120)
    batch_id = next(up.state.glob("batches/stack-*")).name
    for ref in up.git("for-each-ref", "--format=%(refname)").splitlines():
        if batch_id in ref:
            up.git("update-ref", "-d", ref)
    up.git("gc", "-q", "--prune=now")
    (up.runs / f"{batch_id}.lost.1").rename(up.runs / f"{batch_id}.lost.away")
    gate.touch()
    up.ended(begun, 300)
    assert [end for *_, end in ended(up, "stack")] == [None, None, None, "workspace"]
    run, failed = report(up, "stack")["runs"][2:]
    assert subjects(run) == ["three"]
    assert up.git("log", "--format=%s", f"main..{run['branch']}").splitlines() == ["three", "one"]
    assert "there is no repository in" in evidence(up, "stack", 3)
    assert f"refs/overnight/{batch_id}.lost.1/head" in failed["failure"]["remedy"]
    assert not (up.runs / f"{batch_id}.on-lost.1").exists(), "no agent was started"


def test_a_failure_counts_once_on_the_breakers_of_the_state_directory(up: Served) -> None:
    path = batch_file(up, "counted", tasks(QUICK, 1))
    up.provider.set_fault("well", Fault(FaultKind.SERVER_ERROR, spares_probes=True))
    try:
        up.ended(up.start("batch/batch", files=[str(path)]), 300)
    finally:
        up.provider.set_fault("well", None)
    assert [end for *_, end in ended(up, "counted")] == ["provider-error"]
    assert BreakerFile(up.state).read()["provider rehearsal"].failures == 1

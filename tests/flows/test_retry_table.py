"""Every row of the table of failures, carried out: one night through Prefect's engine in which each kind happens.

Each kind has three tasks. `alone` has one route and three attempts, `other` waits for that same route, which takes
one run at a time, and `both` has a second route for its second attempt. What a scripted agent, an emulated provider
or a host can fail by is so failed; the rest is reported by the runs of a carrier that stands in for theirs.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import time
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run

from flows.attempts import carry_out, in_slots
from flows.conduct import Carry, Conductor
from flows.limits import Room, rooms
from overnight import keyshape
from overnight.clock import VARIABLE, Clock
from overnight.decisions import Start
from overnight.failures import Failure, FailureKind
from overnight.ledger import Ledger
from overnight.night import Night, Stages
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.report import BatchReport, RunReport
from overnight.route import Route
from overnight.spec import BatchSpec, HostSpec, Limits, TaskSpec
from tasks.diagnose import diagnose
from tests.overnight.nights import KEY, MODEL, PYTHON, TAPES, make_lock, make_repo, script
from tests.overnight.samples import proven

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]
K, F = FailureKind, FaultKind

SPEED, HOURS = 60.0, 8.0
RETRY_AFTER_S, BACKOFF_S, OPENS_AFTER_S = 90, 30, 120
SPARE, WORK = "spare", "Add a greeting"
QUIET_S = 5.0
FAST = Limits(total_s=60, first_event_s=None, quiet_s=None, grace_s=0.5, attempts=3)


@dataclass(frozen=True)
class Row:
    """What a kind must come to.

    Args:
        attempts: Of a task with one route and three attempts.
        second: Where a task with two routes has its second attempt; None when it has none.
        shut: Another task of the batch that has this route alone never starts.
        waits_s: So long, at least, after the first attempt; the other task has the slot meanwhile.
    """

    attempts: int
    second: Literal["same", "elsewhere"] | None
    shut: bool = False
    waits_s: float | None = None


A_PERSON = Row(1, "elsewhere", shut=True)
NEVER = Row(1, None)
THE_PLACE = Row(1, "elsewhere")
ONCE_MORE = Row(2, "same")
ATTEMPTS = Row(3, "same")
TABLE = {
    # auth
    K.AUTH_REJECTED: A_PERSON,
    K.KEY_MISSING: A_PERSON,
    # setup
    K.WRONG_HEADER: A_PERSON,
    K.MODEL_UNKNOWN: A_PERSON,
    K.MODEL_MISMATCH: A_PERSON,
    K.NOT_THE_API: A_PERSON,
    K.HOST_KEY_UNKNOWN: A_PERSON,
    K.HARNESS_USAGE: A_PERSON,
    K.REQUEST_REJECTED: NEVER,
    K.PERMISSION_DENIED: NEVER,
    K.WORKSPACE: NEVER,
    # quota; the window of this row opens when the night is over
    K.BILLING: A_PERSON,
    K.PLAN_EXPIRED: A_PERSON,
    K.QUOTA_WINDOW: A_PERSON,
    # provider
    K.RATE_LIMITED: Row(3, "same", waits_s=RETRY_AFTER_S),
    K.OVERLOADED: Row(3, "same", waits_s=RETRY_AFTER_S),
    K.PROVIDER_ERROR: Row(3, "same", waits_s=BACKOFF_S),
    K.PROVIDER_MUTE: Row(3, "same", waits_s=BACKOFF_S),
    # network and host
    K.NETWORK: Row(3, "elsewhere", waits_s=BACKOFF_S),
    K.HOST_UNREACHABLE: Row(3, "elsewhere", waits_s=BACKOFF_S),
    K.HOST_AUTH: A_PERSON,
    K.HOST_KEY_MISMATCH: A_PERSON,
    K.HOST_UNFIT: A_PERSON,
    K.DISK_FULL: THE_PLACE,
    K.OUT_OF_MEMORY: THE_PLACE,
    K.LOST: ATTEMPTS,
    # harness
    K.HARNESS_MISSING: A_PERSON,
    K.HARNESS_CRASHED: ATTEMPTS,
    K.LOG_LIMIT: NEVER,
    # stall
    K.SILENT_START: ONCE_MORE,
    K.WENT_QUIET: ONCE_MORE,
    K.LOOPING: ONCE_MORE,
    K.NO_CHANGE: ONCE_MORE,
    # work
    K.NO_COMMIT: ATTEMPTS,
    K.VERIFY_FAILED: ATTEMPTS,
    K.TOOL_STUCK: ATTEMPTS,
    K.TIME_LIMIT: NEVER,
    K.TURN_LIMIT: NEVER,
    K.BUDGET_LIMIT: NEVER,
    K.CONTEXT_OVERFLOW: NEVER,
    # ours, and nobody's
    K.COLLECT_FAILED: NEVER,
    K.CANCELLED: NEVER,
    K.DEADLINE: NEVER,
    K.PREDECESSOR: NEVER,
    K.INTERNAL: NEVER,
    K.UNKNOWN: NEVER,
}


@dataclass(frozen=True)
class Trouble:
    """How a kind comes about in truth."""

    fault: Fault | None = None
    instruction: str = WORK
    verify: str | None = None
    base: str = "main"
    host: str = "box"
    harness: str = "scripted"
    limits: dict[str, Any] = field(default_factory=dict)


QUIET = ('{"say": "on it"}', '{"sh": "echo half > left.txt"}', '{"sleep": 50}')
REAL = {
    K.AUTH_REJECTED: Trouble(Fault(F.KEY_REFUSED)),
    K.KEY_MISSING: Trouble(),
    K.MODEL_UNKNOWN: Trouble(Fault(F.MODEL_NOT_FOUND)),
    K.NOT_THE_API: Trouble(Fault(F.HTML_PAGE)),
    K.REQUEST_REJECTED: Trouble(Fault(F.CONTENT_REFUSED)),
    K.CONTEXT_OVERFLOW: Trouble(Fault(F.CODED, code="1261")),
    K.BILLING: Trouble(Fault(F.NO_BALANCE)),
    K.PLAN_EXPIRED: Trouble(Fault(F.CODED, code="1309")),
    K.QUOTA_WINDOW: Trouble(),  # its fault needs the hour
    K.RATE_LIMITED: Trouble(Fault(F.RATE_LIMITED, retry_after_s=RETRY_AFTER_S)),
    K.OVERLOADED: Trouble(Fault(F.OVERLOADED, retry_after_s=RETRY_AFTER_S)),
    K.PROVIDER_ERROR: Trouble(Fault(F.SERVER_ERROR)),
    K.NETWORK: Trouble(),  # its provider's port is closed
    K.HOST_AUTH: Trouble(host="refusing"),
    K.HOST_KEY_MISMATCH: Trouble(host="another"),
    K.HOST_KEY_UNKNOWN: Trouble(host="unpinned"),
    K.HOST_UNFIT: Trouble(host="unfit"),
    K.DISK_FULL: Trouble(host="full"),
    K.HARNESS_MISSING: Trouble(harness="claude-code"),
    K.HARNESS_CRASHED: Trouble(instruction=script('{"kill": "KILL"}')),
    K.WENT_QUIET: Trouble(instruction=script(*QUIET), limits={"quiet_s": QUIET_S}),
    K.NO_COMMIT: Trouble(instruction="Do nothing"),
    K.VERIFY_FAILED: Trouble(verify="echo never; false"),
    K.TURN_LIMIT: Trouble(instruction="Go six steps", limits={"max_turns": 1}),
    K.TIME_LIMIT: Trouble(instruction=script('{"sleep": 50}'), limits={"total_s": 2}),
    K.WORKSPACE: Trouble(base="nowhere"),
}
WAIT = [kind for kind, row in TABLE.items() if row.waits_s is not None]


def route(provider: str, host: str = "box", harness: str = "scripted") -> Route:
    return Route(host=host, harness=harness, provider=provider, model=MODEL)


def three(kind: FailureKind, repo: str) -> list[TaskSpec]:
    """The tasks of a kind, in the order in which they want their route."""
    trouble = REAL.get(kind, Trouble())
    host = "roomy" if kind in WAIT else trouble.host
    first, second = (route(f"{kind}{end}", host, trouble.harness) for end in ("", "-both"))
    limits = FAST.model_copy(update=trouble.limits)
    made = {"repo": repo, "base": trouble.base, "verify": trouble.verify, "ask_for_commit": False}
    made |= {"instruction": trouble.instruction, "field": kind}

    def task(who: str, on: Route, attempts: int, *more: Route) -> TaskSpec:
        given = {"route": on, "routes": (on, *more), "limits": limits.model_copy(update={"attempts": attempts})}
        return TaskSpec.model_validate({**made, **given, "id": f"{kind}.{who}"})

    return [task("alone", first, 3), task("other", first, 1), task("both", second, 2, route(SPARE))]


def opened(repo: str) -> list[TaskSpec]:
    """Tasks beside the table: a window that opens in time, and work on a route that is shut meanwhile."""
    made = {"repo": repo, "base": "main", "instruction": WORK, "ask_for_commit": False, "field": "beside"}
    window, shut = route("window"), route("shut")
    both = {"route": window, "routes": (window, route(SPARE)), "limits": FAST}
    return [
        TaskSpec.model_validate({**made, **both, "id": "window"}),
        TaskSpec.model_validate({**made, "route": shut, "limits": FAST, "id": "shut"}),
    ]


def planted(task: TaskSpec, attempt: int) -> Failure | None:
    """What the run of a task reports that nothing fails in truth; on its other route all is well."""
    if task.route.provider == SPARE:
        return None
    if task.id == "window":
        return proven(K.QUOTA_WINDOW, retry_after_s=OPENS_AFTER_S) if attempt == 1 else None
    if task.id == "shut":
        return proven(K.NO_COMMIT)
    kind = K(task.id.rpartition(".")[0])
    return None if kind in REAL else proven(kind)


def standing_in(room: Room) -> Carry:
    """The carrier of every batch, but where a run cannot fail so in truth.

    Prefect's slots are asked for where the table speaks of them: each new pair of limits costs a client and a thread.
    """

    def slot(night: Night, task: TaskSpec) -> AbstractAsyncContextManager[None]:
        return room.slot(night, task) if task.route.host == "roomy" else nullcontext()

    real = in_slots(slot)

    async def carry(night: Night, task: TaskSpec, start: Start, conductor: Conductor) -> list[RunReport]:
        failure = planted(task, start.attempt)
        if failure is None:
            return await real(night, task, start, conductor)
        async with slot(night, task):
            if conductor.against(task) is not None:
                return []
            if task.id == "shut":
                night.shut(task.route, proven(K.AUTH_REJECTED))  # as another run of the route proves it meanwhile
            plan = night.planner.resolve(task, start.attempt, None)
            run = night.report(plan, Stages(conductor.waited_s), failure)
            await diagnose(night, run, return_state=True)  # type: ignore[misc]  # typed as if it were not awaitable
        return [run]

    return carry


@dataclass(frozen=True)
class Seen:
    """What the report says of each task, and what Prefect says of it: its task runs by attempt and stage."""

    runs: dict[str, list[RunReport]]
    prefects: dict[tuple[str, int], dict[str, TaskRun]]
    skipped: set[str]
    repo: Path

    def attempts(self, task: str) -> int:
        """As many as Prefect saw decided."""
        return sum("outcome" in stages for (id, _), stages in self.prefects.items() if id == task)

    def began(self, task: str, attempt: int) -> datetime:
        return min(run.start_time for run in self.prefects[task, attempt].values() if run.start_time)

    def ended(self, task: str, attempt: int) -> datetime:
        at = self.prefects[task, attempt]["outcome"].end_time
        assert at is not None
        return at


@pytest.fixture(scope="module")
def seen(prefect_api: None, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    directory = tmp_path_factory.mktemp("table")
    clock = Clock(SPEED, time.time())
    late = datetime.fromtimestamp(clock.since + HOURS * 3600, UTC).replace(microsecond=0)
    with ExitStack() as up:
        patch = up.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(VARIABLE, str(clock))
        faults = {kind: trouble.fault for kind, trouble in REAL.items()}
        faults[K.QUOTA_WINDOW] = Fault(F.WINDOW_USED_UP, resets_at=late.replace(year=late.year + 1))
        names = {f"{kind}{end}": faults.get(kind) for kind in FailureKind for end in ("", "-both")}
        names |= dict.fromkeys((SPARE, "window", "shut"))
        sites = [Site(name, KEY, fault=fault) for name, fault in names.items()]
        provider = up.enter_context(EmulatedProvider(sites, TAPES))
        for name in names:
            if not name.startswith(K.KEY_MISSING):
                patch.setenv(keyshape.variable(name), KEY)
        repo = make_repo(directory / "repo").path
        first = dict.fromkeys((*WAIT, K.WENT_QUIET, *FailureKind))  # what takes long
        tasks = [*opened(str(repo)), *(task for kind in first for task in three(kind, str(repo)))]
        spec = BatchSpec(
            name="table",
            source="table.yaml",
            author="Agent <a@b.c>",
            deadline=late.isoformat(),
            hosts=hosts(directory, up),
            tasks=tuple(tasks),
        )
        ledger = Ledger(directory / "state", "table-1")
        ledger.open_new(spec, lock_of(directory, provider, names), datetime.now(UTC))
        report, prefects = asyncio.run(night(ledger))
    return read(report, prefects, repo)


def hosts(directory: Path, up: ExitStack) -> dict[str, HostSpec]:
    """This machine under three names, and one over SSH that lets nobody in."""
    (directory / "loop-home").mkdir()
    known, stranger = make_key(directory / "known"), make_key(directory / "stranger")
    loop = up.enter_context(LoopbackHost("dev", [known], home=directory / "loop-home"))
    there = {"address": loop.address, "port": loop.port, "user": "dev", "key_file": directory / "known"}
    there |= {"path": (PYTHON,), "known_hosts": directory / "none", "host_key": loop.host_key}
    here = HostSpec(kind="local", path=(PYTHON,), directory=str(directory / "host"), slots=4, min_free_bytes=0)
    return {
        "box": here,
        "roomy": here.model_copy(update={"slots": 30}),
        "full": here.model_copy(update={"min_free_bytes": 10**15}),
        "unfit": here.model_copy(update={"python": "no-python-here"}),
        "refusing": HostSpec.model_validate({**there, "key_file": directory / "stranger"}),
        "another": HostSpec.model_validate({**there, "host_key": " ".join(stranger.split()[:2])}),
        "unpinned": HostSpec.model_validate({**there, "host_key": None}),
    }


def lock_of(directory: Path, provider: EmulatedProvider, names: dict[str, Fault | None]) -> str:
    """A provider for each name, which takes one run at a time but for the spare one; agents that never try again."""
    lock = json.loads(make_lock(directory / "lock.json", "http://127.0.0.1:9").read_text())
    pattern = lock["providers"].pop("rehearsal")
    for name in names:
        entry = lock["providers"][name] = copy.deepcopy(pattern)
        for endpoint in entry["endpoints"].values():
            endpoint["url"] = "http://127.0.0.1:9" if name.startswith(K.NETWORK) else provider.url(name)
        if name != SPARE:
            entry["limits"] = {"concurrent": 1, "provenance": entry["probe"]["provenance"]}
    lock["harnesses"]["scripted"]["timing"] = {"request_timeout_s": QUIET_S - 1, "retries": 0, "backoff_s": 0}
    return json.dumps(lock)


async def night(ledger: Ledger) -> tuple[BatchReport, list[TaskRun]]:
    """The batch to its report, and every task run that Prefect has of it."""

    reports: dict[UUID, BatchReport] = {}

    @flow(name="table")
    async def table() -> None:
        async with rooms() as room:
            reports[UUID(flow_run.id)] = await carry_out(ledger, standing_in(room), probed=True)

    await table()
    [(flow_run_id, report)] = reports.items()
    found: list[TaskRun] = []
    async with get_client() as client:
        of_it = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        while page := await client.read_task_runs(flow_run_filter=of_it, limit=200, offset=len(found)):
            found += page
    return report, found


def read(report: BatchReport, prefects: list[TaskRun], repo: Path) -> Seen:
    seen = Seen({}, {}, set(), repo)
    for run in report.runs:
        seen.runs.setdefault(run.task_id, []).append(run)
    for each in prefects:
        if match := re.fullmatch(r"batch table / (\S+) #(\d+) (\w+)", each.name):
            seen.prefects.setdefault((match[1], int(match[2])), {})[match[3]] = each
        elif match := re.fullmatch(r"batch table / (\S+) skipped", each.name):
            seen.skipped.add(match[1])
    return seen


def kinds(runs: list[RunReport]) -> list[FailureKind | None]:
    return [run.failure.kind if run.failure else None for run in runs]


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(FailureKind)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_earns_what_its_row_says(kind: FailureKind, seen: Seen) -> None:
    row, alone = TABLE[kind], f"{kind}.alone"
    assert kinds(seen.runs[alone]) == [kind] * row.attempts
    assert seen.attempts(alone) == row.attempts
    both = seen.runs[f"{kind}.both"]
    where = {f"{kind}-both": "same", SPARE: "elsewhere"}
    assert [where[run.provider] for run in both] == ["same", *([row.second] if row.second else [])]
    assert kinds(both) == [kind, *([kind] if row.second == "same" else [None] if row.second else [])]
    assert seen.attempts(f"{kind}.both") == len(both)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_route_is_shut_for_the_others_of_the_batch_by_what_a_person_must_mend(kind: FailureKind, seen: Seen) -> None:
    other = f"{kind}.other"
    assert kinds(seen.runs[other]) == [kind]
    assert (seen.attempts(other), other in seen.skipped) == ((0, True) if TABLE[kind].shut else (1, False))


@pytest.mark.parametrize("kind", WAIT)
def test_what_time_mends_is_waited_for_and_the_slot_is_free_meanwhile(kind: FailureKind, seen: Seen) -> None:
    alone, other = f"{kind}.alone", f"{kind}.other"
    first, second = seen.ended(alone, 1), seen.began(alone, 2)
    assert (second - first).total_seconds() * SPEED >= (TABLE[kind].waits_s or 0)
    assert first <= seen.began(other, 1) <= seen.ended(other, 1) <= second


def test_a_dispatch_is_no_second_try_of_what_time_does_not_mend(seen: Seen) -> None:
    tried = {id: run.run_count for (id, _), stages in seen.prefects.items() if (run := stages.get("dispatch"))}
    assert tried
    assert {id: n for id, n in tried.items() if n != 1} == {}


def test_a_window_that_opens_in_time_is_waited_for_although_there_is_another_route(seen: Seen) -> None:
    assert [(run.provider, run.state) for run in seen.runs["window"]] == [("window", "failed"), ("window", "succeeded")]
    assert (seen.began("window", 2) - seen.ended("window", 1)).total_seconds() * SPEED >= OPENS_AFTER_S


def test_work_is_never_tried_again_on_a_route_that_was_shut(seen: Seen) -> None:
    [run] = seen.runs["shut"]
    assert kinds([run]) == [K.NO_COMMIT]
    assert [(passed.because, passed.failure and passed.failure.kind) for passed in run.passed_over] == [
        ("shut", K.AUTH_REJECTED)
    ]


def test_a_stall_leaves_what_it_had_and_its_route_was_asked_in_between(seen: Seen) -> None:
    for run in seen.runs[f"{K.WENT_QUIET}.alone"]:
        assert run.failure is not None
        assert run.leftovers is not None
        assert run.leftovers.files == ("left.txt",)
        assert any(each.source == "probe" and "HTTP 200" in each.seen for each in run.failure.evidence)

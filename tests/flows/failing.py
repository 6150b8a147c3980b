"""A night in which every kind of failure happens once, through Prefect's engine.

Each kind has three tasks. `alone` has one route and three attempts, `other` waits for that same route, which takes
one run at a time, and `both` has a second route for its second attempt. What a scripted agent, an emulated provider
or a host can fail by is so failed; the rest is reported by a carrier that stands in for their runs.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
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

K, F = FailureKind, FaultKind

SPEED, HOURS = 60.0, 100.0
RETRY_AFTER_S, OPENS_AFTER_S = 90, 120
SPARE, WORK = "spare", "Add a greeting"
QUIET_S = 8.0
FAST = Limits(total_s=300, first_event_s=None, quiet_s=None, grace_s=0.5, attempts=3)


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


QUIET = ('{"say": "on it"}', '{"sh": "echo half > left.txt"}', '{"sleep": 200}')
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
    K.TIME_LIMIT: Trouble(instruction=script('{"sleep": 200}'), limits={"total_s": 2}),
    K.WORKSPACE: Trouble(base="nowhere"),
}


def route(provider: str, host: str = "box", harness: str = "scripted") -> Route:
    return Route(host=host, harness=harness, provider=provider, model=MODEL)


def three(kind: FailureKind, repo: str, waits: bool) -> list[TaskSpec]:
    """The tasks of a kind, in the order in which they want their route."""
    trouble = REAL.get(kind, Trouble())
    host = "roomy" if waits else trouble.host
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
    name, _, who = task.id.rpartition(".")
    return None if name in REAL and who != "other" else proven(K(name))  # of the other one it counts that it starts


def standing_in(room: Room) -> Carry:
    """The carrier of every batch, but where a run cannot fail so in truth.

    Prefect's slots are asked for where the table speaks of them: each new pair of limits costs a client and a thread.
    """

    def slot(night: Night, task: TaskSpec, adopted: bool = False) -> AbstractAsyncContextManager[None]:
        return room.slot(night, task, adopted) if task.route.host == "roomy" else nullcontext()

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


def failing_night(directory: Path, waiting: Sequence[FailureKind]) -> Seen:
    """Carry it out, with Prefect's API of this process.

    Args:
        waiting: The kinds whose tasks ask Prefect for a slot, all of them at once.
    """
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
        first = dict.fromkeys((*waiting, K.WENT_QUIET, *FailureKind))  # what takes long
        tasks = [*opened(str(repo)), *(task for kind in first for task in three(kind, str(repo), kind in waiting))]
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

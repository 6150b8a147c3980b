"""A batch spread over a work pool: each attempt at a task is a flow run of `single`, on whatever worker takes it.

The batch decides when an attempt is due and on which route, waits with one API
call for all of them, takes their reports as they end, and starts anew what
died with its worker. What runs on a host is found again there by its run id,
so nothing is done twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
)
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed
from prefect.utilities.urls import url_for
from prefect.variables import Variable

from flows.attempts import carry_out
from flows.conduct import Conductor
from flows.part_given import parameters
from flows.part_report import THROUGH, late_report, part_run_name, report_of
from flows.patience import patiently
from flows.private_server import OutOfReach
from flows.shared_budget import settle, tags_for
from overnight.decisions import Start
from overnight.failures import BadInput, Evidence, FailureKind, fail
from overnight.ledger import Ledger
from overnight.night import Night, now
from overnight.report import BatchReport, RunReport
from overnight.spec import TaskSpec
from tasks.calls import in_thread
from tasks.marks import tags_of

UNIT = "single/single"

AT_ONCE = "overnight_spread_at_once"
"""Prefect variable: how many flow runs of one batch its server stands at once; unset means the hosts' slots alone."""

LAUNCHES = 3
_LOOK_S = 3.0
_PENDING_S = 300.0
_SAY_AGAIN_S = 60.0
_PAGE = 200


async def spread_out(ledger: Ledger, state: str, lock: str, *, ending: bool = False) -> BatchReport:
    """Carry a recorded batch out on the workers of its Prefect server.

    Args:
        state: State directory of the workers; empty for each worker's own.
        lock: Provider lock of the workers; empty for each worker's own.
        ending: It was cancelled: its flow runs are cancelled, too, and their reports taken.

    Raises:
        BadInput: the server has no deployment for a single task.
    """
    await find_unit()
    spec, _ = ledger.reopen()
    at_once = int(str(await Variable.aget(AT_ONCE, default=len(spec.tasks))))
    children = Children({"state": state, "lock": lock}, asyncio.Semaphore(at_once))

    async def carry(night: Night, task: TaskSpec, start: Start, conductor: Conductor) -> list[RunReport]:
        async with children.watched(night):
            return await children.run(night, task, start.attempt, conductor)

    return await carry_out(ledger, carry, ending=ending, elsewhere=True)


async def find_unit() -> None:
    """Check that the server knows how to run a single task.

    Raises:
        BadInput: it does not.
    """
    async with get_client() as client:
        try:
            await client.read_deployment_by_name(UNIT)
        except ObjectNotFound:
            mend = "Run `overnight up`, or `python -m deployments.bootstrap` against your own server"
            raise BadInput(
                "this Prefect server", UNIT, "there is no such deployment, and spread needs it", mend
            ) from None


@dataclass
class _Child:
    """A flow run somebody waits for; `ended` gives None when it was deleted, or is left alone.

    `slots` are given back when it pauses: a person may take a week, and others can run meanwhile.
    """

    run_id: str
    task: TaskSpec
    run: FlowRun
    slots: AsyncExitStack
    spoke: Callable[[], None]
    ended: asyncio.Future[FlowRun | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    asked_to_end: bool = False
    through: bool = False


class Children:
    """The flow runs of one batch. One watcher looks after all of them, whatever their number."""

    def __init__(self, same_for_all: dict[str, Any], at_once: asyncio.Semaphore) -> None:
        self._same_for_all = same_for_all
        self._at_once = at_once
        self._waiting: dict[UUID, _Child] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._users = 0

    @asynccontextmanager
    async def watched(self, night: Night) -> AsyncIterator[None]:
        """Keep the watcher alive while anybody needs it."""
        self._users += 1
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(night))
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                watcher, self._watcher = self._watcher, None
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher

    async def run(self, night: Night, task: TaskSpec, attempt: int, conductor: Conductor) -> list[RunReport]:
        """An attempt of a task, made by a flow run of its own. One of an earlier start is found again."""
        async with AsyncExitStack() as slots:
            await slots.enter_async_context(self._at_once)
            slots.callback(conductor.rests, task.id)
            launch, child = await patiently(partial(_last_launch, night, task, attempt))
            if child is None and conductor.against(task) is not None:
                return []
            while True:
                child = child or await self._launch(night, task, attempt, launch)
                part = _Child(_run_id(night, task, attempt), task, child, slots, partial(conductor.spoke, task.id))
                ended = await self._ended(part)
                report = await patiently(partial(report_of, child.id))
                if report is None and ended and ended.start_time and night.wish(task.id) == "cancel":
                    report = await late_report(child.id)
                taken = _take(night, task, report) if report else []
                if taken and not taken[-1].left_running:
                    return taken
                wish = night.wish(task.id)
                if wish == "detach" or (wish and ended is not None):
                    return taken or [_left(night, task, child)]
                if (ended is not None and ended.state is not None and ended.state.is_failed()) or launch == LAUNCHES:
                    return [_broken(night, task, ended or child)]
                launch, child = launch + 1, None

    async def _launch(self, night: Night, task: TaskSpec, attempt: int, launch: int) -> FlowRun:
        given = {**await in_thread(parameters, night, task, attempt), **self._same_for_all}
        await in_thread(night.ledger.save, _run_id(night, task, attempt), "handed", {"route": task.route.model_dump()})
        launched: Any = partial(  # typed as if it were awaited
            run_deployment,
            UNIT,
            parameters=given,
            flow_run_name=part_run_name(night.batch.name, task.id, attempt),
            tags=sorted(tags_of([task.route]) | tags_for(night.batch.budget)),
            idempotency_key=f"{_run_id(night, task, attempt)}.{launch}",
            timeout=0,
        )
        child: FlowRun = await patiently(launched)
        night.tell(task.id, "dispatch", f"flow run {url_for(child)}")
        return child

    async def _ended(self, waiting: _Child) -> FlowRun | None:
        self._waiting[waiting.run.id] = waiting
        try:
            either: set[asyncio.Future[Any]] = {waiting.ended} | ({self._watcher} if self._watcher else set())
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._watcher is not None and self._watcher.done():  # of a fault: nobody would ever tell us
                self._watcher.result()
            return await waiting.ended
        finally:
            del self._waiting[waiting.run.id]

    async def _watch(self, night: Night) -> None:
        said_at = now()
        async with get_client() as client:
            while True:
                await asyncio.sleep(_LOOK_S)
                if night.interrupt == "detach":
                    self._let_go()
                try:
                    await self._look(client, night)
                except (OutOfReach, ObjectNotFound, ValueError) as error:  # ValueError: a proxy's page, no JSON
                    get_run_logger().warning("Prefect does not answer, the runs go on: %s", error)
                late = [c for c in self._waiting.values() if c.run.state is not None and c.run.state.is_scheduled()]
                if late and (now() - said_at).total_seconds() > _SAY_AGAIN_S:
                    said_at = now()
                    night.tell("spread", "batch", f"{len(late)} tasks wait for a worker of the work pool")

    def _let_go(self) -> None:
        for child in self._waiting.values():
            if not child.ended.done():
                child.ended.set_result(None)

    async def _look(self, client: PrefectClient, night: Night) -> None:
        """See how all are, what they used; end those that are to be cancelled or never got past their worker's door."""
        ids = [run_id for run_id, child in self._waiting.items() if not child.ended.done()]
        seen: dict[UUID, FlowRun] = {}
        for start in range(0, len(ids), _PAGE):
            page = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + _PAGE]))
            seen.update({run.id: run for run in await client.read_flow_runs(flow_run_filter=page, limit=_PAGE)})
        for run_id in ids:
            child = self._waiting.get(run_id)
            if child is None or child.ended.done():
                continue
            if run_id not in seen:
                child.ended.set_result(None)
                continue
            child.run = seen[run_id]
            if THROUGH in child.run.tags and not child.through:
                child.through = True
                child.spoke()
            state = child.run.state
            if state is None:
                continue
            await settle(client, night, child.task, child.run_id, child.run)
            if state.is_final():
                child.ended.set_result(child.run)
            elif night.wish(child.task.id) == "cancel" and not child.asked_to_end:
                child.asked_to_end = True
                await client.set_flow_run_state(run_id, Cancelling(message="its end was asked for"))
            elif state.is_pending() and (now() - state.timestamp).total_seconds() > _PENDING_S:
                lost = f"a worker took it {_PENDING_S:.0f} s ago and never began it"
                await client.set_flow_run_state(run_id, Crashed(message=lost), force=True)
            elif state.is_paused():
                await child.slots.aclose()


def _run_id(night: Night, task: TaskSpec, attempt: int) -> str:
    return f"{night.ledger.batch_id}.{task.id}.{attempt}"


async def _last_launch(night: Night, task: TaskSpec, attempt: int) -> tuple[int, FlowRun | None]:
    """The newest flow run of this attempt and its number; 1 and None when there is none yet."""
    keys = [f"{_run_id(night, task, attempt)}.{launch}" for launch in range(1, LAUNCHES + 1)]
    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
    async with get_client() as client:
        found = {run.idempotency_key: run for run in await client.read_flow_runs(flow_run_filter=wanted)}
    known = [launch for launch, key in enumerate(keys, 1) if key in found]
    return (known[-1], found[keys[known[-1] - 1]]) if known else (1, None)


def _take(night: Night, task: TaskSpec, report: BatchReport) -> list[RunReport]:
    """Make a task's attempts ours: from here on they are decided here, too."""
    taken = []
    for run in report.runs:
        ours = run.run_id == _run_id(night, task, run.attempt)
        if ours:
            run = _known_here(night, run)
        if ours and not run.left_running:
            night.decide(run)
        if run.failure is not None and run.failure.shuts_for_good:
            night.shut(task.route, run.failure)
        taken.append(run)
    return taken


def _known_here(night: Night, run: RunReport) -> RunReport:
    """An attempt's report with what only the batch knows: the routes passed over, who asked for its end, its budget."""
    night.spending.note(run)
    failure, spent = night.ends.named(run.task_id, run.failure), night.spending.full(run.provider)
    told = run.monitor is not None and run.monitor.rule == "budget"
    if failure is not None and failure.kind is FailureKind.BUDGET_LIMIT and spent is not None and not told:
        failure = failure.also(Evidence(source="event", seen=str(spent)))
    return run.model_copy(update={"failure": failure, "passed_over": night.passed_over.get(run.run_id, ())})


def _left(night: Night, task: TaskSpec, child: FlowRun) -> RunReport:
    """The report of a task whose flow run goes on without us."""
    seen = Evidence(source="host", seen=f"left to its flow run {url_for(child)}")
    remedy = f"go on with it: python -m flows.batch --resume {night.ledger.batch_id}"
    left = night.skipped(task, fail(FailureKind.CANCELLED, seen, remedy=remedy), "cancelled")
    return left.model_copy(update={"left_running": True})


def _broken(night: Night, task: TaskSpec, child: FlowRun) -> RunReport:
    """The report of a task whose flow run ended without one."""
    state = f"{child.state.name}: {child.state.message}" if child.state else "no state"
    seen = Evidence(source="host", seen=f"its flow run ended without a report: {state}", where=url_for(child))
    home = f"`overnight collect {night.ledger.batch_id}` on its worker brings home what it began"
    remedy = f"mend what the flow run's page shows; {home}; then start the task again with --only"
    return night.skipped(task, fail(FailureKind.INTERNAL, seen, remedy=remedy), "failed")

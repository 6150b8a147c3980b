"""Carries out what the schedule decides, and tells it what comes of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.limits import ceilings
from flows.part_report import say_through
from flows.refusals import refusal
from overnight.again import is_settled
from overnight.breaker import Breaker, BreakerFile
from overnight.clock import Clock
from overnight.deadline import deadline_at, spoken, too_late
from overnight.decisions import Over, Start, Turned
from overnight.ends import ask_end
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.night import Night, now
from overnight.peak import off_peak
from overnight.report import RunReport
from overnight.report import State as RunState
from overnight.resume import resumption
from overnight.route import Route
from overnight.schedule import Schedule
from overnight.spec import TaskSpec
from overnight.stack import below_of
from tasks.announce import breaker_opened, run_finished
from tasks.calls import in_thread
from tasks.skip import skip

_LOOK_S = 1.0

Carry = Callable[[Night, TaskSpec, Start, "Conductor"], Awaitable[list[RunReport]]]
"""Carries one start of a task out, on the route that is its current one, and gives the attempts that came of it."""


class Conductor:
    """One batch. `decided` is called with the last attempt of each task, as it comes to its end.

    Args:
        elsewhere: Attempts are carried out by other workers.
    """

    def __init__(
        self, night: Night, carry: Carry, decided: Callable[[RunReport], Awaitable[None]], *, elsewhere: bool = False
    ) -> None:
        self.night = night
        self._carry = carry
        self._decided = decided
        self._elsewhere = elsewhere
        self._began = time.monotonic()
        self._clock = Clock.of(os.environ)
        self._loop = asyncio.get_running_loop()
        self._flow_run_id = UUID(flow_run.id)  # asked here: what hears a run has another context
        self._woken = asyncio.Event()
        # the batch that handed a part out judges by the outcome; counted by both, one failure would be two
        self._file = BreakerFile(night.ledger.directory if night.ledger.is_part else night.ledger.state)
        self._noted: Mapping[str, Breaker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, list[RunReport]] = {}
        self._fault: BaseException | None = None
        self._look_at = 0.0
        self._told: asyncio.Task[None] | None = None
        self.deadline = _deadline(night)
        self.schedule = Schedule(
            night.batch.tasks,
            batch_id=night.ledger.batch_id,
            slots={name: host.slots for name, host in night.batch.hosts.items()},
            concurrent=_at_once(night),
            deadline=self.deadline,
            breakers=self._file.news(),
        )
        self._noted = dict(self.schedule.breakers)

    async def run(self) -> list[RunReport]:
        """Every attempt of every task, in the order of the batch. Faults of ours in one task never cost the others."""
        await in_thread(self._recall)
        self.night.came_through = self._came_through
        try:
            while not self.schedule.done or self._running:
                await self._step()
                if self._fault is not None:
                    raise self._fault
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._pause())
                self._woken.clear()
        finally:
            self.night.came_through = lambda _: None
            for each in self._running.values():
                each.cancel()
        return [run for task in self.night.batch.tasks for run in self._runs[task.id]]

    async def _step(self) -> None:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            self._look()
        for decision in self.schedule.decide(self._clock.now()):
            match decision:
                case Start():
                    self._running[decision.task_id] = each = asyncio.create_task(self._start(decision))
                    each.add_done_callback(partial(self._stopped, decision.task_id))
                case Over():
                    await self._over(decision)
                case Turned():
                    self._turned(decision)
        changed = {key: b for key, b in self.schedule.breakers.items() if self._noted.get(key) is not b}
        if changed:
            self._noted = dict(self.schedule.breakers)
            await in_thread(self._note, changed)

    def _look(self) -> None:
        """What others want or found out, and what the clock says."""
        for task_id in self.schedule.idle:
            if (why := refusal(self.night, self._task(task_id))) is not None:
                self.schedule.refused(task_id, why)
        for route in self.night.batch.routes:  # a run says so before it is collected, and ends after that
            if (shut := self._shut(route)) is not None:
                self.schedule.probed(route, shut, self._clock.now())
        for provider in {route.provider for route in self.night.batch.routes}:
            if (spent := self.night.spending.refusal(provider)) is not None:
                self.schedule.spent(provider, spent)
        if self.night.batch.peak == "avoid":
            self._avoid_peaks()
        if news := self._file.news():
            self.schedule.heard(news)
            self._noted = {**self._noted, **{key: self.schedule.breaker(key) for key in news}}
        deadline = self.deadline
        if deadline is not None and self._clock.now() >= deadline + self.night.batch.wrap_up_s:
            self._wrap_up(deadline)

    def _avoid_peaks(self) -> None:
        at = datetime.fromtimestamp(self._clock.now(), UTC)
        for route in self.night.batch.routes:
            held = off_peak(self.night.lock.providers[route.provider], route.model, at)
            if held is not None and self.schedule.avoided.get(route) != held.until.timestamp():
                self.schedule.avoided[route] = held.until.timestamp()
                self.night.tell(str(route), "queue", f"starts nothing until {held.until:%m-%d %H:%M} UTC: {held.why}")

    def _pause(self) -> float:
        wake = self.schedule.wake(self._clock.now())
        return _LOOK_S if wake is None else min(_LOOK_S, max(0.0, self._clock.until(wake)))

    def _wrap_up(self, deadline: float) -> None:
        """End what still runs; the same way as a person would, and named as what it is."""
        given = f"the deadline {spoken(deadline)} came while it ran, and {self.night.batch.wrap_up_s:.0f} s more"
        for task_id in self._running:
            if not self.night.ends.of(task_id):
                ask_end(self.night.ledger.directory, task_id, "the deadline of the batch", given)
                self.night.tell(task_id, "deadline", "ending it and collecting what it committed")

    def _note(self, changed: Mapping[str, Breaker]) -> None:
        try:
            self._file.note(changed)
        except OSError as error:  # a full disk costs the next night its memory, not this one its work
            self.night.tell("breakers", "batch", f"not written down: {error}")

    def _recall(self) -> None:
        """What earlier starts of the batch left: decided attempts, and runs that live on their hosts."""
        night, at = self.night, self._clock.now()
        for route, found in night.checked.items():
            self.schedule.probed(route, found.failure, at)
        for task in night.batch.tasks:
            runs = self._runs[task.id] = night.ledger.attempts(task.id)
            self.schedule.recall(task.id, [(run.route, run.failure) for run in runs], at)
            if decided(runs, task):
                continue
            number = task.first + len(runs)
            run_id = f"{night.ledger.batch_id}.{task.id}.{number}"
            begun = night.ledger.route(run_id, "handed" if self._elsewhere else "plan")
            if begun is None:
                continue
            if self._elsewhere or night.begun(night.planner.resolve(task.on(begun), number, None)):
                self.schedule.adopt(task.id, begun)

    async def _start(self, start: Start) -> None:
        task = self._task(start.task_id).on(start.route)
        run_id = f"{self.night.ledger.batch_id}.{task.id}.{start.attempt}"
        self.night.passed_over[run_id] = start.passed_over
        self._say_switch(task, run_id, start)
        carried = self._carry(self.night, self._prepared(task), start, self)
        [runs] = await asyncio.gather(carried, return_exceptions=True)
        if isinstance(runs, Exception):
            runs = [self._broken(task, runs)]
        if isinstance(runs, BaseException):
            raise runs
        self._take(task, runs)

    def _broken(self, task: TaskSpec, error: Exception) -> RunReport:
        get_run_logger().error("task %s", task.id, exc_info=error)
        seen = Evidence(source="host", seen=f"{type(error).__name__}: {error}", where="overnight")
        run = self.night.skipped(task, fail(FailureKind.INTERNAL, seen), "failed")
        run_finished(self.night, run)
        return run

    def _take(self, task: TaskSpec, runs: list[RunReport]) -> None:
        """What came of a start; nothing, when no host was asked for it."""
        if not runs:
            self.schedule.withdrawn(task.id)
            self._look_at = 0.0  # at once, or it would only be started again
            return
        last = runs[-1]
        station = self.night.stations.get(last.host)
        away = last.failure is not None and last.failure.kind is FailureKind.HOST_UNREACHABLE
        if away and last.failure is not None and station is not None and station.given_up:
            self.schedule.gone(last.host, last.failure)
        known = {run.run_id for run in runs if run.run_id}
        self._runs[task.id] = [*(run for run in self._runs[task.id] if run.run_id not in known), *runs]
        undecided = last.left_running or (last.run_id != "" and self.night.ledger.outcome(last.run_id) is None)
        self.schedule.ended(task.id, last.failure, self._clock.now(), undecided=undecided)

    async def _over(self, over: Over) -> None:
        """A task has come to its end: what is said of it is complete."""
        task, runs = self._task(over.task_id), self._runs[over.task_id]
        if not runs:
            state: RunState = "cancelled" if over.why and over.why.kind is FailureKind.CANCELLED else "skipped"
            never = over.why or fail(FailureKind.UNKNOWN)
            run = self.night.skipped(task, never, state).model_copy(update={"passed_over": over.passed_over})
            shown: Any = skip(self.night, run, return_state=True)  # typed as if it were not awaitable
            await shown
            runs.append(run)
        elif over.why is not None and runs[-1].failure is not None:
            more: dict[str, Any] = {"passed_over": over.passed_over or runs[-1].passed_over}
            if over.why.kind is FailureKind.DEADLINE:
                more["failure"] = runs[-1].failure.also(*over.why.evidence)
            runs[-1] = runs[-1].model_copy(update=more)
        await self._decided(runs[-1])

    def _prepared(self, task: TaskSpec) -> TaskSpec:
        """The task as this attempt is asked to do it: stacked on another's commits, told what the check said."""
        if task.stacked:
            task = task.model_copy(update={"below": below_of(task, self.night.batch.tasks, self._runs)})
        last = self._runs[task.id][-1] if self._runs[task.id] else None
        if task.feed_back and last is not None and last.failure is not None and last.verify is not None:
            told = _FEED_BACK.format(command=last.verify.command, tail=last.verify.tail.strip()[-_TAIL:])
            task = task.model_copy(update={"told": told})
        return task.model_copy(update={"resumed": resumption(task, last)}) if last else task

    def _say_switch(self, task: TaskSpec, run_id: str, start: Start) -> None:
        before = self._runs[task.id][-1].route if self._runs[task.id] else task.ordered(self.night.ledger.batch_id)[0]
        if before == start.route and not start.passed_over:
            return
        words = f"{start.route}; {'; '.join(map(str, start.passed_over)) or f'before: {before}'}"
        self.night.tell(task.id, "route", words)
        self.night.ledger.log(run_id, now(), "route", route=str(start.route), before=str(before), why=words)

    def _turned(self, turned: Turned) -> None:
        breaker, why = turned.breaker, turned.breaker.why
        if turned.state == "open":
            because = f": {why.brief}" if why else ""
            self.night.tell(turned.key, "breaker", f"open until {spoken(breaker.until or 0)}{because}")
            breaker_opened(self.night, turned.key, turned.route, breaker)
        else:
            words = {"half-open": "half-open, one task tries it", "closed": "closed, it answers again"}[turned.state]
            self.night.tell(turned.key, "breaker", words)
        if turned.state == "closed":
            self.night.reopen(turned.route)

    def _came_through(self, task_id: str) -> None:
        """Called in the thread that follows the run."""
        self._loop.call_soon_threadsafe(self.spoke, task_id)

    def spoke(self, task_id: str) -> None:
        """The first good event of a run was heard."""
        self.schedule.spoke(task_id, self._clock.now())
        self._woken.set()
        if self.night.ledger.is_part:
            self._told = asyncio.create_task(say_through(self._flow_run_id))

    def _stopped(self, task_id: str, each: asyncio.Task[None]) -> None:
        del self._running[task_id]
        self._woken.set()
        if not each.cancelled():
            self._fault = self._fault or each.exception()

    def _task(self, task_id: str) -> TaskSpec:
        return next(task for task in self.night.batch.tasks if task.id == task_id)

    def rests(self, task_id: str) -> None:
        """A run waits for a person: it needs no slot."""
        self.schedule.rests(task_id)

    def against(self, task: TaskSpec) -> Failure | None:
        """Why a start that was decided a while ago must not be made any more."""
        if self.deadline is not None and self._clock.now() >= self.deadline:
            return too_late(self.deadline)
        return refusal(self.night, task) or self._shut(task.route) or self.night.spending.refusal(task.route.provider)

    def _shut(self, route: Route) -> Failure | None:
        """What shuts a route for the rest of the night; a window that preflight found used up opens again."""
        found = self.night.shut_by(route)
        return found if found is not None and found.shuts_for_good else None

    @property
    def waited_s(self) -> float:
        """Since the tasks were due."""
        return time.monotonic() - self._began


_TAIL = 4000
_FEED_BACK = "\n\nAn earlier attempt at this was checked by `{command}`, which failed and ended with:\n\n{tail}"


def _at_once(night: Night) -> dict[str, int]:
    """Runs at the same time by provider, where there is such a limit."""
    given = {route.provider: ceilings(night, route.provider).most_at_once for route in night.batch.routes}
    return {provider: most for provider, most in given.items() if most is not None}


def _deadline(night: Night) -> float | None:
    if night.batch.deadline is None:
        return None
    return deadline_at(night.batch.deadline, night.ledger.reopen()[1], night.batch.source).timestamp()


def decided(runs: list[RunReport], task: TaskSpec) -> bool:
    """Whether the task has had its last attempt."""
    routes: tuple[Route, ...] = task.routes or (task.route,)
    tried: list[tuple[Route, Failure | None]] = [(run.route, run.failure) for run in runs]
    return is_settled(tried, routes, task.limits.attempts)

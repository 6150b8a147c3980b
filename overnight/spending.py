"""What a batch spends while it runs: the caps of its runs and its own, held; and the cost of what has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from overnight.budget import Reached, Reading, left, reached
from overnight.cost import Tariff
from overnight.events import Exited, Killed
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.ledger import Ledger
from overnight.lockfile import ProviderLock
from overnight.peak import peaks
from overnight.plan import Planner, RunPlan
from overnight.report import RunReport
from overnight.route import Route
from overnight.spec import BatchSpec, BudgetCaps, Limits, TaskSpec
from overnight.stages import Stages
from overnight.stop import Rule
from overnight.usage import Usage
from overnight.watch import Watch

_K = FailureKind
_LEAST: Mapping[Literal["max_tokens", "max_usd"], float] = {"max_tokens": 1, "max_usd": 0.0001}
_RAISE = "start the rest anew with a larger {cap}: what was spent is spent"


class Spending:
    """Thread-safe. What earlier starts of the batch spent is read from its ledger, and counts.

    `tells` is called, in the thread that follows a run, with all that it used so far, when that has grown.
    """

    def __init__(self, batch: BatchSpec, lock: ProviderLock, planner: Planner, ledger: Ledger) -> None:
        self._budget = batch.budget
        self._lock = lock
        self._planner = planner
        self._ledger = ledger
        self._gate = threading.Lock()
        self._readings: dict[str, Reading] = {}
        self._full: dict[str, Reached | None] = {}
        self._since = datetime.now(UTC)
        self._further: dict[str, tuple[str, int]] = {}
        self._told: Reached | None = None
        self.tells: Callable[[Reading], None] = lambda _: None
        for run in ledger.decided():
            self.note(run)

    def note(self, run: RunReport) -> None:
        """Count an attempt that has ended; one of a task that never started is none."""
        if run.run_id:
            self._take(Reading(run.run_id, run.provider, run.tokens, run.usd))

    def hear(self, reading: Reading) -> None:
        """Count what an attempt that another worker follows has used so far, all of it; again changes nothing."""
        self._take(reading)

    def told_full(self, found: Reached) -> None:
        """The batch that this attempt is part of, and which alone counts all, says that a cap of it is used up."""
        self._told = found

    def full(self, provider: str) -> Reached | None:
        """The cap of the batch, or of this provider in it, that is used up."""
        if self._told is not None:
            return self._told
        with self._gate:
            if provider not in self._full:
                own, every = self._budget.providers.get(provider), list(self._readings.values())
                found = reached(self._budget, "budget", every)
                if found is None and own is not None:
                    its = [each for each in every if each.provider == provider]
                    found = reached(own, f"budget.providers.{provider}", its)
                self._full[provider] = found
            return self._full[provider]

    def refusal(self, provider: str) -> Failure | None:
        """Why nothing may be started at this provider any more; None while there is something left."""
        found = self.full(provider)
        if found is None:
            return None
        seen = Evidence(source="event", seen=f"{found}, before this attempt started")
        return fail(_K.BUDGET_LIMIT, seen, remedy=_RAISE.format(cap=found.cap))

    def share(self, task: TaskSpec) -> Limits:
        """The limits of an attempt that another worker follows: no more than the batch has left now.

        It holds while nobody can be told of the others. A cap that nobody could hold on this route is left out.
        """
        caps, provider, shares = self._planner.caps(task.route), task.route.provider, task.limits.model_dump()
        with self._gate:
            every = list(self._readings.values())
        its = [each for each in every if each.provider == provider]
        own = self._budget.providers.get(provider, BudgetCaps())
        for cap, least in _LEAST.items():
            rests = [shares[cap], left(self._budget, every, cap), left(own, its, cap)]
            known = [rest for rest in rests if rest is not None]
            if known and (caps.own(cap) or caps.watched(cap)):
                shares[cap] = max(least, type(least)(min(known)))
        return Limits.model_validate(shares)

    def further(self, provider: str) -> int:
        """Answers that its runs have had since this start of the batch, beside the first one of each run begun since.

        What a harness does not tell as it goes is not in it.
        """
        with self._gate:
            return sum(answers for who, answers in self._further.values() if who == provider)

    def over(self, watch: Watch) -> Callable[[], tuple[Rule, Failure] | None]:
        """A look at a followed run's usage: the cap for which it must be ended now, or None. Cheap enough for a tick.

        An answer that is under way is not told of yet: a cap is overshot by one answer at most. A run that gave its
        verdict is done and not ended for what it cost.
        """
        began, seen = self._began(watch.plan), 0
        watch.meter.recent_from_s = max(0.0, (self._since - began).total_seconds())

        def look() -> tuple[Rule, Failure] | None:
            nonlocal seen
            if watch.meter.answers > seen:
                seen = watch.meter.answers
                reading = self._reading(watch, began)
                self._take(reading)
                self.tells(reading)
                self._count(watch, began)
            if watch.last_result() is not None:
                return None
            return self._own_cap(watch, began) or self._batchs_cap(watch)

        return look

    def priced(self, run: RunReport, plan: RunPlan, stages: Stages) -> RunReport:
        """The report of an attempt with what it cost, and whether it was begun in peak hours."""
        if stages.watched is None:
            return run
        meter, began = stages.watched.watch.meter, self._began(plan)
        self._count(stages.watched.watch, began)  # the last answers came after the last look
        ending = stages.watched.watch.ending
        lasted = timedelta(seconds=ending.seconds) if isinstance(ending, Exited | Killed) else datetime.now(UTC) - began
        tariff, used = self._tariff(plan.route), meter.by_model
        cost = tariff.cost(used, meter.tokens, meter.said_usd, began, began + lasted)
        peak = "; ".join(str(rule) for rule in peaks(tariff.provider, plan.route.model, began))
        usage = sum(used.values(), Usage()) if used else None
        told = {"tokens": meter.tokens, "usage": usage, "cost": cost, "usd": cost.usd, "peak": peak or None}
        return run.model_copy(update=told)

    def _count(self, watch: Watch, began: datetime) -> None:
        further = watch.meter.recent - (began >= self._since)
        with self._gate:
            self._further[watch.plan.run_id] = (watch.plan.route.provider, max(0, further))

    def _own_cap(self, watch: Watch, began: datetime) -> tuple[Rule, Failure] | None:
        limits, meter, caps = watch.plan.limits, watch.meter, self._planner.caps(watch.plan.route)
        if not _capped(limits) or not meter.answers:
            return None
        if limits.max_tokens is not None and (meter.tokens or 0) >= limits.max_tokens:
            return "max_tokens", self._ended(watch, f"{meter.tokens} tokens", "max_tokens")
        if limits.max_usd is not None and not caps.own("max_usd"):
            usd = self._reading(watch, began).usd
            if usd is not None and usd >= limits.max_usd:
                return "max_usd", self._ended(watch, f"{usd:.4f} USD", "max_usd")
        turns = limits.max_turns if not caps.own("max_turns") else None
        if turns is not None and (meter.answers > turns or (meter.answers == turns and meter.asked_on)):
            return "max_turns", self._ended(watch, f"{meter.answers} answers and gone on", "max_turns")
        return None

    def _batchs_cap(self, watch: Watch) -> tuple[Rule, Failure] | None:
        found = self.full(watch.plan.route.provider)
        if found is None:
            return None
        used = f"this attempt had used {watch.meter.tokens or 'no'} tokens"
        evidence = (_seen(watch, str(found)), _seen(watch, used))
        return "budget", fail(_K.BUDGET_LIMIT, *evidence, remedy=_RAISE.format(cap=found.cap))

    def _ended(self, watch: Watch, used: str, cap: str) -> Failure:
        kind = _K.TURN_LIMIT if cap == "max_turns" else _K.BUDGET_LIMIT
        limit = getattr(watch.plan.limits, cap)
        seen = f"by answer {watch.meter.answers} it had used {used}; limits.{cap} is {limit:g}"
        return fail(kind, _seen(watch, seen), names=watch.names)

    def _reading(self, watch: Watch, began: datetime) -> Reading:
        plan, meter = watch.plan, watch.meter
        cost = self._tariff(plan.route).cost(meter.by_model, meter.tokens, meter.said_usd, began, datetime.now(UTC))
        return Reading(plan.run_id, plan.route.provider, meter.tokens, cost.usd)

    def _take(self, reading: Reading) -> None:
        with self._gate:
            before = self._readings.get(reading.run_id)
            self._readings[reading.run_id] = reading.later(before) if before else reading
            self._full.clear()

    def _tariff(self, route: Route) -> Tariff:
        return Tariff(route.provider, self._lock.providers[route.provider], route.harness, route.model)

    def _began(self, plan: RunPlan) -> datetime:
        handle = self._ledger.handle(plan.run_id)
        return handle.started_at if handle else datetime.now(UTC)


def _capped(limits: Limits) -> bool:
    return not (limits.max_tokens is None and limits.max_usd is None and limits.max_turns is None)


def _seen(watch: Watch, words: str) -> Evidence:
    return Evidence(source="event", seen=words, at_s=watch.meter.at_s)

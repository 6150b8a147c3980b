"""Who may start now, where, and who never will: the night as a function of what happened and of the time.

No clock and no input or output of its own. Moments are seconds since 1970.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from overnight.again import PATIENCE_S, leaves_route, wait_before_next
from overnight.breaker import GIVES_UP_AFTER, Breaker, answers_for, blamed, keys
from overnight.deadline import too_late
from overnight.decisions import Decision, Over, Start, Task, Turned, Wait
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.report import Because, PassedOver
from overnight.resets import reset_s
from overnight.route import Route
from overnight.spec import TaskSpec

# an agent that says nothing before it is done would otherwise keep every slot of its route idle
CANARY_S = 120.0
_K = FailureKind


class Schedule:
    """One batch. Tell it what happens, then ask `decide`; between two events nothing changes before `wake`.

    Args:
        slots: Runs at a time by host; `concurrent` by provider, where there is such a limit.
        deadline: Nothing starts from this moment on.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        batch_id: str,
        slots: Mapping[str, int],
        concurrent: Mapping[str, int] | None = None,
        deadline: float | None = None,
        breakers: Mapping[str, Breaker] | None = None,
    ) -> None:
        in_turn = sorted(tasks, key=lambda task: -task.priority)
        self._tasks = {task.id: Task(task, task.ordered(batch_id)) for task in in_turn}
        self._batch_id = batch_id
        self._slots = slots
        self._concurrent = concurrent or {}
        self._deadline = deadline
        self.breakers = dict(breakers or {})
        self._shut: dict[Route, Failure] = {}
        self.avoided: dict[Route, float] = {}  # nothing is to start on a route before its moment
        self._probed: set[Route] = set()
        self._canaries: dict[str, tuple[str, float]] = {}
        self._turned: list[Turned] = []
        self._later: list[float] = []
        self._openings: Counter[str] = Counter()
        self._on_host: Counter[str] = Counter()
        self._asking: Counter[str] = Counter()

    @property
    def done(self) -> bool:
        return all(task.over for task in self._tasks.values())

    @property
    def idle(self) -> list[str]:
        """The tasks that neither run nor are over."""
        return [id for id, task in self._tasks.items() if not task.over and task.running is None]

    def breaker(self, key: str) -> Breaker:
        return self.breakers.get(key, Breaker())

    # what happened

    def probed(self, route: Route, failure: Failure | None, now: float) -> None:
        """Preflight found a route so. Nothing starts on a route before that."""
        self._probed.add(route)
        if failure is None:
            return
        if reset_s(failure, now) is not None:
            self._blame(failure, route, now)
        else:
            self._shut.setdefault(route, failure)

    def recall(self, task_id: str, ended: Iterable[tuple[Route, Failure | None]], now: float) -> None:
        """An earlier start of the batch decided these attempts, first to last."""
        for route, failure in ended:
            self._judge(self._tasks[task_id], route, failure, now)

    def adopt(self, task_id: str, route: Route) -> None:
        """An attempt of an earlier start lives on its host: it is followed, whatever speaks against starting it."""
        self._tasks[task_id].adopted = route

    def spoke(self, task_id: str, now: float) -> None:
        """The first good event of a task's attempt."""
        route = self._tasks[task_id].running
        if route is not None:
            self._trust(task_id, route, now)

    def ended(self, task_id: str, failure: Failure | None, now: float, *, undecided: bool = False) -> None:
        """An attempt is over.

        Args:
            undecided: It may go on without us, so the task has no other attempt in this start of the batch.
        """
        task = self._tasks[task_id]
        route = self._stop(task)
        if undecided:
            task.undecided = True
            return
        if failure is not None and failure.shuts_for_good:
            self._shut.setdefault(route, failure)
        elif failure is not None and blamed(failure, route):
            self._blame(failure, route, now)
        elif answers_for(failure):
            for key in keys(route):
                self._turn(key, self.breaker(key).succeeded(now), route, now)
        self._judge(task, route, failure, now)

    def gone(self, host: str, failure: Failure) -> None:
        """A host stayed out of reach: what has not started goes elsewhere."""
        for route in {route for task in self._tasks.values() for route in task.order if route.host == host}:
            self._shut.setdefault(route, failure)

    def spent(self, provider: str, failure: Failure) -> None:
        """A cap of the batch is reached: nothing more starts with this provider."""
        for route in {route for task in self._tasks.values() for route in task.order if route.provider == provider}:
            self._shut.setdefault(route, failure)

    def refused(self, task_id: str, why: Failure) -> None:
        """Somebody does not want the task to start any more. One that runs is not touched."""
        task = self._tasks[task_id]
        task.refused = task.refused or why

    def withdrawn(self, task_id: str) -> None:
        """A start that was decided came to nothing: no host was asked for it."""
        self._stop(self._tasks[task_id])

    def rests(self, task_id: str) -> None:
        """A run needs no slot for now: it waits for a person, and others can run meanwhile."""
        task = self._tasks[task_id]
        if task.running is not None and not task.rests:
            task.rests = True
            self._count(task.running, -1)

    def heard(self, breakers: Mapping[str, Breaker]) -> None:
        """What another night on this state directory found out."""
        for key, each in breakers.items():
            if each.at > self.breaker(key).at:
                self.breakers[key] = each

    # what follows

    def decide(self, now: float) -> list[Decision]:
        """Everything that is due, in the order of its urgency. Asked again at once it gives nothing."""
        found: list[Decision] = []
        again = True
        while again:  # a task that is over may free or doom those after it
            again, self._later = False, []
            for task in self._tasks.values():
                if task.over or task.running is not None:
                    continue
                decision = self._decide(task, now)
                if isinstance(decision, Start):
                    self._begin(task, decision, now)
                    found.append(decision)
                elif isinstance(decision, Over):
                    task.over = again = True
                    task.adopted = None
                    found.append(decision)
                elif decision.until is not None:
                    self._later.append(decision.until)
        turned, self._turned = self._turned, []
        return [*turned, *found]

    def wake(self, now: float) -> float | None:
        """When to ask `decide` again if nothing happens after it was; None when only an event can change anything."""
        moments = [self._deadline] if self._deadline is not None and self._deadline > now else []
        moments += self._later
        moments += [at + CANARY_S for _, at in self._canaries.values() if at + CANARY_S > now]
        return min(moments, default=None)

    def _decide(self, task: Task, now: float) -> Start | Over | Wait:
        number = task.spec.first + len(task.failures)
        if task.well or task.undecided:
            return Over(task.spec.id, None)
        if task.adopted is not None:
            return Start(task.spec.id, number, task.adopted, adopted=True)
        if task.refused is not None:
            return Over(task.spec.id, task.refused)
        if task.failures and self._wait_s(task) is None:
            return Over(task.spec.id, None)
        doomed, waits = self._before(task.spec)
        if doomed is not None:
            return Over(task.spec.id, doomed)
        if self._deadline is not None and now >= self._deadline:
            return Over(task.spec.id, too_late(self._deadline))
        if waits:
            return Wait(None)
        if task.not_before > now:
            return Wait(task.not_before)
        return self._choose(task, number, now)

    def _before(self, spec: TaskSpec) -> tuple[Failure | None, bool]:
        """What a task comes after: why it can never start, and whether it has to wait."""
        others = [self._tasks[name] for name in spec.after if name in self._tasks]
        bad = next((each for each in others if each.over and not each.well), None)
        if bad is not None:
            never = "it is left running" if bad.undecided else "it never started"
            last = bad.failures[-1].brief if bad.failures else never
            seen = Evidence(source="host", seen=f"{bad.spec.id}, which it comes after, did not succeed: {last}")
            return fail(_K.PREDECESSOR, seen), False
        return None, any(not each.over for each in others)

    def _choose(self, task: Task, number: int, now: float) -> Start | Over | Wait:
        """The best route that takes the task; one that is only busy is waited for, never passed over."""
        passed: list[PassedOver] = []
        later: list[float] = []
        for route in task.order:
            if route not in self._probed and route not in self._shut:
                return Wait(None)
            against = self._against(task, route)
            if against is not None:
                passed.append(against)
                continue
            if now < self.avoided.get(route, now):
                passed.append(PassedOver(route=route, because="peak"))
                later.append(self.avoided[route])
                continue
            until, canary, why = self._breakers_say(route, now)
            if until is not None and why is not None:
                in_time = until < (self._deadline or now + PATIENCE_S)
                if in_time and any(self.breaker(key).reset for key in keys(route)):
                    return Wait(until)
                passed.append(PassedOver(route=route, because="breaker", failure=why))
                later += [until] if in_time else []
                continue
            if self._busy(route, canary=canary, now=now):
                return Wait(None)
            return Start(task.spec.id, number, route, tuple(passed), canary=canary)
        if later:
            return Wait(min(later))
        return Over(task.spec.id, passed[0].failure, tuple(passed))

    def _against(self, task: Task, route: Route) -> PassedOver | None:
        """What stands against a route for the rest of the night."""
        given_up = next((self.breaker(key) for key in keys(route) if self._openings[key] >= GIVES_UP_AFTER), None)
        shut = self._shut.get(route)
        found: tuple[Because, Failure | None] | None = None
        if shut is not None:
            found = ("away" if shut.kind is _K.HOST_UNREACHABLE else "shut", shut)
        elif route in task.left:
            found = ("tried", task.left[route])
        elif given_up is not None:
            found = ("breaker", given_up.why)
        return PassedOver(route=route, because=found[0], failure=found[1]) if found else None

    def _breakers_say(self, route: Route, now: float) -> tuple[float | None, bool, Failure | None]:
        """Until when the route must not be asked, whether the next there is a canary, and what opened it."""
        both = [self.breaker(key) for key in keys(route)]
        shut = [each for each in both if each.state(now) == "open"]
        if shut:
            last = max(shut, key=lambda each: each.until or 0.0)
            return last.until, False, last.why
        if any(each.state(now) == "half-open" for each in both):
            return None, True, None
        out = self._canaries.get(keys(route)[0])
        silent = out is not None and now >= out[1] + CANARY_S
        return None, not both[0].trusted(now) and not silent, None

    def _busy(self, route: Route, *, canary: bool, now: float) -> bool:
        asking = self._asking[route.provider]
        if self._on_host[route.host] >= self._slots[route.host]:
            return True
        if asking >= self._concurrent.get(route.provider, asking + 1):
            return True
        return canary and any(self._alone(key, now) for key in keys(route))

    def _alone(self, key: str, now: float) -> bool:
        """Whether a canary of this route or provider is out, and nobody may follow it yet."""
        out = self._canaries.get(key)
        return out is not None and (self.breaker(key).until is not None or now < out[1] + CANARY_S)

    # how it is kept

    def _begin(self, task: Task, start: Start, now: float) -> None:
        task.running, task.adopted = start.route, None
        self._count(start.route, 1)
        if not start.canary:
            return
        route_key, provider_key = keys(start.route)
        self._canaries[route_key] = (start.task_id, now)
        if self.breaker(provider_key).until is not None:
            self._canaries[provider_key] = (start.task_id, now)
        for key in (route_key, provider_key):
            if self.breaker(key).state(now) == "half-open":
                self._turned.append(Turned(key, "half-open", self.breaker(key), start.route))

    def _stop(self, task: Task) -> Route:
        route, task.running = task.running, None
        if route is None:
            raise ValueError(f"{task.spec.id} does not run")
        if not task.rests:
            self._count(route, -1)
        task.rests = False
        self._release(task.spec.id)
        return route

    def _count(self, route: Route, runs: int) -> None:
        self._on_host[route.host] += runs
        self._asking[route.provider] += runs

    def _trust(self, task_id: str, route: Route, now: float) -> None:
        for key in keys(route):
            self._turn(key, self.breaker(key).spoke(now), route, now)
        self._release(task_id)

    def _release(self, task_id: str) -> None:
        self._canaries = {key: out for key, out in self._canaries.items() if out[0] != task_id}

    def _blame(self, failure: Failure, route: Route, now: float) -> None:
        for key in blamed(failure, route):
            self._turn(key, self.breaker(key).failed(failure, now), route, now)

    def _turn(self, key: str, after: Breaker, route: Route, now: float) -> None:
        before, self.breakers[key] = self.breaker(key), after
        if (before.until is None) != (after.until is None) or before.state(now) != after.state(now):
            self._turned.append(Turned(key, after.state(now), after, route))
        self._openings[key] += after.opened > before.opened

    def _judge(self, task: Task, route: Route, failure: Failure | None, now: float) -> None:
        """What an attempt's end means for the task's next one."""
        if failure is None:
            task.well = True
            return
        task.failures.append(failure)
        if leaves_route(failure, alone=len(task.order) == 1):
            task.left[route] = failure
        wait_s = self._wait_s(task)
        if wait_s:
            task.not_before = now + wait_s
            if task.not_before >= (self._deadline or now + PATIENCE_S):
                task.left[route], task.not_before = failure, now

    def _wait_s(self, task: Task) -> float | None:
        seed = f"{self._batch_id} {task.spec.id}"
        return wait_before_next(task.failures, task.spec.limits.attempts, seed, alone=len(task.order) == 1)

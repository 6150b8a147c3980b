"""The scheduler against a world that ends runs as it likes: what must hold whatever happens."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.again import leaves_route
from overnight.breaker import Breaker, keys
from overnight.decisions import Over, Start, Turned
from overnight.failures import Failure, FailureKind, Retry
from overnight.route import Route
from overnight.schedule import CANARY_S, Schedule
from overnight.spec import Limits, TaskSpec
from tests.overnight.samples import proven

K = FailureKind
HOSTS, PROVIDERS = ("a", "b"), ("p", "q")
ROUTES = [Route(host=h, harness="scripted", provider=p, model="m") for h in HOSTS for p in PROVIDERS]
ENDS = [None, None, None, *FailureKind]
NOON = 1_800_000_000.0


@dataclass(frozen=True)
class Fate:
    """How one attempt goes: after how long it speaks, if it does, and how it ends."""

    spoke_s: float | None
    lasts_s: float
    kind: FailureKind | None
    reset_s: float | None
    undecided: bool = False

    @property
    def failure(self) -> Failure | None:
        return proven(self.kind, retry_after_s=self.reset_s) if self.kind else None


@dataclass
class World:
    """A simulated clock; checks every decision against what it knows itself."""

    schedule: Schedule
    tasks: Mapping[str, TaskSpec]
    slots: Mapping[str, int]
    concurrent: Mapping[str, int]
    deadline: float | None
    fates: Sequence[Fate]
    now: float = NOON
    running: dict[str, Route] = field(default_factory=dict)
    attempts: dict[str, list[tuple[Route, Failure | None]]] = field(default_factory=dict)
    over: dict[str, Over] = field(default_factory=dict)
    well: set[str] = field(default_factory=set)
    shut: set[Route] = field(default_factory=set)
    events: list[tuple[float, int, str, Fate, bool]] = field(default_factory=list)
    silent: dict[Route, tuple[str, float]] = field(default_factory=dict)
    trusted: set[Route] = field(default_factory=set)
    numbers: count[int] = field(default_factory=count)

    def live(self) -> None:
        """To the end of the night, which must come."""
        for _ in range(3000):
            for decision in self.schedule.decide(self.now):
                self.take(decision)
            assert not [d for d in self.schedule.decide(self.now) if not isinstance(d, Turned)], "it had not said all"
            if self.schedule.done:
                break
            self.advance()
        assert self.schedule.done, "it waits for ever"
        assert set(self.over) == set(self.tasks)
        assert not self.running

    def advance(self) -> None:
        wake = self.schedule.wake(self.now)
        assert wake is None or wake > self.now
        due = self.events[0][0] if self.events else None
        assert due is not None or wake is not None, "nothing can happen any more"
        if due is None or (wake is not None and wake < due):
            self.now = wake or self.now
            return
        self.now, _, task_id, fate, ends = heapq.heappop(self.events)
        if not ends:
            self.trusted.add(self.running[task_id])
            self.schedule.spoke(task_id, self.now)
            return
        route = self.running.pop(task_id)
        self.silent = {each: out for each, out in self.silent.items() if out[0] != task_id}
        failure = fate.failure
        if fate.undecided:
            self.schedule.ended(task_id, None, self.now, undecided=True)
            return
        self.attempts[task_id].append((route, failure))
        if failure is None:
            self.well.add(task_id)
            self.trusted.add(route)
        elif failure.shuts_for_good:
            self.shut.add(route)
        self.schedule.ended(task_id, failure, self.now)

    def take(self, decision: object) -> None:
        if isinstance(decision, Over):
            assert decision.task_id not in self.over, "one outcome a task"
            assert decision.task_id not in self.running
            self.over[decision.task_id] = decision
            self.ended_so(decision)
        elif isinstance(decision, Start):
            self.begin(decision)

    def ended_so(self, over: Over) -> None:
        task = self.tasks[over.task_id]
        tried = self.attempts.get(task.id, [])
        bad = [name for name in task.after if name in self.over and name not in self.well]
        if over.why is not None and over.why.kind is K.PREDECESSOR:
            assert bad
            assert bad[0] in over.why.evidence[0].seen
        elif over.why is not None and over.why.kind is K.DEADLINE:
            assert self.deadline is not None
            assert self.now >= self.deadline
        elif over.why is None:
            assert tried or any(f.undecided for f in self.fates)
        elif not tried:
            assert over.passed_over, "what never started names every route that it could not take"
            assert {each.route for each in over.passed_over} == set(task.routes)

    def begin(self, start: Start) -> None:
        assert self.now >= self.schedule.avoided.get(start.route, 0.0), "in peak hours"
        task = self.tasks[start.task_id]
        tried = self.attempts.setdefault(task.id, [])
        assert task.id not in self.running, "never two attempts of one task at once"
        assert task.id not in self.over
        assert start.attempt == len(tried) + 1 <= task.limits.attempts
        assert self.deadline is None or self.now < self.deadline
        assert all(name in self.well for name in task.after)
        assert start.route not in self.shut
        alone = len(task.routes) == 1
        assert start.route not in {r for r, failure in tried if failure and leaves_route(failure, alone=alone)}
        self.check_canary(start)
        self.check_fallback(task, start, tried)
        self.running[task.id] = start.route
        on_host = Counter(route.host for route in self.running.values())
        assert all(on_host[host] <= n for host, n in self.slots.items())
        asking = Counter(route.provider for route in self.running.values())
        assert all(asking[provider] <= n for provider, n in self.concurrent.items())
        self.plan_fate(start)

    def check_canary(self, start: Start) -> None:
        """What is open gets nothing; what is half-open or unknown, one run at a time until it spoke."""
        for key in keys(start.route):
            state = self.schedule.breaker(key).state(self.now)
            assert state != "open"
            assert state == "closed" or start.canary
        before = self.silent.get(start.route)
        if before is not None and start.route not in self.trusted:
            assert self.now >= before[1] + CANARY_S, "the canary is alone"
        if start.canary:
            self.silent[start.route] = (start.task_id, self.now)

    def check_fallback(self, task: TaskSpec, start: Start, tried: Sequence[tuple[Route, Failure | None]]) -> None:
        better = task.routes[: task.routes.index(start.route)]
        assert [each.route for each in start.passed_over] == list(better), "no switch is silent"
        for each in start.passed_over:
            assert (each.failure is None) == (each.because == "peak")
            if each.because == "tried":
                last = [failure for route, failure in tried if route == each.route][-1]
                assert last is not None
                away = last.kind in (K.NETWORK, K.HOST_UNREACHABLE)
                late = last.retry is Retry.BACKOFF and self.deadline is not None
                assert last.retry is Retry.ELSEWHERE or away or late
            elif each.because == "shut":
                assert each.route in self.shut
            elif each.because == "peak":
                assert self.now < self.schedule.avoided[each.route]
            else:
                assert any(self.schedule.breaker(key).until is not None for key in keys(each.route))

    def plan_fate(self, start: Start) -> None:
        fate = self.fates[next(self.numbers) % len(self.fates)]
        ends_at = self.now + fate.lasts_s
        if fate.spoke_s is not None and self.now + fate.spoke_s < ends_at:
            heapq.heappush(self.events, (self.now + fate.spoke_s, next(self.numbers), start.task_id, fate, False))
        heapq.heappush(self.events, (ends_at, next(self.numbers), start.task_id, fate, True))


kinds = st.sampled_from(ENDS)
fates = st.builds(
    Fate,
    spoke_s=st.none() | st.floats(0, 300),
    lasts_s=st.floats(0, 4000),
    kind=kinds,
    reset_s=st.none() | st.floats(0.1, 20_000),
    undecided=st.sampled_from([False] * 15 + [True]),
)


@st.composite
def nights(draw: st.DrawFn) -> World:
    tasks: dict[str, TaskSpec] = {}
    for i in range(draw(st.integers(1, 9))):
        routes = tuple(draw(st.lists(st.sampled_from(ROUTES), min_size=1, max_size=4, unique=True)))
        after = tuple(sorted(draw(st.sets(st.sampled_from(sorted(tasks)), max_size=2)))) if tasks else ()
        tasks[f"t{i}"] = TaskSpec(
            id=f"t{i}",
            repo="/r",
            base="main",
            instruction="x",
            route=routes[0],
            routes=routes,
            limits=Limits(attempts=draw(st.integers(1, 4))),
            priority=draw(st.integers(-2, 2)),
            after=after,
            field=f"tasks[{i}]",
        )
    order = draw(st.permutations(sorted(tasks)))
    tasks = {name: tasks[name] for name in order}
    slots = {host: draw(st.integers(1, 3)) for host in HOSTS}
    concurrent = {p: draw(st.integers(1, 3)) for p in draw(st.sets(st.sampled_from(PROVIDERS)))}
    deadline = draw(st.none() | st.floats(NOON + 1, NOON + 30_000))
    old = Breaker(failures=3, opened=draw(st.integers(0, 9)), until=NOON + draw(st.floats(-99, 5000)), at=NOON - 5)
    old = old.model_copy(update={"why": proven(K.OVERLOADED)})
    breakers = {key: old for route in draw(st.sets(st.sampled_from(ROUTES))) for key in keys(route)[:1]}
    schedule = Schedule(
        list(tasks.values()),
        batch_id="b",
        slots=slots,
        concurrent=concurrent,
        deadline=deadline,
        breakers=breakers,
    )
    for route in draw(st.sets(st.sampled_from(ROUTES))):
        schedule.avoided[route] = NOON + draw(st.floats(1, 20_000))
    world = World(schedule, tasks, slots, concurrent, deadline, draw(st.lists(fates, min_size=1, max_size=12)))
    for route in ROUTES:
        failure = proven(K.AUTH_REJECTED) if draw(st.integers(0, 5)) == 0 else None
        schedule.probed(route, failure, NOON)
        world.shut |= {route} if failure else set()
    return world


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(nights())
def test_whatever_happens_the_night_keeps_its_rules_and_ends(world: World) -> None:
    world.live()


@pytest.mark.parametrize(("opens_h", "waits"), [(5, True), (7 * 24, False)])
def test_without_a_deadline_a_window_of_the_night_is_waited_for_and_one_of_the_week_is_not(
    opens_h: float, waits: bool
) -> None:
    task = TaskSpec(id="t", repo="/r", base="main", instruction="x", route=ROUTES[0], limits=Limits(), field="tasks[0]")
    schedule = Schedule([task], batch_id="b", slots={"a": 1})
    schedule.probed(ROUTES[0], proven(K.QUOTA_WINDOW, retry_after_s=opens_h * 3600), NOON)
    found = [each for each in schedule.decide(NOON) if isinstance(each, Over)]
    assert (found == []) == waits
    assert schedule.wake(NOON) == (NOON + opens_h * 3600 if waits else None)
    if not waits:
        assert found[0].why
        assert found[0].why.kind is K.QUOTA_WINDOW

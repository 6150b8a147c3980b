"""When a silent run is ended, and when not. Looks and calls are given here; real ones are in test_silent_runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from overnight.events import Exited, RunEvent, Sampled, Started
from overnight.failures import Evidence, FailureKind
from overnight.guard import LOOK_S, PROBE_S, RECHECK_S, Guard
from overnight.harnesses import HARNESSES
from overnight.lockfile import Header
from overnight.probe import Direct, HeaderReply
from overnight.reprobe import Agents, Reprobed, Reprobes
from overnight.sample import Process, Sample, Socket
from overnight.spec import Limits
from overnight.stop import Stop
from overnight.watch import Watch
from tests.overnight.samples import LOCK, plan
from tests.overnight.test_watch import ANSWER, DONE, INIT, STARTED, TOOL, beat, out, retry

K = FailureKind
LIMITS = Limits(first_event_s=60, quiet_s=420, no_change_s=900, total_s=7200)
AGENT = Process(1, main=True, command="claude -p x", state="S", age_s=501, cpu_delta_s=0)
ASKING = Socket(1, "ESTABLISHED", "10.1.1.1:443", sent_bytes=50_000, last_sent_s=489, last_received_s=490)
WAITING = Sample(at_s=501, seconds=1, processes=(AGENT,), sockets=(ASKING,))
TESTING = Sample(at_s=501, seconds=1, processes=(AGENT, Process(2, command="pytest", age_s=480, cpu_delta_s=0.9)))
SLEEPING = Sample(
    at_s=501, seconds=1, processes=(AGENT, Process(2, command="sleep 9", age_s=480, waits_in="nanosleep"))
)
IDLE = Sample(at_s=501, seconds=1, processes=(AGENT,))
QUIET: list[RunEvent] = [STARTED, beat(1), out(INIT), beat(500, quiet_s=490)]


def reply(kind: K | None, status: int | None = 200, source: str = "http") -> HeaderReply:
    seen = Evidence.model_validate({"source": source, "seen": f"HTTP {status}"})
    return HeaderReply(header=Header.BEARER, status=status, seconds=0.1, kind=kind, evidence=seen)


class Scene:
    """A guard over a run of Claude Code, with a clock, a host and a route that answer as they are told."""

    def __init__(self, *events: RunEvent, direct: HeaderReply | None = None, agent: Agents | None = None) -> None:
        self.now = 1000.0
        self.looks = 0
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        watch = Watch(plan(limits=LIMITS), HARNESSES["claude-code"], LOCK.providers["zai"].errors, lambda: 0.0)
        found = Direct(direct or reply(None))

        def call(name: str, answer: Reprobed) -> Callable[[float], Reprobed]:
            def asking(_timeout_s: float) -> Reprobed:
                self.asked.append(name)
                self.gate.wait()
                return answer

            return asking

        both = Reprobed(500.0, found, agent or Agents())
        self.guard = Guard(watch, Reprobes(call("direct", Reprobed(2.0, found)), call("both", both)), lambda: self.now)
        self.guard.looks_with(self._look)
        for event in events:
            watch.take(event)

    def _look(self) -> None:
        self.looks += 1

    def sees(self, sample: Sample | None, error: str = "") -> Stop | None:
        """Begin to doubt, hear this look, and let what is asked of the route be answered."""
        assert self.guard.decide() is None
        assert self.looks == 1
        self.guard.heard(Sampled(sample, error))
        return self.settles()

    def settles(self) -> Stop | None:
        before = len(self.asked)
        found = self.guard.decide()
        deadline = time.monotonic() + 20
        while found is None and len(self.asked) > before and time.monotonic() < deadline:
            time.sleep(0.01)
            found = self.guard.decide()
        return found


def test_a_silence_is_ended_only_after_the_host_was_looked_at_and_the_route_asked_again() -> None:
    scene = Scene(*QUIET)
    stop = scene.sees(WAITING)
    assert stop is not None
    assert stop.failure is not None
    assert (stop.rule, stop.failure.kind, scene.asked) == ("quiet_s", K.PROVIDER_MUTE, ["both"])
    words = [str(seen) for seen in stop.failure.evidence]
    assert "no-answer: the provider took its request" in "".join(words)
    assert "so it is neither the key nor the provider as a whole" in "".join(words)
    assert "quiet_s 420 ran out at 490 s" in "".join(words)
    assert scene.guard.decide() is stop


def test_a_command_at_work_is_left_alone_and_looked_at_again() -> None:
    scene = Scene(*QUIET, out(TOOL), beat(505, quiet_s=490))
    assert scene.sees(TESTING) is None
    assert (scene.guard.spared, scene.asked) == (1, [])
    scene.now += RECHECK_S - 1
    assert scene.guard.decide() is None
    assert scene.looks == 1
    scene.now += 2
    assert scene.guard.decide() is None
    assert scene.looks == 2
    scene.guard.heard(Sampled(SLEEPING))
    stop = scene.guard.decide()
    assert stop is not None
    assert stop.failure is not None
    assert stop.failure.kind is K.TOOL_STUCK
    assert "sleep 9 (pid 2) sleeps" in stop.failure.brief
    assert scene.asked == []


def test_a_run_that_speaks_while_it_is_looked_at_is_spared() -> None:
    scene = Scene(*QUIET)
    scene.gate.clear()
    assert scene.guard.decide() is None
    scene.guard.heard(Sampled(WAITING))
    assert scene.guard.decide() is None
    scene.guard.watch.take(out(ANSWER))
    scene.guard.watch.take(beat(503, quiet_s=1))
    assert scene.guard.decide() is None
    scene.gate.set()
    assert (scene.guard.spared, scene.guard.stop) == (1, None)


@pytest.mark.parametrize(
    ("direct", "kind"),
    [
        (reply(K.AUTH_REJECTED, 401), K.AUTH_REJECTED),
        (reply(K.QUOTA_WINDOW, 429, "body"), K.QUOTA_WINDOW),
        (reply(K.PROVIDER_MUTE, None, "probe"), K.PROVIDER_MUTE),
        (reply(K.NETWORK, None, "probe"), K.WENT_QUIET),
        (reply(None), K.WENT_QUIET),
    ],
)
def test_where_the_host_shows_no_cause_a_fresh_call_may(direct: HeaderReply, kind: K) -> None:
    stop = Scene(*QUIET, direct=direct).sees(IDLE)
    assert stop is not None
    assert stop.failure is not None
    assert stop.failure.kind is kind


def test_a_host_that_cannot_be_asked_ends_in_a_name_without_a_cause() -> None:
    stop = Scene(*QUIET).sees(None, "no python3 any more")
    assert stop is not None
    assert stop.failure is not None
    assert stop.failure.kind is K.WENT_QUIET
    assert "no python3 any more" in repr(stop.failure.evidence)


def test_a_host_and_a_route_that_never_answer_do_not_hold_the_verdict_up() -> None:
    scene = Scene(*QUIET)
    scene.gate.clear()
    assert scene.guard.decide() is None
    scene.now += LOOK_S + 0.1
    assert scene.guard.decide() is None
    scene.now += PROBE_S + LOOK_S + 0.1
    stop = scene.guard.decide()
    scene.gate.set()
    assert stop is not None
    assert stop.failure is not None
    assert "the host gave no answer" in repr(stop.failure.evidence)


def test_before_its_first_event_an_agent_may_wait_for_the_provider_as_long_as_later() -> None:
    mute: list[RunEvent] = [STARTED, beat(60), beat(65), beat(70)]
    scene = Scene(*mute)
    assert scene.sees(WAITING) is None
    scene.guard.watch.take(beat(425))
    scene.guard.watch.take(beat(430))
    scene.now += RECHECK_S + 1
    scene.looks = 0
    stop = scene.sees(WAITING)
    assert stop is not None
    assert stop.failure is not None
    assert (stop.rule, stop.failure.kind) == ("first_event_s", K.PROVIDER_MUTE)


def test_what_the_provider_said_is_the_cause_of_a_silence() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(529, "overloaded")), beat(500, quiet_s=490))
    stop = scene.sees(IDLE)
    assert stop is not None
    assert stop.failure is not None
    assert stop.failure.kind is K.OVERLOADED
    assert "quiet_s 420 ran out at 490 s" in repr(stop.failure.evidence)


def test_a_cause_nobody_can_name_does_not_hide_the_silence() -> None:
    odd = retry(None, "unheard_of") | {"error_status": 302}
    stop = Scene(STARTED, out(INIT, odd), beat(500, quiet_s=490)).sees(IDLE)
    assert stop is not None
    assert stop.failure is not None
    assert stop.failure.kind is K.WENT_QUIET


LIMITED: list[RunEvent] = [STARTED, beat(1), out(INIT, retry(429, "rate_limit"))]


@pytest.mark.parametrize("kind", [K.BILLING, K.QUOTA_WINDOW, K.PLAN_EXPIRED])
def test_the_first_rate_limit_is_asked_what_it_is(kind: K) -> None:
    scene = Scene(*LIMITED, direct=reply(kind, 429, "body"))
    stop = scene.settles()
    assert stop is not None
    assert stop.failure is not None
    assert (stop.rule, stop.failure.kind, scene.asked) == ("quota-probe", kind, ["direct"])


@pytest.mark.parametrize("direct", [reply(K.RATE_LIMITED, 429), reply(None), reply(K.AUTH_REJECTED, 401)])
def test_a_rate_limit_that_is_one_goes_on_and_is_asked_once(direct: HeaderReply) -> None:
    scene = Scene(*LIMITED, direct=direct)
    assert scene.guard.decide() is None
    deadline = time.monotonic() + 20
    while scene.guard.reprobed is None and time.monotonic() < deadline:
        assert scene.guard.decide() is None
    scene.guard.watch.take(out(retry(429, "rate_limit")))
    assert scene.guard.decide() is None
    assert scene.asked == ["direct"]


def test_a_refused_key_is_acted_on_at_once_and_what_runs_is_recorded_first() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(401, "authentication_failed")))
    stop = scene.guard.decide()
    assert stop is not None
    assert (stop.rule, scene.looks, scene.guard.ready) == ("proof", 1, False)
    scene.guard.heard(Sampled(WAITING))
    assert scene.guard.ready
    assert scene.guard.audit().running == ("claude -p x (pid 1)",)


def test_a_look_that_does_not_come_does_not_hold_the_end_up() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(401, "authentication_failed")))
    scene.guard.decide()
    scene.now += 3.1
    assert scene.guard.ready


def test_a_process_that_lingers_after_its_verdict_is_ended_without_a_failure() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, DONE), beat(100, quiet_s=61))
    stop = scene.guard.decide()
    assert stop is not None
    assert (stop.rule, stop.failure, scene.looks) == ("linger_s", None, 0)


def test_shortly_before_the_host_s_own_limit_it_is_looked_at() -> None:
    scene = Scene(STARTED, beat(7000), out(INIT, TOOL), beat(7185, quiet_s=1))
    assert scene.guard.decide() is None
    assert scene.looks == 0
    scene.guard.watch.take(beat(7195, quiet_s=1))
    assert scene.guard.decide() is None
    scene.guard.heard(Sampled(replace(TESTING, at_s=7500)))
    assert scene.guard.decide() is None
    assert scene.looks == 1
    assert scene.guard.standing is not None
    assert scene.guard.standing.rung == "tool-busy"


def test_a_command_that_takes_longer_than_a_silence_may_is_looked_at_and_never_ended_for_it() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, TOOL), beat(200, quiet_s=1))
    assert scene.guard.decide() is None
    assert scene.looks == 0
    scene.guard.watch.take(beat(425, quiet_s=1))
    assert scene.guard.decide() is None
    assert scene.looks == 1
    sleep = replace(SLEEPING.processes[1], age_s=420)
    scene.guard.heard(Sampled(replace(SLEEPING, at_s=425, processes=(AGENT, sleep))))
    assert scene.guard.decide() is None
    assert scene.guard.stuck is not None
    assert (scene.guard.stuck.rung, scene.guard.stop, scene.looks) == ("tool-sleeps", None, 1)


def test_half_way_through_a_silence_it_is_looked_at_so_that_a_command_at_rest_is_known() -> None:
    scene = Scene(STARTED, beat(1), out(INIT), beat(250, quiet_s=249))
    assert scene.guard.decide() is None
    assert scene.looks == 1
    resting = replace(TESTING.processes[1], cpu_delta_s=0.0, cpu_s=10.0, waits_in="nanosleep")
    scene.guard.heard(Sampled(replace(TESTING, at_s=250, processes=(AGENT, replace(resting, age_s=229)))))
    assert scene.guard.decide() is None
    assert scene.looks == 1
    scene.guard.watch.take(beat(500, quiet_s=490))
    assert scene.guard.decide() is None
    assert scene.looks == 2
    scene.guard.heard(Sampled(replace(TESTING, processes=(AGENT, replace(resting, cpu_s=30.0)))))
    assert scene.guard.decide() is None
    assert scene.guard.standing is not None
    assert "20.0 s of CPU and 0 new processes in the last 251 s" in scene.guard.standing.shown.seen
    assert scene.guard.spared == 1


def test_the_audit_says_whether_an_ended_run_was_at_work_after_all() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(401, "authentication_failed")))
    scene.guard.decide()
    assert not scene.guard.audit().progress_after
    scene.guard.watch.take(beat(5))
    scene.guard.watch.take(out(ANSWER))
    audit = scene.guard.audit()
    assert (audit.rule, audit.progress_after) == ("proof", True)


def test_once_the_run_has_ended_nothing_is_decided() -> None:
    scene = Scene(*QUIET, Exited(1, None, 501.0))
    assert scene.guard.decide() is None
    assert scene.looks == 0


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ([DONE], []),
        ([retry(429, "rate_limit")], ["direct"]),
        ([retry(None, "unheard_of")], ["direct"]),
        ([DONE | {"is_error": True, "result": "API Error: 401 [1001][no][x]", "api_error_status": 401}], []),
    ],
)
def test_an_end_that_no_code_explains_asks_the_route_again(lines: list[dict[str, object]], asked: list[str]) -> None:
    scene = Scene(Started(7, 100.0), beat(1), out(INIT, *lines), Exited(0 if lines == [DONE] else 1, None, 9.0))
    scene.guard.conclude()
    assert scene.asked == asked


def test_a_probe_is_judged_without_a_look_and_without_another_probe() -> None:
    watch = Watch(plan(limits=LIMITS), HARNESSES["claude-code"], LOCK.providers["zai"].errors, lambda: 0.0)
    guard = Guard(watch)
    guard.looks_with(lambda: pytest.fail("a probe is not looked at"))
    for event in (STARTED, beat(1), out(INIT, retry(401, "authentication_failed"))):
        watch.take(event)
    assert guard.decide() is not None
    assert guard.ready

"""What ends a run at once, what only looks on, and what is asked once it has ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.events import Exited, RunEvent, Sampled, Started
from overnight.failures import FailureKind
from overnight.guard import PROBE_S, Guard
from overnight.harnesses import HARNESSES
from overnight.probe import HeaderReply
from overnight.watch import Watch
from tests.overnight.guarding import AGENT, IDLE, LIMITS, QUIET, SLEEPING, TESTING, WAITING, Scene, reply
from tests.overnight.samples import LOCK, plan
from tests.overnight.test_watch import ANSWER, DONE, INIT, STARTED, TOOL, beat, out, retry

K = FailureKind


LINGERING: list[RunEvent] = [STARTED, beat(1), out(INIT, DONE), beat(100, quiet_s=61)]
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
    assert scene.settles() is None
    scene.guard.watch.take(out(retry(429, "rate_limit")))
    assert scene.guard.decide() is None
    assert scene.asked == ["direct"]


def test_a_refused_key_is_acted_on_at_once_and_what_runs_is_recorded_first() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(401, "authentication_failed")))
    stop = scene.settles()
    assert stop is not None
    assert (stop.rule, scene.asked, scene.looks, scene.guard.ready) == ("proof", ["direct"], 1, False)
    scene.guard.heard(Sampled(WAITING))
    assert scene.guard.ready
    assert scene.guard.audit().running == ("claude -p x (pid 1)",)


def test_what_no_code_proves_is_asked_about_before_it_is_named() -> None:
    refused: list[RunEvent] = [STARTED, beat(1), out(INIT, retry(403, "authentication_failed"))]
    stop = Scene(*refused, direct=reply(K.NOT_THE_API, 403)).settles()
    assert stop is not None
    assert stop.failure is not None
    assert (stop.rule, stop.failure.kind) == ("proof", K.NOT_THE_API)


def test_a_code_of_the_provider_is_proof_enough() -> None:
    coded = DONE | {"is_error": True, "result": "API Error: 401 [1000][no][x]", "api_error_status": 401}
    error = {"type": "assistant", "error": "authentication_failed", "api_error_status": 401}
    text = {"message": {"model": "<synthetic>", "content": [{"type": "text", "text": coded["result"]}]}}
    scene = Scene(STARTED, beat(1), out(INIT, error | text))
    stop = scene.guard.decide()
    assert stop is not None
    assert (stop.rule, scene.asked) == ("proof", [])


def test_a_provider_that_does_not_answer_the_question_does_not_hold_the_verdict_up() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(401, "authentication_failed")))
    scene.gate.clear()
    assert scene.guard.decide() is None
    scene.now += PROBE_S + 0.1
    stop = scene.guard.decide()
    scene.gate.set()
    assert stop is not None
    assert stop.failure is not None
    assert stop.failure.kind is K.AUTH_REJECTED


def test_a_look_that_does_not_come_does_not_hold_the_end_up() -> None:
    scene = Scene(STARTED, beat(1), out(INIT, retry(401, "authentication_failed")))
    assert scene.settles() is not None
    scene.now += 3.1
    assert scene.guard.ready


def test_a_process_that_lingers_after_its_verdict_is_ended_without_a_failure() -> None:
    stop = (scene := Scene(*LINGERING)).sees(IDLE)
    assert stop is not None
    assert (stop.rule, stop.failure, scene.asked) == ("linger_s", None, [])


def test_a_command_in_the_background_may_go_on_after_the_verdict() -> None:
    scene = Scene(*LINGERING)
    testing = replace(TESTING.processes[1], age_s=70.0)
    assert scene.sees(replace(TESTING, at_s=100, processes=(AGENT, testing))) is None
    assert scene.guard.spared == 1


def test_a_refusal_late_in_a_run_is_asked_about_anew() -> None:
    scene = Scene(*LIMITED, direct=reply(K.AUTH_REJECTED, 401))
    assert scene.settles() is None
    scene.guard.watch.take(beat(300))
    scene.guard.watch.take(out(retry(401, "authentication_failed")))
    assert scene.settles() is not None
    assert scene.asked == ["direct", "direct"]


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
    assert scene.settles() is not None
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

"""When a silent run is ended, and when not."""

from __future__ import annotations

import pytest

from overnight.events import RunEvent, Sampled
from overnight.failures import FailureKind
from overnight.guard import LOOK_S, PROBE_S, RECHECK_S
from overnight.probe import HeaderReply
from tests.overnight.guarding import IDLE, QUIET, SLEEPING, TESTING, WAITING, Scene, reply
from tests.overnight.test_watch import ANSWER, INIT, STARTED, TOOL, beat, out, retry

K = FailureKind


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

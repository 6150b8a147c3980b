from __future__ import annotations

import json
from typing import Any

import pytest

from overnight.events import Act, AgentEvent, Exited, Heartbeat, Killed, Lost, Output, RunEvent, Started
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.spec import Limits
from overnight.watch import Watch, describe
from tests.overnight.samples import LOCK, plan

K = FailureKind
LIMITS = Limits(first_event_s=60, quiet_s=420, no_change_s=900)
STARTED = Started(7, 100.0)
INIT = {"type": "system", "subtype": "init", "model": "glm-5.2", "session_id": "s", "tools": []}
ANSWER = {"type": "assistant", "message": {"model": "glm-5.2", "content": [{"type": "text", "text": "401 429"}]}}
TOOL = {"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "Bash", "input": {}}]}}
TOOL_DONE = {"type": "user", "message": {"content": [{"type": "tool_result", "content": "ok"}]}}
DONE = {"type": "result", "subtype": "success", "is_error": False, "result": "Done", "session_id": "s"}


def retry(status: int | None, error: str) -> dict[str, Any]:
    known = {"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 2, "retry_delay_ms": 500}
    return {**known, "error_status": status, "error": error}


def out(*lines: dict[str, Any]) -> Output:
    return Output("out", 0, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def beat(age_s: float, quiet_s: float = 0.0, unchanged_s: float | None = None) -> Heartbeat:
    return Heartbeat(age_s, 1.5, 3, quiet_s, unchanged_s)


def watching(*events: RunEvent) -> Watch:
    watch = Watch(plan(limits=LIMITS), HARNESSES["claude-code"], LOCK.providers["zai"].errors, lambda: 0.0)
    for event in events:
        watch.take(event)
    return watch


def stopped(*events: RunEvent) -> FailureKind | None:
    watch = watching(*events)
    found = watch.proven() or watch.silence()
    return found.kind if found else None


class TestClocks:
    def test_a_run_that_speaks_and_works_goes_on(self) -> None:
        assert stopped(STARTED, beat(1), out(INIT, TOOL), beat(5000, quiet_s=400, unchanged_s=800)) is None

    def test_no_first_event(self) -> None:
        silent: list[RunEvent] = [STARTED, *(beat(age) for age in range(0, 61, 5))]
        assert stopped(*silent) is None
        assert stopped(*silent, beat(65), beat(70)) is K.SILENT_START

    def test_output_that_is_no_event_is_no_first_event(self) -> None:
        noise = Output("err", 0, b"Loading...\n")
        assert stopped(STARTED, noise, beat(65), noise, beat(70)) is K.SILENT_START

    def test_quiet_after_it_spoke(self) -> None:
        assert stopped(STARTED, out(INIT), beat(500, quiet_s=420)) is None
        assert stopped(STARTED, out(INIT), beat(500, quiet_s=421)) is K.WENT_QUIET

    def test_what_it_said_since_the_heartbeat_ends_the_silence(self) -> None:
        assert stopped(STARTED, out(INIT), beat(500, quiet_s=421), out(ANSWER)) is None
        assert stopped(STARTED, out(INIT), beat(500, quiet_s=421), out(ANSWER), beat(505, quiet_s=5)) is None
        assert stopped(STARTED, out(INIT), beat(500, quiet_s=421), Output("err", 0, b"warning\n")) is K.WENT_QUIET

    def test_speaking_without_a_change(self) -> None:
        assert stopped(STARTED, out(INIT), beat(1000, unchanged_s=901)) is K.NO_CHANGE

    def test_an_ended_run_is_not_stopped(self) -> None:
        for ending in (Exited(1, None, 70.0), Killed("request", 70.0), Lost("rebooted")):
            assert stopped(STARTED, beat(65), beat(70), ending) is None


class TestOneAnswer:
    """How long the model is at its answer, however lively it drips."""

    def answer_s(self, *events: RunEvent) -> float | None:
        progress = watching(STARTED, *events).progress()
        assert progress is not None
        return progress.answer_s

    def test_it_is_counted_from_the_question(self) -> None:
        assert self.answer_s(beat(2), out(INIT), beat(30, quiet_s=1)) == 28
        assert self.answer_s(beat(2), out(INIT), beat(20), out(ANSWER), beat(30)) == 28

    def test_a_retry_begins_anew_after_its_pause(self) -> None:
        assert self.answer_s(out(INIT), beat(10), out(retry(429, "rate_limit")), beat(20)) == 9.5

    def test_not_while_a_tool_runs_or_after_the_verdict(self) -> None:
        assert self.answer_s(beat(2), out(INIT, TOOL), beat(50)) is None
        assert self.answer_s(beat(2), out(INIT, TOOL, TOOL_DONE), beat(30)) == 28
        assert self.answer_s(beat(2), out(INIT, DONE), beat(50)) is None

    def test_nobody_knows_it_of_what_an_earlier_controller_read(self) -> None:
        progress = watching(out(INIT), STARTED, beat(5000)).progress()
        assert progress is not None
        assert progress.answer_s is None

    def test_its_clock(self) -> None:
        dripping: list[RunEvent] = [STARTED, beat(2), out(INIT), *(beat(age, quiet_s=1) for age in range(7, 1802, 5))]
        assert stopped(*dripping, beat(1802, quiet_s=1)) is None
        assert stopped(*dripping, beat(1803, quiet_s=1)) is K.PROVIDER_MUTE

    def test_a_break_of_the_link_does_not_count(self) -> None:
        assert self.answer_s(beat(2), out(INIT), beat(2000), beat(2010)) == 10


class TestLingering:
    def test_a_process_that_lives_on_after_its_verdict(self) -> None:
        silence = watching(STARTED, out(INIT, DONE), beat(100, quiet_s=61)).silence()
        assert silence is not None
        assert silence.clock == "linger_s"

    def test_it_may_still_say_something(self) -> None:
        assert watching(STARTED, out(INIT, DONE), beat(100, quiet_s=59)).silence() is None
        assert watching(STARTED, out(INIT, DONE, ANSWER), beat(100, quiet_s=61)).silence() is None


class TestLink:
    """No time passes here while the link is down: ages come from heartbeats only."""

    def test_without_heartbeats_nothing_is_silent(self) -> None:
        assert stopped() is None
        assert stopped(STARTED) is None
        assert stopped(STARTED, beat(30)) is None
        assert stopped(STARTED, out(INIT), beat(30)) is None

    def test_the_heartbeat_after_a_break_comes_before_what_piled_up(self) -> None:
        after: list[RunEvent] = [STARTED, beat(5), beat(3600, quiet_s=1)]
        assert stopped(*after) is None
        assert stopped(*after, out(INIT, ANSWER), beat(3605, quiet_s=1)) is None
        assert stopped(*after, beat(3605, quiet_s=3605)) is K.SILENT_START

    def test_a_run_that_fell_silent_during_the_break_is_found_at_once(self) -> None:
        assert stopped(STARTED, beat(5), out(INIT), beat(3600, quiet_s=3590)) is K.WENT_QUIET

    def test_what_piled_up_does_not_count_as_silence(self) -> None:
        assert stopped(STARTED, beat(5), out(INIT), beat(3600, quiet_s=2), out(ANSWER)) is None


class TestFirstEvent:
    def test_its_time_is_the_heartbeat_s(self) -> None:
        assert watching(STARTED, beat(3), out(INIT), beat(8), out(ANSWER)).first_event_s == 3

    def test_it_may_come_before_any_heartbeat(self) -> None:
        assert watching(STARTED, out(INIT)).first_event_s == 0

    def test_it_is_not_known_after_a_break_or_from_a_copy(self) -> None:
        assert watching(STARTED, beat(3), beat(3600), out(INIT)).first_event_s is None
        assert watching(STARTED, beat(3600), out(INIT)).first_event_s is None
        assert watching(out(INIT), STARTED, beat(3600), out(ANSWER)).first_event_s is None

    def test_a_copy_is_a_sign_of_life(self) -> None:
        assert stopped(out(INIT), STARTED, beat(3600, quiet_s=1), beat(3605, quiet_s=1)) is None


class TestTimes:
    """When something was said, between two heartbeats."""

    def saying(self, *said: tuple[float, RunEvent]) -> Watch:
        clock = [0.0]
        watch = Watch(plan(limits=LIMITS), HARNESSES["claude-code"], LOCK.providers["zai"].errors, lambda: clock[0])
        for at, event in said:
            clock[0] = at
            watch.take(event)
        return watch

    def test_events_between_heartbeats_have_their_own_time(self) -> None:
        watch = self.saying((10.0, STARTED), (11.5, out(INIT)), (12.0, beat(2.0)), (13.2, out(DONE)))
        assert watch.first_event_s == 1.5
        assert [said.at_s for said in watch.transcript.said] == [1.5, 3.2]

    def test_no_time_is_made_up_while_nothing_is_heard(self) -> None:
        watch = self.saying((10.0, STARTED), (12.0, beat(2.0)), (500.0, out(DONE)))
        assert [said.at_s for said in watch.transcript.said] == [7.0]


class TestCauses:
    def test_a_refused_key_stops_the_run_at_its_first_event(self) -> None:
        found = watching(STARTED, beat(1), out(INIT, retry(401, "authentication_failed"))).proven()
        assert found is not None
        assert (found.kind, found.shuts_route) == (K.AUTH_REJECTED, True)
        assert "401 authentication_failed" in found.evidence[0].seen

    @pytest.mark.parametrize("trouble", [retry(429, "rate_limit"), retry(529, "overloaded"), retry(None, "unknown")])
    def test_what_time_may_mend_does_not(self, trouble: dict[str, Any]) -> None:
        assert stopped(STARTED, beat(1), out(INIT, trouble)) is None

    def test_prose_and_tool_output_do_not(self) -> None:
        assert stopped(STARTED, beat(1), out(INIT, ANSWER | {"error": None})) is None

    def test_a_line_cut_in_two_is_read_once_whole(self) -> None:
        whole = out(INIT, retry(401, "authentication_failed")).data
        for at in (1, len(whole) // 2, len(whole) - 1):
            watch = watching(STARTED, beat(1), Output("out", 0, whole[:at]))
            assert watch.proven() is None
            watch.take(Output("out", at, whole[at:]))
            assert watch.proven() is not None


class TestWhatIsShown:
    def test_only_what_is_worth_a_line(self) -> None:
        watch = watching(STARTED, beat(2))
        shown = watch.take(out(INIT, ANSWER, DONE))
        assert [(s.at_s, describe(s.event)) for s in shown] == [(2, "started, model glm-5.2"), (2, "result ok")]

    def test_the_model_s_words_are_never_shown(self) -> None:
        acts = (describe(AgentEvent(act, text="secret words", tool="Bash")) for act in Act)
        assert not [words for words in acts if "secret words" in words]

    @pytest.mark.parametrize(
        ("event", "words"),
        [
            (AgentEvent(Act.RETRYING, status=429, error="rate_limit", attempt=2), "retry 2: 429 rate_limit"),
            (AgentEvent(Act.RETRYING), "retry ?: no answer"),
            (AgentEvent(Act.TOOL_STARTED, tool="Bash"), "tool Bash"),
            (AgentEvent(Act.COMMITTED, sha="c" * 40), "commit cccccccccc"),
            (AgentEvent(Act.DENIED, tool="Bash"), "permission denied: Bash"),
            (AgentEvent(Act.ERROR, error="overloaded"), "error overloaded"),
            (AgentEvent(Act.RESULT, ok=False, status=401), "result: 401"),
            (AgentEvent(Act.SPOKE), "spoke"),
        ],
    )
    def test_an_event_in_a_few_words(self, event: AgentEvent, words: str) -> None:
        assert describe(event) == words

    def test_model_and_verdict_come_from_the_newest_events(self) -> None:
        other = {**ANSWER, "message": {**ANSWER["message"], "model": "glm-5.1"}}  # type: ignore[dict-item]  # it is one
        watch = watching(STARTED, out(INIT))
        assert (watch.model_answered(), watch.last_result()) == (None, None)
        watch.take(out(ANSWER, other, DONE, DONE | {"is_error": True}))
        verdict = watch.last_result()
        assert watch.model_answered() == "glm-5.1"
        assert verdict is not None
        assert verdict.ok is False

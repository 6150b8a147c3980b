"""The order of proof, shown on transcripts made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.events import Act, AgentEvent, Ending, Exited, Killed, Lost
from overnight.failures import Failure, FailureKind
from overnight.harnesses import claude_code, scripted
from overnight.transcript import Transcript
from tests.overnight.harnesses.golden import RULES

K = FailureKind
NAMES = {"provider": "zhipu", "harness": "claude-code", "host": "box", "model": "glm-5.1"}
OK = AgentEvent(Act.RESULT, text="Done", ok=True)
AUTH = AgentEvent(Act.RETRYING, error="authentication_failed", status=401, attempt=1, delay_s=0.5)
LIMITED = AgentEvent(Act.RETRYING, error="rate_limit", status=429, attempt=1, delay_s=0.5)
NO_STATUS = AgentEvent(Act.RETRYING, error="unknown", attempt=1, delay_s=0.5)
SPOKE = AgentEvent(Act.SPOKE, text="on it", model="glm-5.1")


def judged(*said: tuple[float, AgentEvent], ending: Ending | None = None) -> Failure | None:
    transcript = Transcript(ending=ending)
    for at_s, event in said:
        transcript.add_events(at_s, [event])
    return claude_code.diagnose(transcript, RULES, NAMES)


def kind(*said: tuple[float, AgentEvent], ending: Ending | None = None) -> FailureKind | None:
    failure = judged(*said, ending=ending)
    return failure.kind if failure else None


def failed(text: str, *, error: str | None = None, status: int | None = None) -> FailureKind | None:
    events = (
        (1.0, AgentEvent(Act.ERROR, text, error, status)),
        (1.1, AgentEvent(Act.RESULT, text, status=status, ok=False)),
    )
    return kind(*events, ending=Exited(1, None, 2.0))


def test_a_running_transcript_names_auth_at_the_first_try() -> None:
    failure = judged((0.4, AUTH))
    assert failure is not None
    assert failure.kind is K.AUTH_REJECTED
    assert str(failure.evidence[0]) == "event: api_retry attempt 1: 401 authentication_failed at 0.4 s"
    assert failure.remedy == "replace the key: overnight credentials add zhipu"


def test_retries_that_led_to_an_answer_are_forgiven() -> None:
    assert kind((0.4, LIMITED), (2.0, SPOKE)) is None
    assert kind((0.4, LIMITED), (2.0, SPOKE), (3.0, OK), ending=Exited(0, None, 3.1)) is None


def test_trouble_after_an_answer_counts() -> None:
    assert kind((1.0, SPOKE), (2.0, LIMITED)) is K.RATE_LIMITED


def test_a_providers_words_are_not_taken_for_the_harnesss_own_line() -> None:
    assert (
        failed("API Error: 500 upstream said: Connection refused", error="server_error", status=500) is K.PROVIDER_ERROR
    )
    assert failed("API Error: Connection refused (ECONNREFUSED)", error="server_error") is K.NETWORK


def test_what_the_model_said_before_an_error_is_not_read() -> None:
    error = AgentEvent(Act.ERROR, "API Error: Connection lost mid-response.", "connection_failed")
    verdict = AgentEvent(Act.RESULT, "Credit balance is too low [1113] API Error: lost", "connection_failed", ok=False)
    assert kind((0.5, SPOKE), (1.0, error), (1.1, verdict)) is K.NETWORK


def test_an_error_that_was_got_over_is_not_the_verdict() -> None:
    early = AgentEvent(Act.ERROR, "Not logged in", "authentication_failed", 401)
    assert kind((0.5, early), (1.0, SPOKE), (1.1, AgentEvent(Act.RESULT, "?", ok=False))) is K.UNKNOWN
    capped = AgentEvent(Act.RESULT, "Reached maximum", "error_max_turns", ok=False)
    assert kind((0.5, early), (1.1, capped)) is K.TURN_LIMIT


def test_the_providers_code_says_more_than_the_harnesss_word() -> None:
    assert failed("API Error: Request rejected (429) · [1113] no balance", error="rate_limit", status=429) is K.BILLING
    assert failed("API Error: Request rejected (429) · slow down", error="rate_limit", status=429) is K.RATE_LIMITED


def test_a_status_says_more_than_a_broad_word() -> None:
    assert failed("API Error: 529", error="server_error", status=529) is K.OVERLOADED
    assert failed("API Error: something", error="server_error") is K.PROVIDER_ERROR


def test_a_failure_nobody_knows_stays_unknown_with_its_words() -> None:
    failure = judged(
        (1.0, AgentEvent(Act.RESULT, "The flux broke", ok=False)),
        ending=Exited(1, None, 2.0),
    )
    assert failure is not None
    assert failure.kind is K.UNKNOWN
    assert "The flux broke" in failure.evidence[0].seen


@pytest.mark.parametrize(("took_s", "expected"), [(0.2, K.NETWORK), (15.0, K.PROVIDER_MUTE), (360.0, K.PROVIDER_MUTE)])
def test_how_long_a_try_took_tells_refusal_from_silence(took_s: float, expected: FailureKind) -> None:
    waiting = AgentEvent(Act.WAITING)
    assert kind((100.0, waiting), (100.0 + took_s, NO_STATUS)) is expected
    # the pause before a retry is not part of the try
    assert kind((0.0, waiting), (1.0, AgentEvent(Act.RETRYING, delay_s=30.0)), (31.0 + took_s, NO_STATUS)) is expected


def test_not_the_api_cannot_be_said_of_a_provider_that_answered_before() -> None:
    words = "API Error: API returned an empty or malformed response (HTTP 200)"
    last = (AgentEvent(Act.ERROR, words, "unknown"), AgentEvent(Act.RESULT, words, ok=False))
    assert kind((1.0, last[0]), (1.1, last[1])) is K.NOT_THE_API
    assert kind((0.5, SPOKE), (1.0, last[0]), (1.1, last[1])) is K.PROVIDER_ERROR


def test_what_the_harness_said_outlives_how_it_ended() -> None:
    for ending in (Exited(143, None, 9.0), Killed("total_s", 9.0), Lost("the host rebooted")):
        assert kind((0.4, LIMITED), ending=ending) is K.RATE_LIMITED


def test_memory_running_out_outweighs_an_old_complaint() -> None:
    struck = Exited(None, 9, 9.0, oom_kills=1, oom_kills_own=1)
    assert kind((0.4, LIMITED), ending=struck) is K.OUT_OF_MEMORY
    assert kind((0.4, LIMITED), ending=replace(struck, oom_kills_own=0)) is K.RATE_LIMITED


def test_a_verdict_outweighs_memory_that_ran_out_somewhere_on_the_host() -> None:
    refused = AgentEvent(Act.RESULT, "Failed to authenticate", "authentication_failed", 401, ok=False)
    assert kind((1.0, refused), ending=Exited(1, None, 2.0, oom_kills=1, oom_kills_own=1)) is K.AUTH_REJECTED
    assert kind((1.0, OK), ending=Exited(0, None, 2.0, oom_kills=1, oom_kills_own=1)) is None


def test_a_full_disk_is_told_by_the_harness_but_not_by_the_provider() -> None:
    words = "ENOSPC: no space left on device, write"
    assert failed(words) is K.DISK_FULL
    assert failed(words, status=500) is K.PROVIDER_ERROR


def test_a_full_disk_is_told_by_the_last_words_of_a_harness_that_died() -> None:
    said = Transcript(ending=Exited(1, None, 2.0))
    said.add_bytes("err", b"node:fs:600\nError: ENOSPC: no space left on device, open '/srv/x'\n")
    failure = claude_code.diagnose(said, RULES, NAMES)
    assert failure is not None
    assert (failure.kind, failure.evidence[0].source) == (K.DISK_FULL, "stderr")


def test_an_ending_of_our_own_making_proves_nothing() -> None:
    for ending in (Killed("request", 9.0), Killed("max_log_bytes", 9.0), Lost("gone")):
        assert kind((0.4, SPOKE), ending=ending) is None


def test_dying_after_a_good_verdict_is_told() -> None:
    assert kind((1.0, OK), ending=Exited(None, 11, 2.0)) is K.HARNESS_CRASHED


def test_refused_tools_alone_are_no_fault() -> None:
    denied = AgentEvent(Act.DENIED, "no", tool="Write")
    assert kind((1.0, denied), (2.0, OK), ending=Exited(0, None, 2.1)) is None


def test_the_last_verdict_counts() -> None:
    bad = AgentEvent(Act.RESULT, "Credit balance is too low", ok=False)
    assert kind((1.0, bad), (2.0, OK), ending=Exited(0, None, 2.1)) is None
    assert kind((1.0, OK), (2.0, bad), ending=Exited(1, None, 2.1)) is K.BILLING


def test_usage_is_only_read_when_no_event_came() -> None:
    transcript = Transcript(ending=Exited(1, None, 0.1))
    transcript.add_bytes("err", b"error: unknown option '--nonsense'\n")
    refused = claude_code.diagnose(transcript, RULES, NAMES)
    assert refused is not None
    assert refused.kind is K.HARNESS_USAGE
    transcript.add_events(0.1, [AgentEvent(Act.INIT)])
    crashed = claude_code.diagnose(transcript, RULES, NAMES)
    assert crashed is not None
    assert crashed.kind is K.HARNESS_CRASHED


@pytest.mark.parametrize(
    ("exec_error", "expected"),
    [
        ("exec: No such file or directory: claude", K.HARNESS_MISSING),
        ("exec: Permission denied: claude", K.HARNESS_MISSING),
        ("exec: Argument list too long: claude", K.HARNESS_USAGE),
        ("cwd: No such file or directory: work", K.HOST_UNFIT),
    ],
)
def test_what_could_not_be_started_is_told_apart(exec_error: str, expected: FailureKind) -> None:
    assert kind(ending=Exited(None, None, 0.0, exec_error=exec_error)) is expected


def test_the_scripted_agents_body_is_read_by_the_locks_rules() -> None:
    transcript = Transcript(ending=Exited(1, None, 1.0))
    body = '{"error": {"code": "1308", "message": "Usage limit"}}'
    transcript.add_events(
        0.5, [AgentEvent(Act.ERROR, body, "http", 429), AgentEvent(Act.RESULT, body, "http", 429, ok=False)]
    )
    failure = scripted.diagnose(transcript, RULES, NAMES)
    assert failure is not None
    assert failure.kind is K.QUOTA_WINDOW

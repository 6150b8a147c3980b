"""What each agent does that would fool whoever looks at its exit code or its last line alone. Measured 2026-11-22."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight import lockfile
from overnight.events import Act, Exited, Killed
from overnight.failures import Failure, FailureKind
from overnight.harnesses import HARNESSES, pi
from overnight.harnesses.protocol import Launch
from overnight.outcome import conclude, process_failure
from tests.overnight.harnesses.golden import RULES, Case, case
from tests.overnight.samples import collected, commit

K = FailureKind
NAMES = {"provider": "zhipu", "harness": "any", "host": "box", "model": "glm-5.1"}


def verdict(told: Case, commits: int = 0) -> Failure | None:
    transcript = told.transcript()
    said = HARNESSES[told.harness].diagnose(transcript, RULES, NAMES)
    found = collected(*[commit()] * commits)
    return conclude(process_failure(transcript, said, None, NAMES), found, transcript, NAMES)


def kind(told: Case, commits: int = 0) -> FailureKind | None:
    failure = verdict(told, commits)
    return failure.kind if failure else None


@pytest.mark.parametrize(
    ("harness", "name", "expected"),
    [
        ("claude-code", "401-zhipu-to-the-end", K.AUTH_REJECTED),
        ("claude-code", "400-credit", K.BILLING),
        ("qwen", "401", K.AUTH_REJECTED),
    ],
)
def test_a_result_that_calls_itself_a_success_is_not_believed(harness: str, name: str, expected: FailureKind) -> None:
    told = case(harness, name)
    assert b'"subtype":"success"' in told.out
    assert kind(told) is expected


@pytest.mark.parametrize(
    ("harness", "name", "expected"),
    [
        ("pi", "401", K.AUTH_REJECTED),
        ("qwen", "401", K.AUTH_REJECTED),
        ("aider", "401", K.AUTH_REJECTED),
        ("goose", "404-model", K.MODEL_UNKNOWN),
        ("goose", "402-billing", K.BILLING),
        ("goose", "429", K.RATE_LIMITED),
        ("goose", "500", K.PROVIDER_ERROR),
        ("goose", "529", K.OVERLOADED),
    ],
)
def test_exit_0_is_not_believed(harness: str, name: str, expected: FailureKind) -> None:
    told = case(harness, name)
    assert told.ending == Exited(0, None, told.meta["seconds"])
    assert kind(told) is expected


def test_an_interrupt_that_ends_with_0_is_no_success() -> None:
    """Claude Code after SIGINT: exit code 0, and no result."""
    told = case("claude-code", "extra-sig-INT")
    assert told.meta["code"] == 0
    assert kind(told) is K.HARNESS_CRASHED


@pytest.mark.parametrize("harness", ["claude-code", "codex", "copilot", "goose", "opencode", "pi", "qwen"])
def test_an_agent_that_ends_with_0_when_told_to_stop_is_no_success(harness: str) -> None:
    """Others turn SIGTERM into exit code 0: without a verdict of its own that is a crash."""
    good = case(harness, "ok-tooluse")
    begun = b"".join(good.out.splitlines(keepends=True)[:3])
    stopped = replace(good, out=begun, meta={**good.meta, "code": 0, "at_s": None})
    assert kind(stopped) is K.HARNESS_CRASHED


@pytest.mark.parametrize("harness", ["codex", "goose"])
def test_done_without_an_identity_is_no_commit(harness: str) -> None:
    """`git commit` ends with 128 inside the tool; the agent ends with 0 and a cheerful text."""
    failure = verdict(case(harness, "noident"))
    assert failure is not None
    assert failure.kind is K.NO_COMMIT
    seen = [e.seen for e in failure.evidence]
    assert seen[0].startswith("0 commits since ")
    assert any("tool calls failed" in each for each in seen)
    assert "the agent reports success" in seen


def test_done_after_refused_tools_is_a_permission_denied() -> None:
    told = case("claude-code", "partial-denied-and-committed")
    assert kind(told, commits=1) is None
    failure = verdict(told)
    assert failure is not None
    assert failure.kind is K.PERMISSION_DENIED
    assert [e.source for e in failure.evidence[:2]] == ["event", "event"]


@pytest.mark.parametrize("harness", ["claude-code", "pi"])
def test_done_on_a_full_disk_is_a_full_disk(harness: str) -> None:
    """Its commands failed for want of room and it ended with 0; what was free then is in the record of the exit."""
    told = case(harness, "disk-full")
    transcript = told.transcript()
    transcript.ending = Exited(0, None, 4.0, disk_free_bytes=0)
    said = HARNESSES[harness].diagnose(transcript, RULES, NAMES)
    failure = conclude(process_failure(transcript, said, None, NAMES), collected(), transcript, NAMES)
    assert failure is not None
    assert (failure.kind, failure.evidence[0].source) == (K.DISK_FULL, "exit")
    assert any("tool calls failed" in e.seen for e in failure.evidence)


def test_of_several_results_the_last_one_counts() -> None:
    good, bad = case("claude-code", "ok-text"), case("claude-code", "401-zhipu-to-the-end")
    meta = {**good.meta, "at_s": None}
    assert kind(replace(good, out=good.out + bad.out, meta={**meta, "code": 1}), commits=1) is K.AUTH_REJECTED
    assert kind(replace(good, out=bad.out + good.out, meta=meta), commits=1) is None


@pytest.mark.parametrize("harness", ["codex", "opencode", "pi"])
def test_waiting_for_standard_input_is_no_failure_of_the_provider(harness: str) -> None:
    """With standard input left open they wait for ever before any request, and say nothing that names a cause."""
    told = case(harness, "stdin-open")
    transcript = told.transcript()
    assert HARNESSES[harness].diagnose(transcript, RULES, NAMES) is None
    assert transcript.last(Act.WAITING, Act.SPOKE) is None
    transcript.ending = Killed("total_s", 60.0)
    failure = process_failure(transcript, None, None, NAMES)
    assert failure is not None
    assert failure.kind is K.TIME_LIMIT


def test_empty_answers_asked_for_without_end_are_told_to_be_endless() -> None:
    """OpenCode asks again for ever on an empty 200; somebody has to end it."""
    transcript = case("opencode", "200-empty").transcript()
    last = transcript.last(Act.ERROR)
    assert last is not None
    assert last.event.endless
    assert kind(case("opencode", "200-empty")) is K.NOT_THE_API


@pytest.mark.parametrize(
    ("harness", "expected"),
    [
        ("claude-code", K.RATE_LIMITED),
        ("codex", K.RATE_LIMITED),
        ("copilot", K.RATE_LIMITED),
        # these wait the hour out in silence: nothing to read a name from, and nothing that looks like a success
        ("goose", None),
        ("opencode", None),
        ("pi", None),
        ("qwen", None),
    ],
)
def test_an_hour_to_wait_is_named_or_stays_silence(harness: str, expected: FailureKind | None) -> None:
    transcript = case(harness, "429-ra3600").transcript()
    said = HARNESSES[harness].diagnose(transcript, RULES, NAMES)
    assert (said.kind if said else None) is expected
    assert transcript.last(Act.RESULT) is None or expected is not None
    if expected is None:
        transcript.ending = Killed("request", 60.0)
        assert process_failure(transcript, said, None, NAMES) is not None


def test_the_variable_that_pi_is_told_to_read_is_the_one_that_holds_the_key() -> None:
    """It sends the *name* as the key when the variable is not set, and a provider that takes any key says yes."""
    assert kind(case("pi", "nokey"), commits=1) is None
    for name, provider in lockfile.load().providers.items():
        if (wiring := provider.harnesses.get("pi")) is None:
            continue
        (variable,) = wiring.key_variables
        launch = Launch("pi", "x", "m", (), base_url="http://127.0.0.1", header=pi.HEADER_OF[variable], timing=None)
        assert f'"apiKey": "{variable}"' in pi.home_files(launch)[".pi/agent/models.json"], name


@pytest.mark.parametrize("harness", ["goose", "claude-code", "codex", "aider"])
def test_a_banner_before_the_first_line_is_no_crash_and_no_refusal(harness: str) -> None:
    banner = "    __( O)>  \u25cf new session \u00b7 anthropic glm-5.1\n   \\____)    20261122_1\n\n".encode()
    good = case(harness, "ok-text")
    told = replace(good, out=banner + good.out, meta={**good.meta, "at_s": None})
    assert kind(told, commits=1) is None
    transcript = told.transcript()
    assert transcript.init is not None
    refused = case(harness, "401")
    shown = replace(refused, out=banner + refused.out, meta={**refused.meta, "at_s": None})
    assert kind(shown) is K.AUTH_REJECTED


def test_no_settings_of_the_repository_redirect_the_key() -> None:
    """`.claude/settings.json` in a work tree beats the environment of the process, unless no source is read."""
    flags = " ".join(lockfile.load().harnesses["claude-code"].flags)
    assert "--setting-sources=" in flags or "--setting-sources " in flags

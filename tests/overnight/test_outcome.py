from __future__ import annotations

import pytest

from overnight.events import Act, AgentEvent, Ending, Exited, Killed, Lost
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.harnesses import HARNESSES
from overnight.outcome import claims, conclude, head_and_tail, process_failure
from overnight.transcript import Transcript
from tests.overnight.samples import ROUTE, collected, commit

K = FailureKind
DONE = AgentEvent(Act.RESULT, text="Done", ok=True)
GAVE_UP = AgentEvent(Act.RESULT, text="cannot", ok=False)
DENIED = AgentEvent(Act.DENIED, tool="Bash")
LIMITED = AgentEvent(Act.RETRYING, error="rate_limit", status=429, attempt=1, delay_s=0.5)
PROSE = AgentEvent(Act.SPOKE, text="HTTP 429 rate_limit_error: authentication_failed")
WELL, BADLY = Exited(0, None, 30.0), Exited(1, None, 30.0)


def transcript(*said: AgentEvent, ending: Ending = WELL, out: bytes = b"", err: bytes = b"") -> Transcript:
    made = Transcript(ending=ending)
    made.add_bytes("out", out)
    made.add_bytes("err", err)
    for second, event in enumerate(said):
        made.add_events(float(second), [event])
    return made


def process(made: Transcript, stopped: Failure | None = None, said: Failure | None = None) -> Failure | None:
    return process_failure(made, said, stopped, ROUTE.names)


def by_harness(made: Transcript, stopped: Failure | None = None) -> Failure | None:
    """With what the real harness proves of the transcript."""
    said = HARNESSES["claude-code"].diagnose(made, (), ROUTE.names)
    return process_failure(made, said, stopped, ROUTE.names)


QUIET = fail(K.WENT_QUIET, Evidence(source="clock", seen="quiet_s ran out"))
AUTH = fail(K.AUTH_REJECTED, Evidence(source="event", seen="401"))
SLOW = fail(K.RATE_LIMITED, Evidence(source="event", seen="429"))
HUH = fail(K.UNKNOWN, Evidence(source="stderr", seen="huh"))
REQUEST, ORPHAN = Killed("request", 30.0), Killed("orphan", 30.0)
TIME, LOG = Killed("total_s", 30.0), Killed("max_log_bytes", 30.0)


@pytest.mark.parametrize(
    ("ending", "stopped", "said", "kind"),
    [
        # why we stopped it comes first
        (REQUEST, QUIET, None, K.WENT_QUIET),
        (REQUEST, QUIET, AUTH, K.WENT_QUIET),
        (BADLY, QUIET, SLOW, K.WENT_QUIET),
        (Lost("rebooted"), QUIET, None, K.WENT_QUIET),
        # but what ended well by itself was not stopped
        (WELL, QUIET, None, None),
        (WELL, QUIET, SLOW, K.RATE_LIMITED),
        # a request, unless the route is proven shut
        (REQUEST, None, None, K.CANCELLED),
        (REQUEST, None, SLOW, K.CANCELLED),
        (REQUEST, None, AUTH, K.AUTH_REJECTED),
        # what the harness proved comes before how the host saw it end
        (TIME, None, SLOW, K.RATE_LIMITED),
        (LOG, None, SLOW, K.RATE_LIMITED),
        (ORPHAN, None, SLOW, K.RATE_LIMITED),
        (Lost("rebooted"), None, AUTH, K.AUTH_REJECTED),
        (BADLY, None, SLOW, K.RATE_LIMITED),
        # and after it when it named nothing
        (TIME, None, HUH, K.TIME_LIMIT),
        (TIME, None, None, K.TIME_LIMIT),
        (LOG, None, None, K.LOG_LIMIT),
        (ORPHAN, None, None, K.LOST),
        (Lost("rebooted"), None, None, K.LOST),
        (Lost("rebooted"), None, HUH, K.LOST),
        (BADLY, None, None, K.UNKNOWN),
        (BADLY, None, HUH, K.UNKNOWN),
        (WELL, None, HUH, K.UNKNOWN),
        (WELL, None, None, None),
        (Exited(None, 11, 30.0), None, None, K.UNKNOWN),
    ],
)
def test_the_order_of_evidence(
    ending: Ending, stopped: Failure | None, said: Failure | None, kind: FailureKind | None
) -> None:
    found = process(transcript(ending=ending), stopped, said)
    assert (found.kind if found else None) == kind


def test_a_full_disk_names_what_nobody_else_could() -> None:
    full = Exited(1, None, 30.0, disk_free_bytes=1024)
    for said, kind in ((None, K.DISK_FULL), (HUH, K.DISK_FULL), (SLOW, K.RATE_LIMITED)):
        found = process(transcript(ending=full), said=said)
        assert found is not None
        assert found.kind is kind
    assert process(transcript(ending=Exited(0, None, 30.0, disk_free_bytes=1024))) is None


def test_an_ending_nobody_can_name_shows_head_and_tail() -> None:
    out = b"first words\n" + b"x" * 1000 + b"\nlast words"
    found = process(transcript(ending=BADLY, out=out, err=b"\xffbad\n"))
    assert found is not None
    assert str(found.evidence[0]) == "exit: exit code 1 at 30.0 s"
    shown = " | ".join(e.seen for e in found.evidence)
    assert "1023 bytes, begins: first words x" in shown
    assert shown.count("last words") == 1
    assert "stderr, 5 bytes, ends: �bad" in shown


def test_short_output_is_shown_once_and_none_at_all_is_said() -> None:
    assert [e.seen for e in head_and_tail(transcript(out=b"only this"))] == [
        "stdout, 9 bytes, begins: only this",
        "stderr, 0 bytes, ends: (empty)",
    ]


def test_limits_show_what_was_going_on() -> None:
    time = process(transcript(AgentEvent(Act.TOOL_STARTED, tool="Bash"), ending=TIME))
    log = process(transcript(ending=LOG, out=b"again and again"))
    assert time is not None
    assert log is not None
    assert time.evidence[0].seen == "ended by the host at its limit of 30 s"
    assert time.evidence[1].seen == "last event: tool-started Bash"
    assert log.evidence[0].seen == "15 bytes written"


class TestHardNegatives:
    def test_prose_is_never_a_cause(self) -> None:
        assert by_harness(transcript(PROSE, DONE, out=b"HTTP 429 rate_limit_error")) is None

    def test_prose_does_not_name_a_crash(self) -> None:
        found = by_harness(transcript(PROSE, ending=Exited(1, None, 30.0)))
        assert found is not None
        assert found.kind is K.HARNESS_CRASHED

    def test_retries_that_led_to_an_answer_are_no_failure(self) -> None:
        assert by_harness(transcript(LIMITED, PROSE, DONE)) is None

    def test_of_two_results_the_last_one_counts(self) -> None:
        good, bad = transcript(GAVE_UP, DONE), transcript(DONE, GAVE_UP, ending=BADLY)
        assert by_harness(good) is None
        found = by_harness(bad)
        assert found is not None
        assert (claims(good, 0), claims(bad, 0)) == ("it reported success; there is no commit", None)


class TestConclude:
    """Success is a process that ended well and at least one commit; nothing less, whatever was said."""

    @pytest.mark.parametrize("said", [(DONE,), (GAVE_UP,), ()])
    def test_ended_well_with_commits_is_success(self, said: tuple[AgentEvent, ...]) -> None:
        assert conclude(None, collected(commit()), transcript(*said), ROUTE.names) is None

    def test_ended_well_without_a_commit_is_not(self) -> None:
        found = conclude(None, collected(left=3), transcript(DONE), ROUTE.names)
        assert found is not None
        assert found.kind is K.NO_COMMIT
        assert [e.seen for e in found.evidence] == [
            "0 commits since aaaaaaaaaaaa",
            "the agent reports success",
            "3 changed files not committed, saved on refs/overnight/x/wip",
        ]

    def test_what_the_last_tools_reported_is_told(self) -> None:
        tools = [
            AgentEvent(Act.TOOL_STARTED, tool="Bash"),
            AgentEvent(Act.TOOL_ENDED, tool="Read", ok=True),
            AgentEvent(Act.TOOL_ENDED, tool="Bash", ok=False),
        ]
        found = conclude(None, collected(), transcript(*tools, DONE), ROUTE.names)
        assert found is not None
        assert [str(e) for e in found.evidence] == [
            "git: 0 commits since aaaaaaaaaaaa",
            "event: 1 of 2 tool calls failed, Bash the last at 2.0 s",
            "event: the agent reports success at 3.0 s",
        ]

    def test_commits_beside_the_branch_are_no_success_and_are_named(self) -> None:
        aside = collected().model_copy(update={"others": {"refs/overnight/x/other/heads/aside": "e" * 40}})
        found = conclude(None, aside, transcript(DONE), ROUTE.names)
        assert found is not None
        assert found.brief == (
            "no-commit: 0 commits since aaaaaaaaaaaa on the branch; what was made beside it is kept: "
            "refs/overnight/x/other/heads/aside at eeeeeeeeeeee"
        )
        assert "merge it if it is the work" in found.remedy

    def test_a_full_disk_explains_why_nothing_was_committed(self) -> None:
        full = transcript(DONE, ending=Exited(0, None, 30.0, disk_free_bytes=0))
        found = conclude(process(full), collected(left=1), full, ROUTE.names)
        assert found is not None
        assert (found.kind, found.evidence[0].source) == (K.DISK_FULL, "exit")
        assert conclude(process(full), collected(commit()), full, ROUTE.names) is None

    def test_a_command_that_was_struck_for_memory_is_a_sighting_beside_the_verdict(self) -> None:
        struck = transcript(DONE, ending=Exited(0, None, 30.0, oom_kills=1))
        assert conclude(by_harness(struck), collected(commit()), struck, ROUTE.names) is None
        found = conclude(by_harness(struck), collected(), struck, ROUTE.names)
        assert found is not None
        assert found.kind is K.NO_COMMIT
        assert "want of memory" in " ".join(e.seen for e in found.evidence)

    def test_a_command_that_was_killed_in_a_run_that_got_nowhere_is_the_cause(self) -> None:
        killed = AgentEvent(Act.TOOL_ENDED, ok=False, text="sh: line 1: 77 Killed python3")
        struck = transcript(killed, DONE, ending=Exited(0, None, 30.0, oom_kills=1))
        found = conclude(by_harness(struck), collected(), struck, ROUTE.names)
        assert found is not None
        assert found.kind is K.OUT_OF_MEMORY
        assert "77 Killed python3" in found.evidence[0].seen
        elsewhere = transcript(killed, DONE, ending=Exited(0, None, 30.0))
        beside = conclude(by_harness(elsewhere), collected(), elsewhere, ROUTE.names)
        assert beside is not None
        assert beside.kind is K.NO_COMMIT

    def test_a_model_that_said_nothing_at_all_is_no_model(self) -> None:
        asked, done = AgentEvent(Act.WAITING), AgentEvent(Act.RESULT, ok=True)
        found = conclude(None, collected(), transcript(asked, done), ROUTE.names)
        assert found is not None
        assert (found.kind, found.evidence[0].source) == (K.NOT_THE_API, "event")
        spoke = AgentEvent(Act.SPOKE, text="Nothing to do.")
        for said in ((asked, spoke, done), (asked, AgentEvent(Act.TOOL_STARTED), done), (done,)):
            assert getattr(conclude(None, collected(), transcript(*said), ROUTE.names), "kind", None) is K.NO_COMMIT

    def test_a_process_that_failed_stays_failed_whatever_it_committed(self) -> None:
        """Exit code 1 with commits: the agent itself says it did not finish. The commits come home all the same."""
        failed = process(transcript(ending=BADLY))
        assert conclude(failed, collected(commit()), transcript(ending=BADLY), ROUTE.names) is failed

    def test_a_refused_tool_explains_why_nothing_was_committed(self) -> None:
        found = conclude(None, collected(), transcript(DENIED, DONE), ROUTE.names)
        assert found is not None
        assert found.kind is K.PERMISSION_DENIED
        assert found.evidence[0].seen == "permission denied for Bash"

    def test_a_refused_tool_does_not_matter_once_there_are_commits(self) -> None:
        assert conclude(None, collected(commit()), transcript(DENIED, DONE), ROUTE.names) is None


@pytest.mark.parametrize(
    ("said", "commits", "claim"),
    [
        ((DONE,), 0, "it reported success; there is no commit"),
        ((DONE,), 1, None),
        ((GAVE_UP,), 0, None),
        ((PROSE,), 0, None),
        ((), 0, None),
    ],
)
def test_a_claim_is_held_against_git(said: tuple[AgentEvent, ...], commits: int, claim: str | None) -> None:
    assert claims(transcript(*said), commits) == claim

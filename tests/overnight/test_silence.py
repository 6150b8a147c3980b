from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from overnight.events import Act, AgentEvent
from overnight.failures import FailureKind
from overnight.silence import Progress, judge, repeated
from overnight.spec import Limits
from overnight.transcript import Transcript

LIMITS = Limits(first_event_s=60, quiet_s=420, no_change_s=900)
WORKING = Progress(age_s=5000, quiet_s=10, unchanged_s=100, last_event="tool Bash at 4990 s", cpu_s=1.5, processes=3)
K = FailureKind


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"quiet_s": None, "age_s": 60}, None),
        ({"quiet_s": None, "age_s": 60.01}, K.SILENT_START),
        ({"quiet_s": None, "age_s": 61, "unchanged_s": 5000}, K.SILENT_START),
        ({"quiet_s": 420}, None),
        ({"quiet_s": 420.01}, K.WENT_QUIET),
        ({"quiet_s": 421, "unchanged_s": 901}, K.WENT_QUIET),
        ({"unchanged_s": 900}, None),
        ({"unchanged_s": 900.01}, K.NO_CHANGE),
        ({"unchanged_s": None}, None),
        ({"answer_s": 1800}, None),
        ({"answer_s": 1801}, K.PROVIDER_MUTE),
        ({"answer_s": 1801, "quiet_s": 421}, K.WENT_QUIET),
        ({"answer_s": 1801, "unchanged_s": 901}, K.PROVIDER_MUTE),
        ({"cpu_s": 0.0, "processes": 1}, None),
    ],
)
def test_the_first_clock_that_ran_out(changes: dict[str, Any], kind: FailureKind | None) -> None:
    found = judge(dataclasses.replace(WORKING, **changes), LIMITS)
    assert (found.kind if found else None) == kind


def test_a_clock_can_be_switched_off() -> None:
    off = Limits(first_event_s=None, quiet_s=None, turn_s=None, no_change_s=None)
    assert judge(Progress(age_s=1e6, quiet_s=None, unchanged_s=1e6), off) is None
    assert judge(Progress(age_s=1e6, quiet_s=1e6, unchanged_s=1e6, answer_s=1e6), off) is None


def test_the_evidence_is_the_reading() -> None:
    silence = judge(dataclasses.replace(WORKING, quiet_s=425), LIMITS)
    assert silence is not None
    assert [str(e) for e in silence.failure({"host": "box"}).evidence] == [
        "clock: quiet_s 420 ran out at 425 s; last event: tool Bash at 4990 s at 5000.0 s",
        "host: 3 processes, 1.5 s CPU so far at 5000.0 s",
    ]


def test_a_run_that_never_spoke_says_so() -> None:
    silence = judge(Progress(age_s=61, quiet_s=None, unchanged_s=None), LIMITS)
    assert silence is not None
    assert "no event at all" in silence.evidence()[0].seen


def called(prints: Iterable[tuple[str | None, str | None]]) -> Transcript:
    transcript = Transcript()
    for at_s, (asked, answered) in enumerate(prints):
        started = AgentEvent(Act.TOOL_STARTED, tool="Bash", print=asked)
        transcript.add_events(float(at_s), [started, AgentEvent(Act.SPOKE), AgentEvent(Act.TOOL_ENDED, print=answered)])
    return transcript


def test_the_same_call_with_the_same_result_again_and_again_is_a_loop() -> None:
    found = repeated(called([("x", "y"), *[("a", "b")] * 5]))
    assert found is not None
    assert str(found) == "event: the same call of Bash with the same result 5 times in a row, to the end at 5.0 s"


@pytest.mark.parametrize(
    "prints",
    [
        [],
        [("a", "b")] * 4,
        [*[("a", "b")] * 9, ("a", "c")],
        [("a", str(n)) for n in range(9)],
        [(str(n), "b") for n in range(9)],
        [(None, None)] * 9,
        [("a", None)] * 9,
    ],
)
def test_what_differs_once_or_cannot_be_seen_is_none(prints: list[tuple[str | None, str | None]]) -> None:
    assert repeated(called(prints)) is None

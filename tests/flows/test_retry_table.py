"""Every row of the table of failures, proven: what each kind earns in a night through Prefect's engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from overnight.failures import FailureKind
from overnight.report import RunReport
from tests.flows.failing import OPENS_AFTER_S, RETRY_AFTER_S, SPARE, SPEED, Seen, failing_night

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]
K = FailureKind
BACKOFF_S = 30


@dataclass(frozen=True)
class Row:
    """What a kind must come to.

    Args:
        attempts: Of a task with one route and three attempts.
        second: Where a task with two routes has its second attempt; None when it has none.
        shut: Another task of the batch that has this route alone never starts.
        waits_s: So long, at least, after the first attempt; the other task has the slot meanwhile.
    """

    attempts: int
    second: Literal["same", "elsewhere"] | None
    shut: bool = False
    waits_s: float | None = None


A_PERSON = Row(1, "elsewhere", shut=True)
NEVER = Row(1, None)
THE_PLACE = Row(1, "elsewhere")
ONCE_MORE = Row(2, "same")
ATTEMPTS = Row(3, "same")
TABLE = {
    # auth
    K.AUTH_REJECTED: A_PERSON,
    K.KEY_MISSING: A_PERSON,
    # setup
    K.WRONG_HEADER: A_PERSON,
    K.MODEL_UNKNOWN: A_PERSON,
    K.MODEL_MISMATCH: A_PERSON,
    K.NOT_THE_API: A_PERSON,
    K.HOST_KEY_UNKNOWN: A_PERSON,
    K.HARNESS_USAGE: A_PERSON,
    K.REQUEST_REJECTED: NEVER,
    K.PERMISSION_DENIED: NEVER,
    K.WORKSPACE: NEVER,
    # quota; the window of this row opens when the night is over
    K.BILLING: A_PERSON,
    K.PLAN_EXPIRED: A_PERSON,
    K.QUOTA_WINDOW: A_PERSON,
    # provider
    K.RATE_LIMITED: Row(3, "same", waits_s=RETRY_AFTER_S),
    K.OVERLOADED: Row(3, "same", waits_s=RETRY_AFTER_S),
    K.PROVIDER_ERROR: Row(3, "same", waits_s=BACKOFF_S),
    K.PROVIDER_MUTE: Row(3, "same", waits_s=BACKOFF_S),
    # network and host
    K.NETWORK: Row(3, "elsewhere", waits_s=BACKOFF_S),
    K.HOST_UNREACHABLE: Row(3, "elsewhere", waits_s=BACKOFF_S),
    K.HOST_AUTH: A_PERSON,
    K.HOST_KEY_MISMATCH: A_PERSON,
    K.HOST_UNFIT: A_PERSON,
    K.DISK_FULL: THE_PLACE,
    K.OUT_OF_MEMORY: THE_PLACE,
    K.LOST: ATTEMPTS,
    # harness
    K.HARNESS_MISSING: A_PERSON,
    K.HARNESS_CRASHED: ATTEMPTS,
    K.LOG_LIMIT: NEVER,
    # stall
    K.SILENT_START: ONCE_MORE,
    K.WENT_QUIET: ONCE_MORE,
    K.LOOPING: ONCE_MORE,
    K.NO_CHANGE: ONCE_MORE,
    # work
    K.NO_COMMIT: ATTEMPTS,
    K.VERIFY_FAILED: ATTEMPTS,
    K.TOOL_STUCK: ATTEMPTS,
    K.TIME_LIMIT: NEVER,
    K.TURN_LIMIT: NEVER,
    K.BUDGET_LIMIT: NEVER,
    K.CONTEXT_OVERFLOW: NEVER,
    # ours, and nobody's
    K.COLLECT_FAILED: NEVER,
    K.CANCELLED: NEVER,
    K.DEADLINE: NEVER,
    K.PREDECESSOR: NEVER,
    K.INTERNAL: NEVER,
    K.UNKNOWN: NEVER,
}
WAIT = [kind for kind, row in TABLE.items() if row.waits_s is not None]


@pytest.fixture(scope="module")
def seen(prefect_api: None, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return failing_night(tmp_path_factory.mktemp("table"), WAIT)


def kinds(runs: list[RunReport]) -> list[FailureKind | None]:
    return [run.failure.kind if run.failure else None for run in runs]


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(FailureKind)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_earns_what_its_row_says(kind: FailureKind, seen: Seen) -> None:
    row, alone = TABLE[kind], f"{kind}.alone"
    assert kinds(seen.runs[alone]) == [kind] * row.attempts
    assert seen.attempts(alone) == row.attempts
    both = seen.runs[f"{kind}.both"]
    where = {f"{kind}-both": "same", SPARE: "elsewhere"}
    assert [where[run.provider] for run in both] == ["same", *([row.second] if row.second else [])]
    assert kinds(both) == [kind, *([kind] if row.second == "same" else [None] if row.second else [])]
    assert seen.attempts(f"{kind}.both") == len(both)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_route_is_shut_for_the_others_of_the_batch_by_what_a_person_must_mend(kind: FailureKind, seen: Seen) -> None:
    other = f"{kind}.other"
    assert kinds(seen.runs[other]) == [kind]
    assert (seen.attempts(other), other in seen.skipped) == ((0, True) if TABLE[kind].shut else (1, False))


@pytest.mark.parametrize("kind", WAIT)
def test_what_time_mends_is_waited_for_and_the_slot_is_free_meanwhile(kind: FailureKind, seen: Seen) -> None:
    alone, other = f"{kind}.alone", f"{kind}.other"
    first, second = seen.ended(alone, 1), seen.began(alone, 2)
    assert (second - first).total_seconds() * SPEED >= (TABLE[kind].waits_s or 0)
    assert first <= seen.began(other, 1) <= seen.ended(other, 1) <= second


def test_a_dispatch_is_no_second_try_of_what_time_does_not_mend(seen: Seen) -> None:
    tried = {id: run.run_count for (id, _), stages in seen.prefects.items() if (run := stages.get("dispatch"))}
    assert tried
    assert {id: n for id, n in tried.items() if n != 1} == {}


def test_a_window_that_opens_in_time_is_waited_for_although_there_is_another_route(seen: Seen) -> None:
    assert [(run.provider, run.state) for run in seen.runs["window"]] == [("window", "failed"), ("window", "succeeded")]
    assert (seen.began("window", 2) - seen.ended("window", 1)).total_seconds() * SPEED >= OPENS_AFTER_S


def test_work_is_never_tried_again_on_a_route_that_was_shut(seen: Seen) -> None:
    [run] = seen.runs["shut"]
    assert kinds([run]) == [K.NO_COMMIT]
    assert [(passed.because, passed.failure and passed.failure.kind) for passed in run.passed_over] == [
        ("shut", K.AUTH_REJECTED)
    ]


def test_a_stall_leaves_what_it_had_and_its_route_was_asked_in_between(seen: Seen) -> None:
    for run in seen.runs[f"{K.WENT_QUIET}.alone"]:
        assert run.failure is not None
        assert run.leftovers is not None
        assert run.leftovers.files == ("left.txt",)
        assert any(each.source == "probe" and "HTTP 200" in each.seen for each in run.failure.evidence)

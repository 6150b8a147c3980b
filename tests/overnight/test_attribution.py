from __future__ import annotations

from typing import Any

import pytest

from overnight.attribution import ASIDE, attributed
from overnight.failures import RULES, FailureKind, Family
from overnight.firstlines import mixed, rates, slices
from overnight.report import RunReport
from tests.overnight.samples import proven, report, run


def failed(task_id: str, kind: FailureKind, **changes: Any) -> RunReport:
    return run(**{"task_id": task_id, "state": "failed", "failure": proven(kind), **changes})


NIGHT = [
    *(run(task_id=f"well{i}") for i in range(9)),
    *(failed(f"key{i}", FailureKind.AUTH_REJECTED) for i in range(4)),
    *(failed(f"disk{i}", FailureKind.DISK_FULL) for i in range(2)),
    *(failed(f"work{i}", FailureKind.NO_COMMIT) for i in range(2)),
    failed("stall", FailureKind.WENT_QUIET),
    failed("dark0", FailureKind.UNKNOWN),
    failed("dark1", FailureKind.UNKNOWN),
]


def test_only_what_is_proven_to_be_others_is_set_aside() -> None:
    found = attributed(NIGHT)
    assert (found.raw.successes, found.raw.n) == (9, 20)
    assert (found.judged.successes, found.judged.n) == (9, 14)
    assert found.aside == {Family.AUTH: 4, Family.HOST: 2}
    assert (found.failures, found.unknown) == (11, 2)


def test_the_words_have_an_n_and_an_interval_to_each_percentage() -> None:
    assert rates(attributed(NIGHT)) == [
        "9 of 20 tasks succeeded (45 %, 95 % interval 26 to 66 %)",
        "9 of 14 with proven infrastructure failures set aside (64 %, 95 % interval 39 to 84 %): "
        "6 of 11 failures (auth 4, host 2), each with its evidence",
        "cause unknown: 2 of 11 failures; they count as the model's",
    ]


@pytest.mark.parametrize("kind", list(FailureKind))
def test_stalls_work_and_the_unknown_stay_with_the_model(kind: FailureKind) -> None:
    aside = attributed([failed("t", kind)]).judged.n == 0
    assert aside is (RULES[kind].family not in (Family.WORK, Family.STALL, Family.UNKNOWN))
    assert aside is (RULES[kind].family in ASIDE)


def test_the_last_attempt_counts_and_what_goes_on_does_not() -> None:
    tries = [failed("a", FailureKind.NO_COMMIT), run(task_id="a", attempt=2), run(task_id="b", left_running=True)]
    found = attributed(tries)
    assert (found.raw.successes, found.raw.n) == (1, 1)


def test_a_night_without_a_task_decided_has_no_percentage() -> None:
    assert rates(attributed([])) == ["0 of 0 tasks succeeded"]


def test_a_night_in_which_all_that_ran_succeeded_says_so() -> None:
    never = failed("b", FailureKind.AUTH_REJECTED, state="skipped", attempt=0, run_id="")
    night = report(run(task_id="a"), never).model_copy(update={"attribution": attributed([run(task_id="a"), never])})
    assert mixed(night)[0] == "Nothing that ran failed"
    assert mixed(report(run())) == []


def test_rates_by_host_version_and_model_only_where_there_are_several() -> None:
    two = [run(task_id="a"), failed("b", FailureKind.NO_COMMIT, host="other", harness_version="2.1")]
    assert slices(attributed(two)) == [
        ("host", "box", *["1 of 1 (100 %, 95 % interval 21 to 100 %)"] * 2),
        ("host", "other", *["0 of 1 (0 %, 95 % interval 0 to 79 %)"] * 2),
        ("harness", "claude-code (version unknown)", *["1 of 1 (100 %, 95 % interval 21 to 100 %)"] * 2),
        ("harness", "claude-code 2.1", *["0 of 1 (0 %, 95 % interval 0 to 79 %)"] * 2),
    ]

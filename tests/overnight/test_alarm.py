from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from overnight.alarm import FACTORS, sounded
from overnight.failures import FailureKind
from overnight.firstlines import sounding
from overnight.report import RunReport
from tests.overnight.mixtures import FACTOR_NAMES, NOTHING_CAME, Cause, tally
from tests.overnight.samples import AT, proven, run


def tried(number: int, well: bool, **changes: Any) -> RunReport:
    outcome: dict[str, Any] = {} if well else {"state": "failed", "failure": NOTHING_CAME}
    return run(**{"task_id": f"t{number}", "host": "A", "harness_version": "2.1", **outcome, **changes})


def words(runs: list[RunReport]) -> str:
    alarm = sounded(runs)
    assert alarm is not None
    return " ".join(sounding(alarm))


def test_a_bad_host_is_named_with_its_counts() -> None:
    runs = [tried(i, i < 9, host="A" if i < 9 else "B") for i in range(20)]
    assert words(runs) == (
        "It partly works: 9 of 20 first attempts succeeded All 11 failures and none of the 9 successes were on host B "
        "(exact test, p 6e-06 after correction; 2 factors compared). "
        "No run tells this apart from route claude-code on B with glm-5.2 of zai. "
        "Look there before you judge the model."
    )


def test_a_model_that_only_the_bad_route_had_is_not_acquitted() -> None:
    runs = [tried(i, i < 8, model="glm-5.2" if i < 8 else "glm-5.1") for i in range(16)]
    assert words(runs).endswith("No run tells this apart from model glm-5.1 of zai. So it may be the model, too.")
    both = [tried(i, i < 8, host="AB"[i >= 8], model=f"glm-5.{i % 2}") for i in range(16)]
    assert "model glm" not in words(both)


def test_what_no_run_tells_apart_is_one_test_and_is_said_together() -> None:
    runs = [tried(i, i < 8, host="AB"[i >= 8], harness_version=f"2.{i // 8}") for i in range(16)]
    alarm = sounded(runs)
    assert alarm is not None
    (split,) = alarm.splits
    assert split.p == pytest.approx(2 / 12870)
    assert split.together[0] == "CLI version claude-code 2.1"


def test_a_split_that_is_not_whole_says_how_many() -> None:
    runs = [tried(i, i < 10 and i != 3, host="B" if i >= 9 or i == 3 else "A") for i in range(20)]
    assert "All 11 failures and 1 of the 9 successes were on host B" in words(runs)


def test_no_factor_is_said_with_what_was_compared() -> None:
    runs = [tried(i, i % 2 == 0, host="AB"[i // 2 % 2], started_at=AT + timedelta(hours=i // 4)) for i in range(16)]
    said = words(runs)
    assert "No factor explains it (host, route, hour compared; smallest p 1 after correction)." in said
    assert (
        "There was one CLI version, key, environment and repository at most, so of these nothing can be said." in said
    )
    assert said.endswith("The 8 failures: consistent with model quality.")


def test_too_few_runs_rule_nothing_out() -> None:
    said = words([tried(0, True, host="A"), tried(1, False, host="B"), tried(2, False, host="B")])
    assert "nothing is ruled out" in said


def test_proven_failures_do_not_pass_for_the_model_and_do_not_hide_what_ails_the_rest() -> None:
    """Six disks full on A hide that all else on B fails; the rest alone shows it."""
    full = [tried(i, False, host="A", failure=proven(FailureKind.DISK_FULL)) for i in range(8)]
    rest = [tried(10 + i, i < 8, host="A" if i < 8 else "B") for i in range(16)]
    said = words([*full, *rest])
    assert "All 8 failures that have no proven cause of their own and none of the 8 successes were on host B" in said
    assert "3 of 4 failures have a proven cause of their own" in words(
        [*full[:3], tried(20, False), *(tried(30 + i, True) for i in range(4))]
    )


def test_retries_do_not_hide_a_bad_host_and_the_tries_of_a_task_count_once() -> None:
    firsts = [tried(i, i < 8, host="AB"[i >= 8]) for i in range(16)]
    seconds = [tried(i, True, attempt=2) for i in range(8, 16)]
    assert "All 8 failures and none of the 8 successes were on host B" in words([*firsts, *seconds])
    alarm = sounded([*firsts, *seconds])
    assert alarm is not None
    assert (alarm.attempts, alarm.successes, alarm.failures) == ("first", 8, 8)


def test_first_attempts_that_all_failed_give_way_to_the_last() -> None:
    firsts = [tried(i, False) for i in range(4)]
    alarm = sounded([*firsts, tried(0, True, attempt=2)])
    assert alarm is not None
    assert (alarm.attempts, alarm.successes, alarm.failures) == ("last", 1, 3)


def test_a_night_that_is_not_mixed_has_no_alarm() -> None:
    assert sounded([tried(0, True)]) is None
    assert sounded([tried(0, False)]) is None
    stopped = tried(1, False, state="cancelled", failure=proven(FailureKind.CANCELLED))
    never = run(task_id="s", attempt=0, run_id="", state="skipped", failure=proven(FailureKind.AUTH_REJECTED))
    assert sounded([tried(0, True), stopped, never]) is None


@pytest.mark.parametrize("well", range(1, 13))
def test_no_mixed_night_ends_without_its_paragraph(well: int) -> None:
    """From 5 to 60 % successful, whatever else is known of the runs."""
    bare = [tried(i, i < well, harness_version=None) for i in range(20)]
    assert words(bare).startswith(f"It partly works: {well} of 20")


def test_the_simulated_factors_are_those_of_the_alarm() -> None:
    assert list(FACTORS) == list(FACTOR_NAMES)


@pytest.mark.parametrize("factor", FACTOR_NAMES)
def test_eight_against_eight_is_found(factor: str) -> None:
    assert tally(Cause(factor, 0.0, 1.0), seed=3, nights=40).named >= 36


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_nothing_is_cried_for_nothing(rate: float) -> None:
    assert tally(Cause("", 0.0, rate), seed=3, nights=100).other <= 5

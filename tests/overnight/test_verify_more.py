"""A check on this machine, and one that runs twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overnight.failures import FailureKind
from overnight.morning import markdown
from overnight.page import html
from overnight.report import Check, RunReport, Verify
from overnight.spec import TaskSpec
from tests.overnight.nights import COMMIT, KEY, SEARCH_PATH, Evening, carry_out, git, script, stop_when
from tests.overnight.samples import full_run, report

K = FailureKind
COMMITS = script(f'{{"sh": "{COMMIT}"}}')


def here(evening: Evening, verify: str, **changes: object) -> TaskSpec:
    return evening.task("t", COMMITS, verify=verify).model_copy(update={"verify_on": "here", **changes})


def checked(evening: Evening, batch_id: str, task: TaskSpec) -> tuple[RunReport, Verify]:
    with evening.night(task, batch_id=batch_id) as night:
        run = carry_out(night, task)
    assert run.verify is not None
    return run, run.verify


def lives(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.full
def test_it_runs_here_in_a_fresh_clone_of_what_came_home(evening: Evening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_SECRET_OF_OURS", "never seen")
    seen = evening.directory / "seen"
    verify = f"(pwd; git rev-parse HEAD; cat greeting.txt; env) > {seen}; rm greeting.txt"
    run, found = checked(evening, "here", here(evening, verify))
    assert (run.state, found.exit_code, found.on) == ("succeeded", 0, "here")
    place, tip, words, *env = seen.read_text().splitlines()
    assert Path(place).is_relative_to(evening.state)
    assert (tip, words) == (run.commits[-1].sha, "hello")
    names = {line.partition("=")[0] for line in env}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "TMPDIR", "LANG", "TERM", "OVERNIGHT_RUN_ID"}
    variables = dict(line.split("=", 1) for line in env)
    assert variables["PATH"] == SEARCH_PATH
    assert variables["HOME"] != os.environ["HOME"]
    assert not Path(place).exists(), "what was made for the check is taken away"
    repo = evening.directory / "repo"
    assert git(repo, "status", "--porcelain") == ""
    assert git(repo, "show", f"{run.branch}:greeting.txt") == "hello"


@pytest.mark.full
def test_one_that_does_not_end_here_is_ended_with_all_it_started(evening: Evening) -> None:
    evening.limits = evening.limits.model_copy(update={"total_s": 2.0})
    pids = evening.directory / "pids"
    deaf = f"(trap '' TERM; sleep 60) & echo $! >> {pids}"
    verify = f"for n in 1 2; do setsid sleep 60 & echo $! >> {pids}; done; {deaf}; wait"
    run, found = checked(evening, "endless", here(evening, verify))
    assert found.exit_code is None
    assert run.failure is not None
    assert run.failure.kind is K.VERIFY_FAILED
    assert [pid for pid in pids.read_text().split() if lives(pid)] == []


@pytest.mark.full
def test_what_it_prints_here_is_bounded_and_masked(evening: Evening) -> None:
    evening.limits = evening.limits.model_copy(update={"max_log_bytes": 100_000})
    run, found = checked(evening, "loud", here(evening, f"echo {KEY[:9]}''{KEY[9:]}; exec yes"))
    assert run.failure is not None
    assert found.exit_code != 0
    assert KEY not in found.tail
    assert [p for p in evening.state.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()] == []


@pytest.mark.full
def test_one_that_is_interrupted_here_is_ended(evening: Evening) -> None:
    started = evening.directory / "started"
    task = here(evening, f"echo $$ > {started}; sleep 60")
    with evening.night(task, batch_id="halted") as night:
        stop_when(night, started.exists)
        run = carry_out(night, task)
    assert (run.state, len(run.commits)) == ("cancelled", 1)
    assert not lives(started.read_text().strip())


@pytest.mark.full
@pytest.mark.parametrize("on", ["host", "here"])
def test_one_that_fails_and_then_passes_is_called_flaky_and_is_no_success(evening: Evening, on: str) -> None:
    mark = evening.directory / f"mark-{on}"
    verify = f"test -e {mark} && test ! -e made && echo fine && exit 0; touch {mark} made; echo 'lost a race'; exit 7"
    task = here(evening, verify, verify_twice=True, verify_on=on)
    run, found = checked(evening, f"flaky-{on}", task)
    assert (found.exit_code, found.tail, found.flaky) == (7, "lost a race\n", True)
    assert found.again is not None
    assert (found.again.exit_code, found.again.tail) == (0, "fine\n")
    assert run.state == "failed"
    assert run.failure is not None
    assert run.failure.kind is K.VERIFY_FAILED
    assert "flaky" in run.failure.remedy
    assert run.branch is not None, "its commits are here all the same"


@pytest.mark.full
def test_one_that_fails_twice_has_failed(evening: Evening) -> None:
    marks = evening.directory / "marks"
    run, found = checked(evening, "both", here(evening, f"echo x >> {marks}; exit 3", verify_twice=True))
    assert found.again is not None
    assert (found.exit_code, found.again.exit_code, found.flaky) == (3, 3, False)
    assert marks.read_text() == "x\nx\n"
    assert run.failure is not None
    assert "again on the same commit it ended with 3" in " ".join(each.seen for each in run.failure.evidence)


@pytest.mark.full
def test_one_that_passes_runs_once(evening: Evening) -> None:
    marks = evening.directory / "marks"
    _, found = checked(evening, "once", here(evening, f"echo x >> {marks}", verify_twice=True))
    assert (found.exit_code, found.again) == (0, None)
    assert marks.read_text() == "x\n"


@pytest.mark.full
def test_asking_again_follows_both_runs_on_the_host(evening: Evening) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", COMMITS, verify=f"echo x >> {marks}; exit 1").model_copy(update={"verify_twice": True})
    with evening.night(task, batch_id="again") as night:
        first = carry_out(night, task)
        handle = night.ledger.handle("again.t.1")
        assert handle is not None
        assert night.verify(night.planner.resolve(task, 1, None), handle, first.commits[-1].sha) == first.verify
    assert marks.read_text() == "x\nx\n"


def test_each_run_of_it_stands_on_every_page(tmp_path: Path) -> None:
    found = Verify(
        command="make",
        exit_code=1,
        seconds=2.0,
        tail="race",
        on="here",
        again=Check(exit_code=0, seconds=1.0),
        flaky=True,
    )
    night = report(full_run().model_copy(update={"verify": found}))
    for page in (markdown(night), html(night, tmp_path)):
        assert "on this machine ended with 1 after 2.0 s." in page
        assert "Again on the same commit it passed after 1.0 s: it is flaky" in page
        assert "race" in page

"""A task's check on what came home, on a real host."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.failures import FailureKind
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import COMMIT, KEY, Evening, carry_out, git, script, stop_when

K = FailureKind
ENVIRONMENT = "env > seen-by-the-check; cat seen-by-the-check"


COMMITS = script(f'{{"sh": "{COMMIT}"}}')


def work_of(host: tuple[LoopbackHost, HostSpec], run_id: str) -> Path:
    key = host[1].key_file
    assert key is not None
    return key.parent / "home" / ".overnight" / "runs" / run_id


def holding(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold the secret, by content or by name."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return [str(p.relative_to(folder)) for p in files if secret.encode() in p.read_bytes() or secret in str(p)]


@pytest.mark.full
def test_a_check_that_fails_keeps_the_commits_and_shows_its_words(evening: Evening) -> None:
    task = evening.task("t", COMMITS, verify="echo 'two tests failed' >&2; exit 3")
    with evening.night(task, batch_id="failing") as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert run.verify is not None
    assert (run.failure.kind, run.verify.exit_code, len(run.commits)) == (K.VERIFY_FAILED, 3, 1)
    assert "ended with 3" in run.failure.evidence[0].seen
    assert "two tests failed" in run.failure.evidence[0].seen


@pytest.mark.full
def test_a_check_gets_no_key_and_touches_nothing_that_came_home(
    evening: Evening, host: tuple[LoopbackHost, HostSpec]
) -> None:
    task = evening.task(
        "t", COMMITS, verify=f"{ENVIRONMENT}; rm greeting.txt; git -c user.name=X -c user.email=x@x commit -qam gone"
    )
    with evening.night(task, batch_id="clean") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.verify.exit_code == 0
    names = {line.partition("=")[0] for line in run.verify.tail.splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "TMPDIR", "LANG", "TERM", "OVERNIGHT_RUN_ID"}
    assert KEY not in run.verify.tail
    work = work_of(host, "clean.t.1") / "work"
    assert (work / "greeting.txt").read_text() == "hello\n"
    assert git(work, "rev-parse", "HEAD") == run.commits[-1].sha
    assert not (work / "seen-by-the-check").exists()
    assert git(evening.directory / "repo", "rev-parse", "overnight/clean/t") == run.commits[-1].sha


@pytest.mark.full
def test_a_check_that_does_not_end_is_ended_with_all_it_started(
    evening: Evening, host: tuple[LoopbackHost, HostSpec]
) -> None:
    evening.limits = evening.limits.model_copy(update={"total_s": 2.0})
    pids = evening.directory / "pids"
    verify = f"for n in 1 2; do sleep 60 & echo $! >> {pids}; done; (trap '' TERM; sleep 60) & echo $! >> {pids}; wait"
    task = evening.task("t", COMMITS, verify=verify)
    with evening.night(task, batch_id="endless") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.failure is not None
    assert (run.verify.exit_code, run.failure.kind) == (None, K.VERIFY_FAILED)
    assert "was ended by its time limit" in run.failure.evidence[0].seen
    assert [pid for pid in pids.read_text().split() if _lives(pid)] == []


def _lives(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.full
def test_a_check_killed_by_a_signal_has_the_code_a_shell_gives(evening: Evening) -> None:
    task = evening.task("t", COMMITS, verify="kill -SEGV $$")
    with evening.night(task, batch_id="signal") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.verify.exit_code == 128 + 11


@pytest.mark.full
def test_a_key_that_a_check_prints_is_masked(evening: Evening) -> None:
    half = len(KEY) // 2
    task = evening.task("t", COMMITS, verify=f"printf %s%s {KEY[:half]} {KEY[half:]}")
    with evening.night(task, batch_id="printed") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.verify.tail == "*" * len(KEY)
    assert holding(evening.state, KEY) == []


@pytest.mark.full
def test_checking_again_follows_the_first_check(evening: Evening, host: tuple[LoopbackHost, HostSpec]) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", COMMITS, verify=f"echo x >> {marks}; touch made-by-the-check")
    with evening.night(task, batch_id="twice") as night:
        first = carry_out(night, task)
        handle = night.ledger.handle("twice.t.1")
        assert handle is not None
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        made_by_the_check = work_of(host, "twice.t.1") / "verify" / "made-by-the-check"
        assert made_by_the_check.exists()
        assert night.verify(plan, handle, first.commits[-1].sha) == first.verify
        assert made_by_the_check.exists(), "nobody takes the work tree away under a check"
    assert marks.read_text() == "x\n"


@pytest.mark.full
def test_an_interrupted_check_is_cancelled(evening: Evening) -> None:
    started = evening.directory / "started"
    task = evening.task("t", COMMITS, verify=f"touch {started}; sleep 60")
    with evening.night(task, batch_id="halted") as night:
        stop_when(night, started.exists)
        run = carry_out(night, task)
    assert run.failure is not None
    assert (run.state, run.failure.kind, len(run.commits)) == ("cancelled", K.CANCELLED, 1)


@pytest.mark.full
def test_a_check_is_left_to_itself_and_found_again(evening: Evening) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", COMMITS, verify=f"echo x >> {marks}; sleep 2")
    with evening.night(task, batch_id="away") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        night.monitor(plan)
        tip = night.collect(plan, handle).tip
        assert tip is not None
        night.stop("detach")
        assert night.verify(plan, handle, tip) is None
    with evening.night(task, batch_id="away") as night:
        run = carry_out(night, task)
    assert run.state == "succeeded"
    assert marks.read_text() == "x\n"

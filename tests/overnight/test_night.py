"""Whole attempts over SSH: what a night writes down, and takes up again."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from overnight.failures import Evidence, FailureError, FailureKind, HostError, fail
from overnight.harnesses import scripted
from overnight.harnesses.protocol import Harness
from overnight.night import Stages
from overnight.redact import fingerprint
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import (
    COMMIT,
    KEY,
    Evening,
    carry_out,
    commit,
    git,
    script,
    stop_when,
)
from tests.overnight.samples import proven

K = FailureKind


def test_an_attempt_from_instruction_to_commit(evening: Evening) -> None:
    task = evening.task("t", "Add a greeting", verify="test -s greeting.txt")
    with evening.night(task, batch_id="whole") as night:
        run = carry_out(night, task)
        assert night.ledger.outcome("whole.t.1") == run
    assert (run.state, run.failure, run.branch) == ("succeeded", None, "overnight/whole/t")
    assert [c.subject for c in run.commits] == ["Add greeting"]
    assert run.verify is not None
    assert (run.verify.exit_code, run.harness_version, run.claims) == (0, "1", None)
    assert (run.origin, run.credential) == (str(evening.directory / "repo"), fingerprint(KEY, "whole"))
    assert run.started_at is not None
    assert git(evening.directory / "repo", "show", "overnight/whole/t:greeting.txt") == "hello"
    saved = evening.state / "batches" / "whole" / "runs" / "whole.t.1"
    assert {p.name for p in saved.iterdir()} >= {"plan.json", "handle.json", "outcome.json", "events.jsonl", "out"}


@pytest.mark.full
def test_dispatching_again_finds_the_run(evening: Evening) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", script(f'{{"sh": "echo x >> {marks}; {COMMIT}"}}'))
    with evening.night(task, batch_id="again") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        again, found = night.dispatch(night.planner.resolve(task, 1, None))
        assert (again.base_sha, found) == (plan.base_sha, handle)
        night.monitor(plan)
    assert marks.read_text() == "x\n"


@pytest.mark.full
def test_a_controller_that_died_before_it_wrote_the_handle_goes_on_with_the_same_run(evening: Evening) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", script(f'{{"sh": "echo x >> {marks}; {COMMIT}"}}'))
    with evening.night(task, batch_id="torn") as night:
        night.dispatch(night.planner.resolve(task, 1, None))
        (night.ledger.run_dir("torn.t.1") / "handle.json").unlink()
    commit(evening.directory / "repo", "meanwhile.txt")
    with evening.night(task, batch_id="torn") as night:
        run = carry_out(night, task)
    assert marks.read_text() == "x\n"
    assert (run.state, len(run.commits)) == ("succeeded", 1)
    assert run.base_sha == git(evening.directory / "repo", "rev-parse", "main~1")


@pytest.mark.full
def test_work_comes_home_though_the_agent_was_uninstalled_meanwhile(evening: Evening) -> None:
    task = evening.task("t", script(f'{{"sh": "{COMMIT}"}}'))
    with evening.night(task, batch_id="bare") as night:
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        night.monitor(plan)
    with evening.night(task, batch_id="bare") as night:
        gone = SimpleNamespace(**{**vars(scripted), "COMMAND": "no-such-agent"})
        night.harnesses = {"scripted": cast(Harness, gone)}
        run = carry_out(night, task)
    assert (run.state, len(run.commits)) == ("succeeded", 1)


@pytest.mark.full
def test_a_run_whose_start_was_never_confirmed_is_asked_after_on_its_host(
    evening: Evening, host: tuple[LoopbackHost, HostSpec]
) -> None:
    """Else a task would be started twice, or be called skipped while its agent works."""
    task = evening.task("t", script(f'{{"sh": "{COMMIT}"}}'))
    unheard = fail(K.HOST_UNREACHABLE, Evidence(source="host", seen="no answer"))
    with evening.night(task, batch_id="unheard") as night:
        first, second = (night.planner.resolve(task, attempt, None) for attempt in (1, 2))
        assert not night.begun(first)
        assert not night.undecided(first, unheard)
        night.dispatch(first)
        (night.ledger.run_dir(first.run_id) / "handle.json").unlink()
        night.ledger.save(second.run_id, "plan", second.shown())
        assert night.begun(first)
        assert not night.begun(second)
        assert night.undecided(first, unheard)
        assert not night.undecided(first, proven(K.HOST_UNFIT))
        report = night.left(first, Stages(0.0), unheard)
    assert report.failure is not None
    assert "asked box to start it as unheard.t.1 and heard no answer" in report.failure.evidence[-1].seen


def test_a_late_answer_to_leave_the_runs_does_not_take_back_their_end(evening: Evening) -> None:
    with evening.night(evening.task("t", "x"), batch_id="late") as night:
        night.stop("detach")
        night.stop("cancel")
        night.stop("detach")
        assert night.interrupt == "cancel"


@pytest.mark.full
def test_a_run_on_a_host_that_is_gone_is_not_waited_for_when_it_is_cancelled(
    evening: Evening, host: tuple[LoopbackHost, HostSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.attendance.GONE_S", 2.0)
    task = evening.task("t", script('{"say": "on it"}', '{"sleep": 30}'))
    with evening.night(task, batch_id="away") as night:
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        host[0].link.refuse()
        host[0].link.cut()
        night.stop("cancel")
        try:
            watched = night.monitor(plan)
        finally:
            host[0].link.accept()
        assert watched.undecided
        assert watched.lost is not None
        assert watched.lost.kind is K.HOST_UNREACHABLE
    with evening.night(task, batch_id="away") as night:
        night.stop("cancel")
        assert carry_out(night, task).state == "cancelled"


@pytest.mark.full
def test_whoever_follows_a_run_leaves_it_when_the_night_is_closed(evening: Evening) -> None:
    task = evening.task("t", script('{"say": "on it"}', '{"sleep": 30}'))
    with evening.night(task, batch_id="closed") as night:
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        closing = threading.Timer(1.0, night.close)
        closing.start()
        assert night.monitor(plan).undecided
        closing.join()
    with evening.night(task, batch_id="closed") as night:
        night.stop("cancel")
        assert carry_out(night, task).state == "cancelled"


@pytest.mark.full
def test_a_run_that_was_left_is_followed_again_to_its_end(evening: Evening) -> None:
    task = evening.task("t", script('{"say": "on it"}', '{"sleep": 1.5}', f'{{"sh": "{COMMIT}"}}'))
    with evening.night(task, batch_id="left") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        night.stop("detach")
        watched = night.monitor(plan)
        assert watched.undecided
        report = night.left(plan, Stages(0.0, handle, watched), None)
        assert report.failure is not None
        assert "--resume left" in report.failure.remedy
        assert night.ledger.outcome(plan.run_id) is None
    with evening.night(task, batch_id="left") as night:
        run = carry_out(night, task)
    assert (run.state, len(run.commits)) == ("succeeded", 1)


@pytest.mark.full
def test_a_cancelled_run_is_ended_and_its_work_brought_home(evening: Evening) -> None:
    task = evening.task("t", script(f'{{"sh": "{COMMIT}"}}', '{"say": "committed"}', '{"sleep": 60}'))
    with evening.night(task, batch_id="cancel") as night:
        said = night.ledger.run_dir("cancel.t.1") / "out"
        stop_when(night, lambda: said.exists() and b"committed" in said.read_bytes())
        run = carry_out(night, task)
    assert run.failure is not None
    assert (run.state, run.failure.kind, len(run.commits)) == ("cancelled", K.CANCELLED, 1)


@pytest.mark.full
def test_work_that_cannot_be_collected_is_named_with_its_place(evening: Evening) -> None:
    task = evening.task("t", script('{"sh": "rm -rf .git"}'))
    with evening.night(task, batch_id="gone") as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert run.failure.kind is K.COLLECT_FAILED
    assert "runs/gone.t.1/work" in repr(run.failure.evidence)


@pytest.mark.full
def test_a_key_is_asked_for_once(evening: Evening) -> None:
    asked: list[str] = []

    def reveal(provider: str) -> str:
        asked.append(provider)
        return KEY

    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="once", reveal=reveal) as night:
        assert [night.key("rehearsal") for _ in range(3)] == [KEY] * 3
    assert asked == ["rehearsal"]


@pytest.mark.full
def test_a_base_that_is_not_there_starts_nothing(evening: Evening) -> None:
    evening.base = "no-such-branch"
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="nobase") as night, pytest.raises(FailureError, match="no-such-branch"):
        night.dispatch(night.planner.resolve(task, 1, None))


@pytest.mark.full
def test_why_a_run_was_stopped_survives_the_controller_that_stopped_it(evening: Evening) -> None:
    task = evening.task("t", script('{"say": "on it"}', '{"sleep": 60}'))
    with evening.night(task, batch_id="hushed") as night:
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        hasty = replace(plan, limits=plan.limits.model_copy(update={"quiet_s": 1.0}))
        assert night.monitor(hasty).stop is not None
    with evening.night(task, batch_id="hushed") as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert run.failure.kind is K.WENT_QUIET


@pytest.mark.full
def test_a_host_that_is_gone_decides_nothing_about_its_run(
    evening: Evening, host: tuple[LoopbackHost, HostSpec]
) -> None:
    task = evening.task("t", script(f'{{"sh": "{COMMIT}"}}'))
    with evening.night(task, batch_id="unreached") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        watched = night.monitor(plan)
        host[0].link.refuse()
        host[0].link.cut()
        try:
            with pytest.raises(HostError) as caught:
                night.collect(plan, handle)
        finally:
            host[0].link.accept()
        report = night.left(plan, Stages(0.0, handle, watched), caught.value.failure)
        assert report.failure is not None
        assert (report.state, report.failure.kind) == ("failed", K.HOST_UNREACHABLE)
        assert handle.run_dir in report.failure.evidence[-1].seen
        assert night.ledger.outcome(plan.run_id) is None
    with evening.night(task, batch_id="unreached") as night:
        assert carry_out(night, task).state == "succeeded"

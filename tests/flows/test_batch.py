"""How the flow tells Prefect the end of a night."""

from __future__ import annotations

from pathlib import Path

from flows.attempts import end_state
from flows.run_batch import stamp, written_anew
from overnight import ledger
from overnight.failures import Evidence, FailureError, FailureKind, fail
from overnight.handover import Handed
from tests.overnight.samples import report, run


def test_every_task_succeeded() -> None:
    state = end_state(report(run()).model_copy(update={"exit_code": 0}))
    assert (state.is_completed(), state.message) == (True, "1 succeeded")


def test_the_first_cause_is_the_flow_runs_cause() -> None:
    lost = fail(FailureKind.LOST, Evidence(source="host", seen="rebooted"))
    whole = report(run(task_id="a"), run(task_id="b", state="lost", failure=lost)).model_copy(update={"exit_code": 1})
    state = end_state(whole)
    assert state.is_failed()
    assert isinstance(state.data, FailureError)
    assert state.data.failure == lost


def test_what_was_not_delivered_is_named() -> None:
    gone = Handed(how="push", state="failed", remote="origin", branch="b", sha="c" * 40)
    state = end_state(report(run(handed=gone)))
    assert state.is_failed()
    assert state.message == "1 succeeded; not delivered: shout, see the report"


def test_an_interrupt_after_the_last_success_is_no_crash() -> None:
    state = end_state(report(run()).model_copy(update={"exit_code": 130}))
    assert state.is_cancelled()
    assert state.message == "1 succeeded"


def test_a_report_counts_as_this_starts_own_although_the_clock_was_set_back(tmp_path: Path) -> None:
    path, told = tmp_path / "report.json", report(run())
    assert written_anew(path, stamp(path)) is None
    earlier = stamp(path)
    ledger.write(path, told.to_json())  # it says that it ended years ago
    assert written_anew(path, earlier) == told
    before = stamp(path)
    assert written_anew(path, before) is None
    ledger.write(path, told.to_json())
    assert written_anew(path, before) == told

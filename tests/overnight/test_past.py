from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from overnight import past
from overnight.failures import BadInput
from overnight.ledger import Ledger
from tests.overnight.samples import AT, batch, planner, run, task

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FIRST, SECOND = "tonight-20261121-2200-ab12", "tonight-20261122-2200-cd34"


def made(state: Path, batch_id: str, *ids: str, part: str = "", age_s: int = 0) -> Ledger:
    """A batch whose tasks were all begun; older the larger `age_s`."""
    spec = batch(*(task(id=name) for name in ids))
    ledger = Ledger(state, batch_id, part)
    ledger.open_new(spec, "{}", AT)
    for wanted in spec.tasks:
        plan = planner(spec).resolve(wanted, 1, None).shown()
        ledger.save(f"{batch_id}.{wanted.id}.1", "plan", {**plan, "run_id": f"{batch_id}.{wanted.id}.1"})
    at = (LONG_AGO - timedelta(seconds=age_s)).timestamp()
    for path in ledger.directory.rglob("*"):
        os.utime(path, (at, at))
    return ledger


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made(tmp_path, FIRST, "parse", "print", age_s=60)
    made(tmp_path, SECOND, "parse")
    return tmp_path


def again(state: Path, batch_id: str, task_id: str, attempt: int) -> None:
    """Another attempt at a task."""
    ledger = Ledger(state, batch_id)
    plan = next(entry.plan for entry in past.runs(ledger) if entry.task_id == task_id)
    ledger.save(f"{batch_id}.{task_id}.{attempt}", "plan", {**plan, "attempt": attempt})


class TestBatch:
    def test_none_named_is_the_newest(self, state: Path) -> None:
        assert [ledger.batch_id for ledger in past.batch(state, "")] == [SECOND]

    @pytest.mark.parametrize("text", [FIRST, FIRST[:-3], "tonight-20261121"])
    def test_a_beginning_is_enough(self, state: Path, text: str) -> None:
        assert [ledger.batch_id for ledger in past.batch(state, text)] == [FIRST]

    def test_parts_of_a_spread_batch_belong_to_it(self, state: Path) -> None:
        part = made(state, SECOND, "parse", part="parse")
        assert [ledger.directory for ledger in past.batch(state, SECOND)][-1] == part.directory
        assert len(past.batch(state, SECOND)) == 2

    def test_what_fits_several_or_none_is_refused(self, state: Path) -> None:
        with pytest.raises(BadInput, match="could be 2 of them") as several:
            past.batch(state, "tonight")
        assert FIRST in several.value.mend
        with pytest.raises(BadInput, match="there is no 'tonigth") as none:
            past.batch(state, SECOND.replace("tonight", "tonigth"))
        assert SECOND in none.value.mend
        with pytest.raises(BadInput, match="no batch was ever started here"):
            past.batch(state / "none", "")


class TestRun:
    def test_the_last_is_the_one_that_was_written_last(self, state: Path) -> None:
        found = past.run(state, "last")
        assert found.run_id == f"{SECOND}.parse.1"
        Ledger(state, FIRST).log(f"{FIRST}.print.1", AT, "dispatched")
        assert past.run(state, "last").run_id == f"{FIRST}.print.1"

    def test_a_task_of_a_batch_means_its_newest_attempt(self, state: Path) -> None:
        for attempt in (2, 10):
            again(state, FIRST, "parse", attempt)
        assert past.run(state, FIRST, "parse").run_id == f"{FIRST}.parse.10"
        assert past.run(state, f"{FIRST}.par").run_id == f"{FIRST}.parse.10"
        assert past.run(state, f"{FIRST}.parse.1").run_id == f"{FIRST}.parse.1"

    @pytest.mark.parametrize(
        ("text", "task_id", "field", "mend"),
        [
            (f"{FIRST}.p", "", "RUN_ID", "Write more of it"),
            (f"{FIRST}.prase.1", "", "RUN_ID", f"{FIRST}.parse.1"),
            (FIRST, "prase", "TASK", "Did you mean parse?"),
        ],
    )
    def test_what_fits_several_or_none_is_refused(
        self, state: Path, text: str, task_id: str, field: str, mend: str
    ) -> None:
        with pytest.raises(BadInput) as refused:
            past.run(state, text, task_id)
        assert refused.value.field == field
        assert mend in refused.value.mend

    def test_probes_are_no_runs(self, state: Path) -> None:
        ledger = Ledger(state, SECOND)
        plan = past.runs(ledger)[0].plan
        ledger.save(f"{SECOND}.probe-nonce12345678.1", "plan", plan)
        assert [entry.run_id for entry in past.runs(ledger)] == [f"{SECOND}.parse.1"]
        assert [entry.is_probe for entry in past.entries(ledger)] == [False, True]


def test_it_is_held_while_somebody_holds_it_and_by_nobody_who_asks(state: Path) -> None:
    ledger = Ledger(state, FIRST)
    assert not past.is_held(ledger)
    with ledger.held():
        assert past.is_held(ledger)
    assert not past.is_held(ledger)


def test_it_is_settled_when_it_was_decided(state: Path) -> None:
    ledger = Ledger(state, FIRST)
    entry = past.runs(ledger)[0]
    assert entry.settled_at == LONG_AGO - timedelta(seconds=60)
    ledger.save(entry.run_id, "outcome", run())
    assert entry.settled_at > LONG_AGO

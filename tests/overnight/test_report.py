from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from overnight import report as module
from overnight.failures import FailureKind
from overnight.report import BatchReport, State, count, exit_code, kills, last_attempts
from overnight.stop import Audit
from tests.overnight.samples import full_run, report, run

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "report.schema.json"
# the interface that other tools rely on; more keys may come, none of these may go
ROUTE_KEYS = "host harness provider model state preflight_s failure"
RUN_KEYS = (
    "task_id run_id attempt host harness harness_version provider model state failure commits branch base_sha "
    "leftovers verify seconds first_event_s tokens usd log"
)
BATCH_KEYS = "schema batch_id name started_at ended_at exit_code routes runs counts"


def stored(*runs: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report(*runs).to_json())
    return found


def schema_errors(data: Any) -> list[str]:
    checked = jsonschema.Draft202012Validator(module.schema(), format_checker=jsonschema.FormatChecker())
    return [error.message for error in checked.iter_errors(data)]


def test_checked_in_schema_is_the_models_own() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == module.schema()
    jsonschema.Draft202012Validator.check_schema(module.schema())


def test_every_promised_key_is_there() -> None:
    data = stored(full_run())
    (found,) = data["runs"]
    assert set(BATCH_KEYS.split()) <= data.keys()
    assert all(set(ROUTE_KEYS.split()) <= route.keys() for route in data["routes"])
    assert set(RUN_KEYS.split()) <= found.keys()
    assert {"kind", "family", "retry", "evidence", "remedy"} <= found["failure"].keys()
    assert {"sha", "subject", "author_date"} <= found["commits"][0].keys()
    assert {"command", "exit_code", "seconds"} <= found["verify"].keys()
    assert {"queued", "start", "run", "collect"} <= found["seconds"].keys()
    assert data["schema"] == 1


def test_a_sample_leaves_no_field_empty() -> None:
    """Otherwise the two tests below would prove less than they say."""
    empty = {name for name, value in full_run() if value in (None, "", (), {})}
    assert not empty


@pytest.mark.parametrize("made", [full_run(), run(), run(attempt=0, run_id="", state="skipped")])
def test_a_report_fits_the_schema_and_round_trips(made: module.RunReport) -> None:
    whole = report(made)
    assert schema_errors(json.loads(whole.to_json())) == []
    assert BatchReport.model_validate_json(whole.to_json()) == whole


def test_the_schema_can_fail() -> None:
    data = stored(full_run())
    data["runs"][0] |= {"state": "great", "more": 1}
    data["runs"][0]["failure"]["kind"] = "bad-luck"
    del data["counts"]
    assert len(schema_errors(data)) >= 3


def test_the_last_attempt_decides_a_task() -> None:
    runs = [run(state="failed"), run(task_id="b", state="lost"), run(attempt=2, state="succeeded")]
    assert [(r.task_id, r.attempt) for r in last_attempts(runs)] == [("shout", 2), ("b", 1)]
    assert count(runs) == {"succeeded": 1, "failed": 0, "skipped": 0, "cancelled": 0, "lost": 1}


def test_every_state_is_counted() -> None:
    assert set(count([])) == set(get_args(State))


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["succeeded"], 0),
        (["succeeded", "succeeded"], 0),
        (["succeeded", "failed"], 1),
        (["succeeded", "skipped"], 1),
        (["lost"], 1),
        (["cancelled", "skipped"], 1),
        (["skipped"], 3),
        (["skipped", "skipped"], 3),
    ],
)
def test_the_exit_code(states: list[State], code: int) -> None:
    runs = [run(task_id=f"t{i}", state=state) for i, state in enumerate(states)]
    assert exit_code(runs, interrupted=False) == code
    assert exit_code(runs, interrupted=True) == 130


def test_an_earlier_failure_does_not_spoil_the_exit_code() -> None:
    assert exit_code([run(state="failed"), run(attempt=2)], interrupted=False) == 0


def test_kinds_in_the_schema_are_all_of_them() -> None:
    assert module.schema()["$defs"]["FailureKind"]["enum"] == [kind.value for kind in FailureKind]


def test_the_monitor_is_held_against_what_became_of_the_runs_it_ended() -> None:
    judged = [
        Audit(rule="proof", at_s=2),
        Audit(rule="quiet_s", at_s=500, progress_after=True),
        Audit(rule="quiet_s", at_s=500),
        Audit(spared=3),
        None,
    ]
    found = kills([run(monitor=audit) for audit in judged])
    assert [(each.rule, each.runs, each.progress_after) for each in found] == [("proof", 1, 0), ("quiet_s", 2, 1)]

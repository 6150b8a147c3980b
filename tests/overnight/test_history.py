from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from overnight.failures import FailureKind, Family
from overnight.history import history, signature, told
from overnight.ledger import Ledger, write
from overnight.report import BatchReport, RunReport
from tests.overnight.samples import AT, ROUTE, batch, proven, report, run


def failed(kind: FailureKind, seen: str = "seen", **changes: Any) -> RunReport:
    return run(**{"state": "failed", "failure": proven(kind, seen, names=ROUTE.names), **changes})


def night(day: int, *runs: RunReport, name: str = "tonight") -> BatchReport:
    update = {"batch_id": f"{name}-{day}", "name": name, "started_at": AT + timedelta(days=day)}
    return report(*runs).model_copy(update=update)


def test_a_night_counts_its_tasks_by_cause_and_by_who_must_act() -> None:
    (found,) = told(
        [
            night(
                0,
                run(task_id="a"),
                failed(FailureKind.NO_COMMIT, task_id="b"),
                run(task_id="b", attempt=2),
                failed(FailureKind.AUTH_REJECTED, task_id="c"),
                failed(FailureKind.AUTH_REJECTED, task_id="d"),
                failed(FailureKind.KEY_MISSING, task_id="e"),
            )
        ],
        14,
    ).nights
    assert found.causes == {FailureKind.AUTH_REJECTED: 2, FailureKind.KEY_MISSING: 1}
    assert found.families == {Family.AUTH: 3}
    assert (found.raw.successes, found.raw.n, found.judged.n) == (2, 5, 2)


def test_what_no_earlier_night_had_is_new_and_the_first_night_is_not() -> None:
    old, fresh = failed(FailureKind.NO_COMMIT, task_id="a"), failed(FailureKind.DISK_FULL, task_id="b")
    found = told([night(0, old), night(1, old), night(2, old, fresh), night(3, fresh)], 2)
    assert [(each.words, each.new, each.nights, each.tasks) for each in found.signatures] == [
        ("disk-full on box: seen", True, 2, 2),
        ("no-commit of claude-code with glm-5.2", False, 3, 3),
    ]
    assert found.signatures[0].first_batch == "tonight-2"
    assert (len(found.nights), found.earlier) == (2, 2)
    first = told([night(0, fresh)], 2)
    assert [each.new for each in first.signatures] == [False]


def test_what_was_new_before_the_nights_shown_is_not_new_any_more() -> None:
    well, fresh = run(task_id="a"), failed(FailureKind.DISK_FULL, task_id="b")
    found = told([night(0, well), night(1, fresh), night(2, fresh), night(3, fresh)], 2)
    assert [each.new for each in found.signatures] == [False]
    assert told([night(0, fresh), night(1, well)], 1).signatures == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("reset at 2026-11-23 08:24:05 [req_ab12]", "reset at 2026-11-24T01:00:00Z [req_9]"),
        ("0.4 s after 12345 bytes", "31.2 s after 987654 bytes"),
        ("/home/a/runs/x is full", "/mnt/y is full"),
        ("run 5f1c8a90b2e4 died", "run 0000000000aa died"),
    ],
)
def test_what_differs_every_time_makes_nothing_new(one: str, other: str) -> None:
    words = {
        signature(each, each.failure)
        for each in (failed(FailureKind.DISK_FULL, s) for s in (one, other))
        if each.failure
    }
    assert len(words) == 1


@pytest.mark.parametrize(
    "other",
    [
        failed(FailureKind.DISK_FULL, "code 1309"),
        failed(FailureKind.DISK_FULL, "code 1308", host="attic"),
        failed(FailureKind.HOST_UNFIT, "code 1308"),
    ],
)
def test_another_code_place_or_kind_is_another_signature(other: RunReport) -> None:
    one = failed(FailureKind.DISK_FULL, "code 1308")
    assert one.failure is not None
    assert other.failure is not None
    assert signature(one, one.failure) != signature(other, other.failure)


def test_a_state_directory_is_read_by_name_without_parts_and_what_has_no_report(tmp_path: Path) -> None:
    kept = [night(0, run()), night(1, run(), name="other"), night(2, failed(FailureKind.DISK_FULL))]
    for each in kept:
        _write(tmp_path, each)
    Ledger(tmp_path, "tonight-9").open_new(batch(), "{}", AT)
    _write(tmp_path, kept[2], part="shout")
    assert [each.batch_id for each in history(tmp_path, 14).nights] == ["tonight-0", "other-1", "tonight-2"]
    of_name = history(tmp_path, 14, "tonight")
    assert [each.batch_id for each in of_name.nights] == ["tonight-0", "tonight-2"]
    assert of_name.signatures[0].new
    assert history(tmp_path / "none", 14).nights == ()


def _write(state: Path, kept: BatchReport, part: str = "") -> None:
    ledger = Ledger(state, kept.batch_id, part)
    ledger.open_new(batch(), "{}", AT)
    write(ledger.directory / "report.json", kept.to_json())


def test_the_command_tells_it_in_a_table_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli_history import history as command

    command(state=tmp_path)
    assert capsys.readouterr().out == "no night has ended here yet\n"
    _write(tmp_path, night(0, run(task_id="a"), failed(FailureKind.NO_COMMIT)))
    _write(tmp_path, night(1, run(task_id="a"), failed(FailureKind.DISK_FULL, "\x1b[2J full")))
    command(state=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "night batch succeeded without infrastructure host work",
        "22 Nov 21:00 tonight 1 of 2 50 % 1 of 2 50 % 1",
        "23 Nov 21:00 tonight 1 of 2 50 % 1 of 1 100 % 1",
        r"new since 23 Nov: disk-full on box: \x1b[2J full (1 task in 1 night, last 23 Nov)",
    ]
    command(state=tmp_path, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == 1
    assert [each["families"] for each in data["nights"]] == [{"work": 1}, {"host": 1}]
    assert [each["new"] for each in data["signatures"]] == [True, False]

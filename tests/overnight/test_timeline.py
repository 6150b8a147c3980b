from __future__ import annotations

import json
from pathlib import Path

from overnight.report import Phases
from overnight.timeline import Bar, Lane, Mark, lanes, marks
from tests.overnight.samples import full_run, run


def said(*at: float) -> list[Mark]:
    return [Mark(each, "tool Bash", "event") for each in at]


def parts(lane: Lane) -> list[tuple[str, float, float]]:
    return [(bar.part, bar.from_s, bar.to_s) for bar in lane.bars]


def test_the_phases_follow_each_other() -> None:
    (lane,) = lanes([full_run()], {})
    assert parts(lane) == [
        ("queue", 0.0, 0.5),
        ("start", 0.5, 1.5),
        ("run", 1.5, 61.5),
        ("quiet", 1.5, 61.5),
        ("collect", 61.5, 61.7),
        ("verify", 61.7, 70.2),
    ]
    assert lane.end_s == 70.2


def test_a_second_attempt_stands_where_its_wait_ended() -> None:
    first, second = run(seconds=Phases(queued=1, run=10)), run(attempt=2, seconds=Phases(queued=30, run=5))
    assert [lane.bars[-1] for lane in lanes([first, second], {})] == [Bar("run", 1, 11), Bar("run", 30, 35)]


def test_after_a_resume_attempts_still_do_not_overlap() -> None:
    first, second = run(seconds=Phases(queued=1, run=10)), run(attempt=2, seconds=Phases(queued=2, run=5))
    assert lanes([first, second], {})[1].bars == (Bar("run", 11, 16),)


def test_silence_is_what_is_long_for_the_run() -> None:
    long = run(run_id="x", seconds=Phases(run=1000))
    (lane,) = lanes([long], {"x": said(10, 60, 400, 460, 990)})
    assert [(bar.from_s, bar.to_s) for bar in lane.bars if bar.part == "quiet"] == [(60, 400), (460, 990)]


def test_marks_lie_within_the_run_and_many_are_thinned_but_never_a_retry() -> None:
    busy = run(run_id="x", seconds=Phases(start=5, run=100))
    retry = Mark(50.05, "retry 1: 529", "retry")
    (lane,) = lanes([busy], {"x": [*said(*(i / 100 for i in range(5000))), retry, *said(120)]})
    assert len(lane.marks) <= 300
    assert [mark.at_s for mark in lane.marks if mark.sort == "retry"] == [55.05]
    assert max(mark.at_s for mark in lane.marks) <= 105


def test_a_task_that_never_started_has_no_bars() -> None:
    assert lanes([run(attempt=0, run_id="", state="skipped")], {})[0].bars == ()


def test_an_event_log_is_read_past_what_a_crash_tore(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    lines = [
        {"at": "x", "event": "dispatched", "host": "box"},
        *(
            {"event": "agent", "at_s": i, "said": words}
            for i, words in enumerate(
                ["tool Bash", "retry 1: 529", "error 401", "permission denied: Bash", "commit ab"]
            )
        ),
        {"event": "agent", "said": "no moment"},
        ["event"],
    ]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "ag')
    assert [mark.sort for mark in marks(log)] == ["event", "retry", "trouble", "trouble", "commit"]
    assert marks(tmp_path / "none") == []

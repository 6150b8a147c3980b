from __future__ import annotations

import json

from overnight.failures import Evidence, FailureKind, fail
from overnight.morning import judged, markdown, rows, run_markdown
from overnight.report import Kills, Phases
from tests.overnight.samples import BATCH_ID, full_run, report, run


def test_the_page_says_everything_of_a_run() -> None:
    words = run_markdown(full_run())
    for said in (
        "### shout: failed",
        f"1 commit on overnight/{BATCH_ID}/shout in /srv/app, 1 file changed",
        "- `cccccccccc` Add --shout",
        "- cause: **verify-failed** (work; retry: fresh)",
        "  - exit: `make test` ended with 2 at 61.5 s in verify",
        "- mend: see the tail of the check's output",
        "Not claude-code on old-box with glm-5.2 of zai, where it had failed: disk-full:",
        "Ended by the rule quiet_s at 422 s, running: `claude -p x (pid 7)`.",
        "The agent's claim does not hold: it reported success; there is no commit.",
        "Of its output 10 bytes of out, from 5 on, are missing",
        "Not committed: 2 files, saved as `refs/overnight/x/wip`.",
        "Further tips: `refs/overnight/x/other/y` eeeeeeeeee",
        "Check `make test` ended with 2 after 4.5 s.",
        "claude-code 2.1.330 on box; glm-5.2 of zai; 60 s; 1234 tokens; "
        "0.50 USD, tokens at the rates of 2026-11-22 from a page; "
        "began in peak hours: 3 times the quota 14:00-18:00 UTC+08:00; log `/state/runs/x`",
    ):
        assert said in words


def test_what_did_not_happen_is_not_mentioned() -> None:
    words = run_markdown(run())
    assert words == "### shout: succeeded\n\nclaude-code on box; glm-5.2 of zai; cost not known\n"


def test_a_check_that_passed_and_a_second_attempt_are_said() -> None:
    verify = full_run().verify
    assert verify is not None
    words = run_markdown(run(attempt=2, verify=verify.model_copy(update={"exit_code": 0})))
    assert words.startswith("### shout: succeeded (attempt 2)")
    assert "Check `make test` passed after 4.5 s." in words


def test_a_check_ended_by_its_limit_says_so() -> None:
    verify = full_run().verify
    assert verify is not None
    words = run_markdown(run(verify=verify.model_copy(update={"exit_code": None})))
    assert "Check `make test` was ended by its time limit after 4.5 s." in words


def test_the_whole_night_on_a_page() -> None:
    words = markdown(report(full_run(), run(task_id="readme")))
    assert words.startswith("# night: 1 succeeded, 1 failed\n")
    assert f"Batch `{BATCH_ID}`, 2026-11-22 21:00 UTC, 3600 s." in words
    assert "- **open** claude-code on box, glm-5.2 of zai, preflight 2.0 s\n" in words
    assert "- **shut** claude-code on box, glm-5.1 of zai, preflight 1.0 s: auth-rejected: 401. Mend: " in words
    assert words.index("### shout") < words.index("### readme")


def test_rows_are_json_and_one_an_attempt() -> None:
    lost = fail(FailureKind.LOST, Evidence(source="host", seen="rebooted"))
    found = rows(report(run(state="lost", failure=lost), run(attempt=2, seconds=Phases(run=3.0))))
    assert json.loads(json.dumps(found)) == found
    assert [(r["attempt"], r["state"], r["cause"], r["seconds"]) for r in found] == [
        (1, "lost", "lost", None),
        (2, "succeeded", "", 3.0),
    ]
    assert found[0]["model"] == "glm-5.2 of zai"


def test_a_row_has_the_page_of_its_attempt_where_one_is_known() -> None:
    found = rows(report(run(), run(run_id="other")), {"other": "/runs/task-run/1"})
    assert [row["page"] for row in found] == ["", "/runs/task-run/1"]


def test_what_the_monitor_did_is_said_and_nothing_when_it_did_nothing() -> None:
    kept = (Kills(rule="proof", runs=2, progress_after=0), Kills(rule="quiet_s", runs=1, progress_after=1))
    night = report(run()).model_copy(update={"kills": kept, "spared": 1})
    assert judged(night) == [
        "ended early: 2 runs by proof, 1 run by quiet_s; 1 of them did something of use afterwards",
        "let go on: 1 time a clock ran out and the run was found at work",
    ]
    assert "ended early: 2 runs" in markdown(night)
    assert judged(report(run())) == []

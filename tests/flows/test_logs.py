"""A run in words, and how a batch stands: from files alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.logs import age, logs, status
from overnight import past
from overnight.failures import Evidence, FailureKind, fail
from overnight.ledger import Ledger
from overnight.printable import safe
from tests.flows.world import ROOT
from tests.overnight.samples import AT, BATCH_ID, batch, commit, plan, run, task

RUN_ID = f"{BATCH_ID}.shout.1"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path, BATCH_ID)
    made.open_new(batch(task(), task(id="whisper")), "{}", AT)
    made.save(RUN_ID, "plan", plan().shown())
    made.log(RUN_ID, AT, "dispatched", answer="started", host="box", run_dir="/home/dev/runs/x")
    made.log(RUN_ID, AT, "agent", at_s=2.1, said="started, model glm-5.2")
    return made


def said(ledger: Ledger, part: str = "events", *, follow: bool = False) -> str:
    words: list[str] = []
    logs(past.run(ledger.state, RUN_ID), part, words.append, follow=follow)  # type: ignore[arg-type]  # any text here
    return "".join(words)


class TestEvents:
    def test_they_are_told_in_words_with_the_outcome_last(self, ledger: Ledger) -> None:
        ledger.log(RUN_ID, AT, "ended", ending="exited", code=0, seconds=61.2)
        ledger.log(RUN_ID, AT, "collected", tip="c" * 40, commits=1)
        ledger.save(RUN_ID, "outcome", run(commits=(commit(),), branch="overnight/b/shout", repo="/srv/app"))
        lines = said(ledger).splitlines()
        assert lines[0] == f"{RUN_ID}: shout, attempt 1"
        assert lines[1] == "  claude-code on box with glm-5.2 of zai"
        assert [line.split("  ", 2)[-1] for line in lines[3:-1]] == [
            "running on box in /home/dev/runs/x",
            "agent at     2.1 s: started, model glm-5.2",
            "the agent ended with exit code 0 after 61 s",
            "1 commit came home",
        ]
        assert lines[-1] == "succeeded, 1 commit on overnight/b/shout in /srv/app"

    def test_a_failure_says_what_was_seen_and_what_mends_it(self, ledger: Ledger) -> None:
        refused = fail(FailureKind.AUTH_REJECTED, Evidence(source="event", seen="401"), names={"provider": "zai"})
        ledger.log(RUN_ID, AT, "ended", ending="killed", by="request", seconds=1.0, stopped="auth-rejected: 401")
        ledger.save(RUN_ID, "outcome", run(state="failed", failure=refused))
        text = said(ledger)
        assert "ended by request after 1 s; we stopped it: auth-rejected: 401\n" in text
        assert text.endswith(
            "failed, auth-rejected\n  seen: event: 401\n  mend: replace the key: overnight credentials add zai\n"
        )

    @pytest.mark.parametrize(
        ("event", "words"),
        [
            ({"what": "left"}, "left to its host, which goes on with it"),
            ({"what": "ended", "ending": "lost", "why": "the host rebooted"}, "lost: the host rebooted"),
            ({"what": "ended", "ending": "exited", "signal": 9, "seconds": 3.0}, "ended with signal 9 after 3 s"),
            ({"what": "brand-new", "x": 1}, "brand-new, x: 1"),
        ],
    )
    def test_every_event_has_words(self, ledger: Ledger, event: dict[str, object], words: str) -> None:
        details = dict(event)
        ledger.log(RUN_ID, AT, str(details.pop("what")), **details)
        assert words in said(ledger)

    def test_a_torn_line_is_shown_as_it_is(self, ledger: Ledger) -> None:
        with (ledger.run_dir(RUN_ID) / "events.jsonl").open("ab") as file:
            file.write(b'{"at": "2026-\xc3')
        assert '{"at": "2026-' in said(ledger)

    def test_of_an_undecided_run_it_says_who_watches_it(self, ledger: Ledger) -> None:
        assert "is watched by nobody" in said(ledger)
        with ledger.held():
            assert "is being watched" in said(ledger)


class TestOutput:
    def test_it_is_what_the_agent_printed(self, ledger: Ledger) -> None:
        (ledger.run_dir(RUN_ID) / "out").write_bytes("größer\n\ttab\nno end".encode())
        assert said(ledger, "out") == "größer\n\ttab\nno end\n"
        assert said(ledger, "err") == ""

    def test_a_terminal_obeys_none_of_it(self, ledger: Ledger) -> None:
        (ledger.run_dir(RUN_ID) / "out").write_bytes(b"\x1b]0;title\x07\x1b[2J\xc2\x9b5n\r\x00\xe2\x80\xaex\xff\n")
        assert said(ledger, "out") == "\\x1b]0;title\\x07\\x1b[2J\\x9b5n\\r\\x00\\u202ex\ufffd\n"
        assert safe("a\tb\nc") == "a\tb\nc"

    def test_a_character_in_two_reads_is_one(self, ledger: Ledger) -> None:
        text = "x" * 65535 + "ö" * 10 + "\n"
        (ledger.run_dir(RUN_ID) / "out").write_bytes(text.encode())
        assert said(ledger, "out") == text


class TestFollow:
    def test_it_goes_on_until_the_run_is_decided(self, ledger: Ledger) -> None:
        seen = threading.Event()
        words: list[str] = []

        def hear(text: str) -> None:
            words.append(text)
            if "started, model" in text:
                seen.set()

        def night() -> None:
            assert seen.wait(60)
            ledger.log(RUN_ID, AT, "collected", commits=0)
            ledger.save(RUN_ID, "outcome", run(state="failed"))

        with ledger.held():
            thread = threading.Thread(target=night)
            thread.start()
            logs(past.run(ledger.state, "last"), "events", hear, follow=True)
            thread.join()
        assert "".join(words).endswith("0 commits came home\nfailed\n")

    def test_it_ends_when_nobody_watches_the_run(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flows.logs._ASK_S", 0.2)
        assert "is watched by nobody" in said(ledger, follow=True)


class TestStatus:
    def test_it_has_a_row_for_every_task(self, ledger: Ledger) -> None:
        found = status(ledger.state, "")
        rows = {row["task"]: row for row in found["runs"]}
        assert (found["batch_id"], found["running"]) == (BATCH_ID, False)
        assert {name: row["state"] for name, row in rows.items()} == {
            "shout": "left on its host",
            "whisper": "not begun",
        }
        with ledger.held():
            assert status(ledger.state, BATCH_ID)["runs"][0]["state"] == "starting"
        ledger.save(RUN_ID, "outcome", run(commits=(commit(),)))
        row = status(ledger.state, "")["runs"][0]
        assert (row["state"], row["commits"], row["host"], row["age_s"] < 60) == ("succeeded", 1, "box", True)

    def test_parts_of_a_spread_batch_count(self, ledger: Ledger) -> None:
        part = Ledger(ledger.state, BATCH_ID, "whisper")
        part.open_new(batch(task(id="whisper")), "{}", AT)
        run_id = f"{BATCH_ID}.whisper.1"
        part.save(run_id, "plan", {**plan(id="whisper").shown(), "run_id": run_id})
        part.save(run_id, "outcome", run(task_id="whisper", run_id=run_id))
        assert {row["task"]: row["state"] for row in status(ledger.state, "")["runs"]} == {
            "shout": "left on its host",
            "whisper": "succeeded",
        }


@pytest.mark.parametrize(("seconds", "words"), [(4, "4 s"), (600, "10 min"), (9000, "2.5 h"), (864000, "10 days")])
def test_ages(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_looking_costs_no_prefect() -> None:
    code = "import sys, flows.cli_runs, flows.logs; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

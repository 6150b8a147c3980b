from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overnight import past
from overnight.failures import BadInput
from overnight.handle import RunHandle
from overnight.ledger import Ledger, write
from tests.overnight.samples import AT, BATCH_ID, batch, full_run, plan, planner, run, task

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path, BATCH_ID)
    made.open_new(batch(), "{}", AT)
    return made


def refusal(ledger: Ledger) -> BadInput:
    with pytest.raises(BadInput) as refused:
        ledger.reopen()
    return refused.value


class TestBatch:
    def test_what_was_asked_comes_back(self, ledger: Ledger) -> None:
        assert Ledger(ledger.state, BATCH_ID).reopen() == (batch(), AT)
        assert (ledger.directory / "lock.json").read_text() == "{}"

    def test_only_its_owner_may_look(self, ledger: Ledger) -> None:
        paths = [ledger.directory, ledger.directory / "batch.json", ledger.run_dir("x")]
        assert [path.stat().st_mode & 0o077 for path in paths] == [0, 0, 0]

    def test_a_state_directory_that_cannot_be_written_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(BadInput, match="--state: cannot be written: Not a directory"):
            Ledger(tmp_path / "file", BATCH_ID).open_new(batch(), "{}", AT)

    def test_an_id_is_never_used_twice(self, ledger: Ledger) -> None:
        with pytest.raises(BadInput, match="File exists"):
            Ledger(ledger.state, BATCH_ID).open_new(batch(), "{}", AT)

    def test_a_part_whose_flow_was_killed_before_it_wrote_anything_is_begun_again(self, tmp_path: Path) -> None:
        part = Ledger(tmp_path, BATCH_ID, "a")
        part.directory.mkdir(parents=True)
        part.open_new(batch(), "{}", AT)
        assert Ledger(tmp_path, BATCH_ID, "a").reopen() == (batch(), AT)

    def test_an_unknown_batch_is_refused_with_near_ones(self, ledger: Ledger) -> None:
        error = refusal(Ledger(ledger.state, BATCH_ID[:-1] + "3"))
        assert (error.where, error.field) == (str(ledger.state), "--resume")
        assert error.mend == f"Did you mean {BATCH_ID}?"
        assert refusal(Ledger(ledger.state / "none", "x")).mend == "Known: none"

    def test_a_batch_whose_record_was_never_written_is_refused(self, ledger: Ledger) -> None:
        (ledger.directory / "batch.json").unlink()
        assert refusal(ledger).problem == "cannot be read: No such file or directory"

    @pytest.mark.parametrize("text", ["{", "{}", "[]", '{"spec": {}, "started_at": "x"}', "\xff"])
    def test_a_record_that_does_not_read_is_refused(self, ledger: Ledger, text: str) -> None:
        path = ledger.directory / "batch.json"
        path.write_bytes(text.encode("latin-1"))
        error = refusal(ledger)
        assert (error.where, error.field) == (str(path), "file")
        assert error.problem.startswith("does not fit: ")

    @pytest.mark.parametrize("batch_id", ["", ".", "..", "../batches", "a/b", "/etc", "a\0b"])
    def test_an_id_cannot_lead_out_of_the_state_directory(self, ledger: Ledger, batch_id: str) -> None:
        (ledger.state / "batch.json").write_bytes((ledger.directory / "batch.json").read_bytes())
        assert refusal(Ledger(ledger.state, batch_id)).field == "--resume"


class TestHeld:
    def test_a_second_controller_is_refused(self, ledger: Ledger) -> None:
        other = Ledger(ledger.state, BATCH_ID)
        with ledger.held(), pytest.raises(BadInput, match="is being run by another process"), other.held():
            pass
        with other.held():
            pass

    def test_one_who_only_looks_is_waited_for(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        with (ledger.directory / "controller.lock").open("a") as looking:
            fcntl.flock(looking, fcntl.LOCK_SH)
            monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
            with ledger.held():
                assert past.is_held(ledger)

    def test_a_killed_controller_holds_nothing(self, ledger: Ledger) -> None:
        code = (
            "import pathlib, sys; from overnight.ledger import Ledger\n"
            "with Ledger(pathlib.Path(sys.argv[1]), sys.argv[2]).held():\n"
            "    print('held', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(ledger.state), BATCH_ID]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(BadInput), ledger.held():
                pass
            holder.kill()
        with ledger.held():
            pass


class TestAttempts:
    def test_they_come_in_the_order_of_their_numbers(self, ledger: Ledger) -> None:
        for attempt in (10, 9, 1, 2):
            ledger.save(f"{BATCH_ID}.shout.{attempt}", "outcome", run(attempt=attempt))
        assert [found.attempt for found in ledger.attempts("shout")] == [1, 2, 9, 10]

    def test_a_task_whose_id_begins_another_s_is_not_confused_with_it(self, ledger: Ledger) -> None:
        ids = ["a", "a.1", "a.1.1", "1", "a-1", "axb", "a.b"]
        spec = batch(*(task(id=name) for name in ids))
        for wanted in spec.tasks:
            for attempt in (1, 11):
                planned = planner(spec).resolve(wanted, attempt, None)
                made = run(task_id=wanted.id, run_id=planned.run_id, attempt=attempt)
                ledger.save(planned.run_id, "outcome", made)
        for name in ids:
            assert [(r.task_id, r.attempt) for r in ledger.attempts(name)] == [(name, 1), (name, 11)]
        assert ledger.attempts("a.") == ledger.attempts("none") == []

    def test_an_attempt_that_is_not_decided_does_not_count(self, ledger: Ledger) -> None:
        ledger.save(f"{BATCH_ID}.shout.1", "plan", plan().shown())
        assert ledger.attempts("shout") == []

    def test_a_task_lives_from_its_handle_to_its_outcome(self, ledger: Ledger) -> None:
        for run_id in (f"{BATCH_ID}.a.b.1", f"{BATCH_ID}.a.b.2", f"{BATCH_ID}.done.1"):
            ledger.save(run_id, "handle", {})
        ledger.save(f"{BATCH_ID}.planned.1", "plan", {})
        ledger.save(f"{BATCH_ID}.a.b.1", "outcome", {})
        ledger.save(f"{BATCH_ID}.done.1", "outcome", {})
        assert ledger.living() == {"a.b"}


class TestRecords:
    def test_they_come_back_as_they_were(self, ledger: Ledger) -> None:
        made = full_run()
        handle = RunHandle(run_id="r", host="box", run_dir="/r", work_dir="/r/w", base_sha="a" * 40, started_at=AT)
        ledger.save("r", "outcome", made)
        ledger.save("r", "handle", handle)
        ledger.save("r", "plan", plan().shown())
        assert (ledger.outcome("r"), ledger.handle("r")) == (made, handle)
        assert json.loads((ledger.run_dir("r") / "plan.json").read_text()) == plan().shown()

    def test_what_is_not_there_is_none(self, ledger: Ledger) -> None:
        assert (ledger.outcome("none"), ledger.handle("none")) == (None, None)
        assert not (ledger.directory / "runs" / "none").exists()

    def test_a_crash_before_the_rename_leaves_the_old_record(self, tmp_path: Path) -> None:
        path = tmp_path / "outcome.json"
        write(path, "old")
        code = (
            "import os, pathlib, signal, sys\n"
            "from overnight import ledger\n"
            "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "ledger.write(pathlib.Path(sys.argv[1]), 'new' * 100000)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        assert path.read_text() == "old"
        write(path, "newest")
        assert path.read_text() == "newest"


class TestLog:
    def lines(self, ledger: Ledger) -> list[str]:
        return (ledger.run_dir("r") / "events.jsonl").read_text(encoding="utf-8").splitlines()

    def test_it_only_grows_by_whole_lines(self, ledger: Ledger) -> None:
        ledger.log("r", AT, "dispatched", host="box", run_dir="", at_s=0.0, missing=None)
        ledger.log("r", AT, "agent", said="größer")
        assert [json.loads(line) for line in self.lines(ledger)] == [
            {"at": "2026-11-22T21:00:00.000+00:00", "event": "dispatched", "host": "box", "at_s": 0.0},
            {"at": "2026-11-22T21:00:00.000+00:00", "event": "agent", "said": "größer"},
        ]

    def test_a_torn_last_line_spoils_no_other(self, ledger: Ledger) -> None:
        ledger.log("r", AT, "first")
        with (ledger.run_dir("r") / "events.jsonl").open("ab") as file:
            file.write(b'{"at": "2026-11-22T21:00:00.000+00:00", "event": "gr' + "ö".encode()[:1])
        ledger.log("r", AT, "after the crash")
        content = (ledger.run_dir("r") / "events.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["event"] for line in (content[0], content[2])] == ["first", "after the crash"]
        assert len(content) == 3

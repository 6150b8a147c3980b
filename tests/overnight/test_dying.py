"""Killed at every write of its records, one after the other, a night ends as if it never was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from overnight.ledger import Ledger
from overnight.report import RunReport
from tests.flows.world import ROOT
from tests.overnight.dying import DIED
from tests.overnight.nights import COMMIT, Evening, git, script

MOST, NEVER = 80, 10**6


class Dying:
    """Controllers of one batch of one task, each of which dies at a write of its own."""

    def __init__(self, evening: Evening, batch_id: str) -> None:
        self.evening = evening
        self.ledger = Ledger(evening.directory / "state", batch_id)
        self.marks = evening.directory / f"marks-{batch_id}"
        self.given = {
            "batch_id": batch_id,
            "directory": str(evening.directory),
            "host": evening.host.model_dump(mode="json", exclude_defaults=True),
            "repo": evening.repo,
            "lock": str(evening.lock),
            "instruction": script(f'{{"sh": "echo x >> {self.marks}"}}', f'{{"sh": "{COMMIT}"}}', '{"say": "Done."}'),
        }

    def dies(self, number: int) -> bool:
        """Carry the batch out, or go on with it; whether that died at this write."""
        argv = [sys.executable, "-m", "tests.overnight.dying", json.dumps(self.given), str(number)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, DIED), done.stderr
        return done.returncode == DIED

    def outcome(self) -> RunReport | None:
        return self.ledger.outcome(f"{self.ledger.batch_id}.t.1")

    def ended_as_if_it_never_was(self) -> None:
        run = self.outcome()
        assert run is not None
        assert (run.state, len(run.commits)) == ("succeeded", 1)
        assert self.marks.read_text() == "x\n", "the agent was started once"
        branch = f"main..overnight/{self.ledger.batch_id}/t"
        assert git(Path(self.evening.repo), "log", "--format=%s", branch) == "Add greeting"
        [run_dir] = (self.ledger.directory / "runs").iterdir()
        records = {path.name for path in run_dir.iterdir()}
        assert records >= {"plan.json", "handle.json", "outcome.json", "events.jsonl", "out", "err"}


@pytest.mark.full
def test_a_controller_killed_at_any_of_its_writes_repeats_nothing_and_loses_nothing(evening: Evening) -> None:
    for number in range(1, MOST):
        night = Dying(evening, f"fresh{number}")
        died = night.dies(number)
        if died:
            assert not night.dies(NEVER)
        night.ended_as_if_it_never_was()
        if not died:
            break
    assert not died, "there is an end to its writes"
    assert number > 10, "it was killed at more than a few"


@pytest.mark.full
def test_killed_again_and_again_on_the_way_it_decides_once(evening: Evening) -> None:
    night, decided = Dying(evening, "again"), []
    for number in range(1, MOST):
        died = night.dies(number)
        decided += [run for run in [night.outcome()] if run is not None]
        if not died:
            break
    assert not died
    assert number > 5
    assert all(run == decided[0] for run in decided), "what is decided stays as it was decided"
    night.ended_as_if_it_never_was()

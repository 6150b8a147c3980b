"""A whole night in two minutes: what was planted is what the morning tells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.rehearse_night import NIGHT
from overnight.clock import VARIABLE, Clock
from tests.flows.world import Done, finished, heed_signals

pytestmark = pytest.mark.full


def rehearse(home: Path, *args: str) -> Done:
    home.mkdir(exist_ok=True)
    program = str(Path(sys.executable).with_name("overnight"))
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    return finished(
        subprocess.Popen(
            [program, "rehearse", *args],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_signals,
        )
    )


def test_every_planted_trouble_is_told_and_nothing_else(tmp_path: Path) -> None:
    done = rehearse(tmp_path / "home", "--night")
    assert done.code == 0, done.out + done.err
    told = dict(re.findall(r"^(\S+) .*\b(as planted|WRONG) *$", done.out, re.MULTILINE))
    assert told == {planted.id: "as planted" for planted in NIGHT}
    assert "It partly works" in done.out
    [breakers] = tmp_path.glob("home/.local/state/overnight/**/breakers.json")
    assert "rehearsals" in breakers.parts, "what a fast clock wrote must not hold for a real night"


def test_it_brings_its_own_tasks(tmp_path: Path) -> None:
    done = rehearse(tmp_path / "home", "--night", "tonight.yaml")
    assert (done.code, "brings its own tasks" in done.err) == (2, True)


def test_a_fast_clock_is_read_from_what_it_writes() -> None:
    clock = Clock(300.0, 1_800_000_000.0)
    assert Clock.of({VARIABLE: str(clock)}) == clock
    assert Clock.of({}) == Clock()
    assert clock.until(clock.now() + 300) == pytest.approx(1, abs=0.5)

"""Whole schedules, really played: one in which all holds, and one that is spoilt before it is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.invariants import INVARIANTS
from tests.chaos.lanes import OWN, ROOT, refused

pytestmark = pytest.mark.full
SEED = 3  # a host frozen, an sshd killed, a link cut: every agent comes to its own end
_SPOILT = """
import json, subprocess, sys, time
from pathlib import Path
from tests.chaos import lane
from tests.overnight.nights import KEY, git
look = lane.look

def spoilt(here, played):
    runs = [here.batch_folder / "runs" / path.stem for path in sorted(here.side.glob("*.t*.out"))]
    run, other = runs[:2]
    with (other / "out").open("ab") as file:
        file.write(b"x")
    (run / "note").write_text(f"Bearer {KEY}")
    (here.side / f"{run.name}.notes").open("a").write(json.dumps({"what": "start", "at": 0, "boot": "b"}) + "\\n")
    git(here.repo, "update-ref", "refs/overnight/stray/head", "main")
    (run / "outcome.json").unlink()
    for ref in git(here.repo, "for-each-ref", "--format=%(refname)", "refs/overnight", "refs/heads/overnight").split():
        git(here.repo, "update-ref", "-d", ref)
    report = here.batch_folder / "report.json"
    told = json.loads(report.read_text())
    told["counts"]["succeeded"] += 1
    report.write_text(json.dumps(told))
    machine = here.machines["h1"]
    inside = ["nsenter", "--pid", "--target", str(machine.processes()[0]), "setsid", "sleep", "300"]
    before = len(machine.processes())
    subprocess.Popen(inside)
    while len(machine.processes()) == before:
        time.sleep(0.1)
    return look(here, played)

lane.look = spoilt
lane._loopback_up()
print(json.dumps(lane.one(int(sys.argv[1]), Path(sys.argv[2]), None)))
"""


@pytest.fixture(autouse=True)
def _can_run() -> None:
    if why := refused():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)


def test_a_schedule_is_played_and_everything_holds(tmp_path: Path) -> None:
    words = ["--seed", str(SEED), "--count", "1", "--json", "--keep", str(tmp_path / "kept")]
    argv = [sys.executable, "-m", "tests.chaos", *words]
    done = subprocess.run(argv, cwd=ROOT, env=_env(tmp_path), capture_output=True, text=True, timeout=300, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["broken"]) == (0, []), done.stderr
    assert set(told["schedules"][0]["breaches"]) == set(INVARIANTS)
    assert not list(tmp_path.glob("overnight-chaos-*"))


def test_what_is_spoilt_is_named_invariant_by_invariant(tmp_path: Path) -> None:
    argv = [*OWN, sys.executable, "-c", _SPOILT, str(SEED), str(tmp_path / "spoilt")]
    done = subprocess.run(argv, cwd=ROOT, env=_env(tmp_path), capture_output=True, text=True, timeout=300, check=False)
    found: dict[str, Any] = json.loads(done.stdout)["breaches"]
    assert set(found) == {name for name, words in found.items() if words}, done.stderr
    assert any("sleep 300" in words for words in found["leftovers"])
    assert (tmp_path / "spoilt" / "kept" / "h1").is_dir()


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--count", "2", "--lanes", "2"]
    with subprocess.Popen(argv, cwd=ROOT, env=_env(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("overnight-chaos-*/lane*/*/h3/boot_id")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "everything that was started is gone" in said
    assert not [line for line in _processes() if str(tmp_path) in line]
    assert not list(tmp_path.glob("overnight-chaos-*"))


def _env(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(folder), "HOME": str(folder)}


def _processes() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()

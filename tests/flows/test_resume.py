"""A controller that is killed at any moment costs nothing: every run starts once and is decided once."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.private_server import private_server
from tests.flows.small import Small, small
from tests.overnight.nights import script

pytestmark = pytest.mark.full
KILLS, FASTEST_S, SLOWEST_S = 5, 1.2, 4.0


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Small]:
    with small(tmp_path, slots=2) as made, private_server(made.state, os.environ):
        yield made


@pytest.mark.parametrize("seed", [20261122])
def test_a_batch_that_is_killed_again_and_again_ends_as_if_it_never_was(here: Small, seed: int) -> None:
    marks = here.directory / "marks"
    marks.mkdir()
    names = [f"t{number}" for number in range(6)]
    tasks = [{"id": name, "instruction": _work(marks, name), "verify": f"test -s {name}.txt"} for name in names]
    idle = {"id": "idle", "instruction": script(f'{{"sh": "echo x >> {marks}/idle"}}')}
    waits = random.Random(seed)
    process = here.start(here.batch("killed", [*tasks, idle]))
    batch_id = here.found("batches/killed-*/batch.json").parent.name
    for _ in range(KILLS):
        try:
            process.communicate(timeout=waits.uniform(FASTEST_S, SLOWEST_S))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        process = here.start("--resume", batch_id)
    process.communicate(timeout=120)
    path = here.directory / "report.json"
    assert here.run("--resume", batch_id, "--json", path).code == 1
    runs = {run["task_id"]: (run["state"], run["attempt"]) for run in json.loads(path.read_text())["runs"]}
    assert runs == {**dict.fromkeys(names, ("succeeded", 1)), "idle": ("failed", 1)}
    assert {mark.name: mark.read_text() for mark in marks.iterdir()} == dict.fromkeys([*names, "idle"], "x\n")
    for name in names:
        assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/{name}") == name


def _work(marks: Path, name: str) -> str:
    commit = f"echo {name} > {name}.txt && git add -A && git commit -qm {name}"
    return script(f'{{"sh": "echo x >> {marks}/{name}"}}', '{"sleep": 0.7}', f'{{"sh": "{commit}"}}')

"""`overnight cancel`: a batch or one task of it, whether somebody carries it out or nobody does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.private_server import private_server
from tests.flows.rounds import COMMITS, overnight, waits_for
from tests.flows.small import Small, small
from tests.flows.world import Done, finished
from tests.overnight.nights import COMMIT, script
from tests.sshd import wait_until

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world"), slots=2) as made, private_server(made.state, os.environ):
        yield made


def commits_then_waits(here: Small, name: str) -> str:
    """A commit, then a wait that only a file of that name ends."""
    door = f"while [ ! -e {here.directory / name} ]; do sleep 0.1; done"
    return script(f'{{"sh": "{COMMIT}"}}', f'{{"sh": "{door}"}}')


def begun(here: Small, name: str, *tasks: dict[str, Any]) -> tuple[subprocess.Popen[str], str, Path]:
    """A living batch whose first task has made its commit."""
    path = here.directory / f"{name}.json"
    process = here.start(here.batch(name, tasks), "--json", path)
    first = here.found(f"batches/{name}-*/runs/*.{tasks[0]['id']}.1/handle.json")
    run_dir = Path(json.loads(first.read_text())["run_dir"])
    wait_until((run_dir / "work" / "greeting.txt").exists, 60)
    return process, first.parents[2].name, path


def cancelled(here: Small, *args: str, **env: str) -> Done:
    return overnight(here, "cancel", *args, **env)


def runs(path: Path) -> dict[str, dict[str, Any]]:
    return {run["task_id"]: run for run in json.loads(path.read_text())["runs"]}


def alive(run_id: str) -> list[int]:
    return [
        p.pid for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("OVERNIGHT_RUN_ID") == run_id
    ]


def test_one_task_of_a_batch_that_somebody_runs_is_ended_and_the_others_go_on(here: Small) -> None:
    tasks = [
        {"id": "long", "instruction": commits_then_waits(here, "never-long")},
        {"id": "other", "instruction": waits_for(here, "other")},
        {"id": "queued", "instruction": COMMITS},
    ]
    process, batch_id, path = begun(here, "one", *tasks)
    queued = cancelled(here, batch_id, "queued")
    assert (queued.code, queued.out) == (0, "queued: had not begun, and will not\n"), queued.err
    done = cancelled(here, batch_id, "long")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{batch_id}.long.1: cancelled, 1 commit")
    assert alive(f"{batch_id}.long.1") == []
    assert alive(f"{batch_id}.other.1") != []
    (here.directory / "other").touch()
    assert finished(process).code == 1
    seen = runs(path)
    assert {name: (run["state"], run["run_id"]) for name, run in seen.items()} == {
        "long": ("cancelled", f"{batch_id}.long.1"),
        "other": ("succeeded", f"{batch_id}.other.1"),
        "queued": ("cancelled", ""),
    }
    assert any("asked for its end at" in each["seen"] for each in seen["long"]["failure"]["evidence"])
    assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/long") == "Add greeting"
    assert here.run("--resume", batch_id).code == 1
    assert not list(here.runs.glob(f"{batch_id}.queued.*")), "what was asked of a task is asked of a later start, too"


def test_a_batch_that_somebody_runs_is_ended_by_its_own_controller(here: Small) -> None:
    process, batch_id, path = begun(here, "whole", {"id": "a", "instruction": commits_then_waits(here, "never-whole")})
    done = cancelled(here, "whole-")
    assert (done.code, done.out.split(",")[0]) == (0, f"{batch_id}.a.1: cancelled"), done.err
    assert finished(process).code == 130
    assert runs(path)["a"]["failure"]["kind"] == "cancelled"
    assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/a") == "Add greeting"
    assert not (here.state / "batches" / batch_id / "cancel.json").exists(), "a later start is a new wish"


def test_one_task_that_nobody_follows_any_more_is_ended_here(here: Small) -> None:
    tasks = [
        {"id": "a", "instruction": commits_then_waits(here, "never-a")},
        {"id": "b", "instruction": waits_for(here, "let-b")},
    ]
    process, batch_id, _ = begun(here, "orphaned", *tasks)
    here.found(f"batches/{batch_id}/runs/*.b.1/handle.json")
    process.kill()
    process.communicate()
    done = cancelled(here, batch_id, f"{batch_id}.a.1")
    assert (done.code, done.out.split(",")[0]) == (0, f"{batch_id}.a.1: cancelled"), done.err
    assert alive(f"{batch_id}.a.1") == []
    assert alive(f"{batch_id}.b.1") != []
    assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/a") == "Add greeting"
    (here.directory / "let-b").touch()
    again = here.run("--resume", batch_id, "--json", here.directory / "again.json")
    assert again.code == 1, again.err
    assert runs(here.directory / "again.json")["b"]["state"] == "succeeded"


def test_without_its_key_a_run_is_ended_all_the_same_and_named(here: Small) -> None:
    process, batch_id, _ = begun(here, "keyless", {"id": "a", "instruction": commits_then_waits(here, "never-keyless")})
    process.kill()
    process.communicate()
    done = cancelled(here, batch_id, "a", OVERNIGHT_KEY_REHEARSAL="")
    assert done.code == 1
    assert "undecided" in done.out
    assert "it was ended" in done.err
    assert alive(f"{batch_id}.a.1") == []
    assert cancelled(here, batch_id).code == 0
    assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/a") == "Add greeting"


@pytest.mark.parametrize(("args", "words"), [(("nonsense",), "BATCH_ID"), (("one-", "nonsense"), "TASK")])
def test_what_nobody_knows_is_refused(here: Small, args: tuple[str, ...], words: str) -> None:
    done = cancelled(here, *args)
    assert done.code == 2
    assert words in done.err

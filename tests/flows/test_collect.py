"""After `kill -9` of a night: what ended comes home, what runs is named, what nobody knows is not touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.private_server import private_server
from overnight.ledger import Ledger
from tests.flows.rounds import COMMITS, command, waits_for
from tests.flows.small import Small, small

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world")) as made, private_server(made.state, os.environ):
        yield made


def until(true: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def killed(here: Small, name: str, tasks: list[dict[str, Any]]) -> str:
    """The id of a batch whose controller died with every task dispatched."""
    process = here.start(here.batch(name, tasks))
    for task in tasks:
        here.found(f"batches/{name}-*/runs/*.{task['id']}.1/handle.json")
    process.kill()
    process.communicate()
    return here.found(f"batches/{name}-*/batch.json").parent.name


def collected(here: Small, *args: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = command(here, "flows.collect", *args, "--json")
    assert done.code in (0, 1), done.err
    return done.code, {line["run_id"] or line["batch_id"]: line for line in json.loads(done.out)["runs"]}


def report(here: Small, batch_id: str) -> dict[str, Any]:
    found = json.loads((here.state / "batches" / batch_id / "report.json").read_text())
    return {run["task_id"]: run for run in found["runs"]}


def test_what_ended_comes_home_and_what_runs_is_left(here: Small) -> None:
    tasks = [
        {"id": "done", "instruction": waits_for(here, "first"), "verify": "test -s greeting.txt"},
        {"id": "long", "instruction": waits_for(here, "second")},
    ]
    batch_id = killed(here, "crash", tasks)
    (here.directory / "first").touch()
    until((here.runs / f"{batch_id}.done.1" / "exit.json").exists)
    code, lines = collected(here, batch_id)
    assert code == 0
    states = {name: line["state"] for name, line in lines.items() if line["batch_id"]}
    assert states == {f"{batch_id}.done.1": "collected", f"{batch_id}.long.1": "running"}
    assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/done") == "Add greeting"
    runs = report(here, batch_id)
    assert (runs["done"]["state"], runs["done"]["verify"]["exit_code"]) == ("succeeded", 0)
    assert runs["long"]["left_running"]
    assert "left running" in (here.state / "batches" / batch_id / "report.md").read_text()

    (here.directory / "second").touch()
    until((here.runs / f"{batch_id}.long.1" / "exit.json").exists)
    (here.state / "batches" / batch_id / "runs" / f"{batch_id}.long.1" / "handle.json").unlink()  # its answer was lost
    assert collected(here)[1][f"{batch_id}.long.1"]["state"] == "collected"
    assert {name: run["state"] for name, run in report(here, batch_id).items()} == {
        "done": "succeeded",
        "long": "succeeded",
    }
    assert not any(line["batch_id"] for line in collected(here, batch_id)[1].values())
    assert len(list(here.runs.glob(f"{batch_id}.[dl]*.2"))) == 0


def test_a_task_that_never_began_is_not_begun(here: Small) -> None:
    process = here.start(here.batch("early", [{"id": "a", "instruction": waits_for(here, "never-a")}]))
    here.found("batches/early-*/runs/*.a.1/handle.json")
    process.kill()
    process.communicate()
    batch_id = here.found("batches/early-*/batch.json").parent.name
    run_id = f"{batch_id}.a.2"
    ledger = Ledger(here.state, batch_id)
    plan = json.loads((ledger.run_dir(f"{batch_id}.a.1") / "plan.json").read_text())
    ledger.save(run_id, "plan", {**plan, "run_id": run_id, "attempt": 2})
    _, lines = collected(here, batch_id)
    assert lines[run_id]["state"] == "not begun"
    assert not (here.runs / run_id).exists()
    (here.directory / "never-a").touch()
    until((here.runs / f"{batch_id}.a.1" / "exit.json").exists)


def test_a_batch_that_somebody_runs_is_left_alone(here: Small) -> None:
    process = here.start(here.batch("held", [{"id": "a", "instruction": waits_for(here, "go-on")}]))
    batch_id = here.found("batches/held-*/runs/*.a.1/handle.json").parents[2].name
    _, lines = collected(here, batch_id)
    assert lines[batch_id]["state"] == "busy"
    assert not lines.get(f"{batch_id}.a.1")
    (here.directory / "go-on").touch()
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err


def test_a_run_nobody_knows_comes_home_beside_the_branches(here: Small) -> None:
    known = here.run(here.batch("known", [{"id": "a", "instruction": COMMITS}]))
    assert known.code == 0, known.err
    lost = here.run(here.batch("forgotten", [{"id": "b", "instruction": COMMITS}]))
    assert lost.code == 0, lost.err
    folder = here.found("batches/forgotten-*/batch.json").parent
    run_id = f"{folder.name}.b.1"
    shutil.rmtree(folder)
    here.git("update-ref", "-d", f"refs/heads/overnight/{folder.name}/b")
    _, lines = collected(here)
    assert lines[run_id]["state"] == "adopted"
    assert here.git("log", "--format=%s", f"main..refs/overnight/adopted/{run_id}/head") == "Add greeting"
    assert here.git("for-each-ref", f"refs/heads/overnight/{folder.name}", "refs/heads/overnight/adopted") == ""
    assert (here.runs / run_id / "work" / "greeting.txt").exists()
    probes = [line for name, line in lines.items() if name.startswith(f"{folder.name}.probe-")]
    assert [line["state"] for line in probes] == ["unknown"]


def test_a_task_of_a_spread_batch_is_collected_where_its_worker_left_it(here: Small) -> None:
    batch_id = killed(here, "spread", [{"id": "a", "instruction": waits_for(here, "spread-go")}])
    part = here.state / "parts" / batch_id / "a"
    part.parent.mkdir(parents=True)
    (here.state / "batches" / batch_id).rename(part)
    (here.directory / "spread-go").touch()
    until((here.runs / f"{batch_id}.a.1" / "exit.json").exists)
    assert collected(here, batch_id)[1][f"{batch_id}.a.1"]["state"] == "collected"
    assert json.loads((part / "report.json").read_text())["counts"]["succeeded"] == 1


def test_without_the_key_nothing_is_copied_and_nothing_is_lost(here: Small) -> None:
    batch_id = killed(here, "keyless", [{"id": "a", "instruction": waits_for(here, "keyless-go")}])
    (here.directory / "keyless-go").touch()
    until((here.runs / f"{batch_id}.a.1" / "exit.json").exists)
    done = command(here, "flows.collect", batch_id, "--json", OVERNIGHT_KEY_REHEARSAL="")
    assert done.code == 1, done.err
    line = next(line for line in json.loads(done.out)["runs"] if line["run_id"] == f"{batch_id}.a.1")
    assert (line["state"], "key-missing" in line["words"]) == ("left", True)
    assert collected(here, batch_id)[1][f"{batch_id}.a.1"]["state"] == "collected"


def test_an_unknown_batch_is_refused(here: Small) -> None:
    done = command(here, "flows.collect", "nonsense")
    assert done.code == 2
    assert "BATCH_ID: there is no 'nonsense'" in done.err

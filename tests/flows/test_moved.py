"""Gone on with from another machine and another Prefect server: the state directory is all that it takes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.private_server import private_server
from tests.flows.small import Small, small
from tests.flows.world import Done, finished, start_batch
from tests.overnight.nights import COMMIT, script
from tests.sshd import wait_until

pytestmark = pytest.mark.full


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Small]:
    with small(tmp_path) as made:
        yield made


def resumed(here: Small, state: Path, *args: str | Path) -> Done:
    """`--resume` as somebody types it who has another state directory."""
    return finished(start_batch(["--resume", *args, "--state", state], here.env))


def test_another_place_and_another_server_go_on_where_it_was(here: Small) -> None:
    door = f"while [ ! -e {here.directory / 'go'} ]; do sleep 0.1; done"
    work = f'{{"sh": "echo x >> {here.directory / "marks"}; {door}; {COMMIT}"}}'
    with private_server(here.state, os.environ):
        process = here.start(here.batch("moved", [{"id": "a", "instruction": script(work)}]))
        batch_id = here.found("batches/moved-*/runs/*.a.1/handle.json", 180).parents[2].name
        wait_until((here.directory / "marks").exists, 60)
        process.kill()
        process.communicate()
    elsewhere = here.directory / "elsewhere"
    shutil.copytree(here.state / "batches", elsewhere / "batches")  # Prefect's database stays behind
    shutil.rmtree(here.state)

    with private_server(elsewhere, os.environ):
        here.repo.rename(here.directory / "repo-is-away")
        refused = resumed(here, elsewhere, batch_id)
        assert refused.code == 2, refused.err
        assert f"tasks.a.repo: there is no git repository {here.repo} on this machine" in refused.err
        assert "mend: Bring it to that very path" in refused.err
        assert not list((elsewhere / "batches" / batch_id).glob("runs/*/outcome.json")), "nothing was decided over it"

        (here.directory / "repo-is-away").rename(here.repo)
        (here.directory / "go").touch()
        report = here.directory / "report.json"
        done = resumed(here, elsewhere, batch_id, "--json", report)
        assert done.code == 0, done.err
    [run] = json.loads(report.read_text())["runs"]
    assert (run["state"], run["run_id"]) == ("succeeded", f"{batch_id}.a.1")
    assert (here.directory / "marks").read_text() == "x\n", "the agent was started once"
    assert here.git("log", "--format=%s", f"main..overnight/{batch_id}/a") == "Add greeting"

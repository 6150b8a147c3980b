"""Room on hosts: a dry run touches nothing, a real one keeps whatever is still needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from flows.gc import gc
from flows.private_server import private_server
from tests.flows.rounds import COMMITS, command, waits_for
from tests.flows.small import Small, small
from tests.overnight.nights import git

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world")) as made, private_server(made.state, os.environ):
        yield made


def verdicts(here: Small, *args: str) -> dict[str, str]:
    done = command(here, "flows.gc", "--json", *args)
    assert done.code == 0, done.err
    return {each["run_id"]: each["verdict"] for each in json.loads(done.out)["runs"]}


def test_what_is_decided_goes_and_what_lives_stays(here: Small) -> None:
    done = here.run(here.batch("over", [{"id": "a", "instruction": COMMITS}]))
    assert done.code == 0, done.err
    over = here.found("batches/over-*/batch.json").parent.name
    process = here.start(here.batch("alive", [{"id": "b", "instruction": waits_for(here, "go")}]))
    alive = here.found("batches/alive-*/runs/*.b.1/handle.json").parents[2].name
    process.kill()
    process.communicate()

    assert verdicts(here)[f"{over}.a.1"] == "kept"
    before = sorted(path.name for path in here.runs.iterdir())
    dry = verdicts(here, "--keep-days", "0")
    assert (dry[f"{over}.a.1"], dry[f"{alive}.b.1"]) == ("may go", "kept")
    assert sorted(path.name for path in here.runs.iterdir()) == before

    real = verdicts(here, "--keep-days", "0", "--yes")
    assert real == {run_id: "removed" if verdict == "may go" else verdict for run_id, verdict in dry.items()}
    assert [path.name for path in here.runs.iterdir()] == [f"{alive}.b.1"]
    (mirror,) = (here.directory / "host" / "mirrors").iterdir()
    assert git(mirror, "for-each-ref", "--format=%(refname:lstrip=3)") == f"{alive}.b.1"
    assert here.git("log", "--format=%s", f"main..overnight/{over}/a") == "Add greeting"

    (here.directory / "go").touch()
    assert here.run("--resume", alive).code == 0


def test_words_for_a_person(here: Small) -> None:
    done = command(here, "flows.gc")
    assert done.code == 0, done.err
    assert "box: " in done.out
    assert "younger than 14 days" in done.out


def test_a_negative_age_is_refused(here: Small) -> None:
    assert command(here, "flows.gc", "--keep-days", "-1").code == 2


async def test_the_flow_run_has_a_table(here: Small, prefect_api: None) -> None:
    state: Any = await gc(state=str(here.state), return_state=True)
    assert state.name == "Completed"
    assert state.message.startswith("box: ")
    async with get_client() as client:
        artifact = next(each for each in await client.read_latest_artifacts() if each.key == "gc")
    assert {row["verdict"] for row in json.loads(str(artifact.data))} == {"kept"}

"""What the command does when it is interrupted, asked to end, unheard or without its server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.private_server import private_server
from tests.flows.small import Small, small
from tests.flows.world import finished
from tests.overnight.nights import COMMIT, script
from tests.sshd import wait_until

pytestmark = pytest.mark.full
COMMITS = script(f'{{"sh": "{COMMIT}"}}')
LONG = script('{"say": "on it"}', '{"sleep": 10}', f'{{"sh": "{COMMIT}"}}')


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """A small world whose private server is kept by the test, so that every batch finds it."""
    with small(tmp_path_factory.mktemp("world")) as made, private_server(made.state, os.environ):
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Small]:
    with small(tmp_path) as made:
        yield made


def report(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_asked_to_end_leaves_the_runs_and_says_so(here: Small, number: signal.Signals) -> None:
    name = number.name.lower()
    process = here.start(here.batch(name, [{"id": "a", "instruction": LONG}]))
    left = here.found(f"batches/{name}-*/runs/*.a.1/handle.json").parents[2]
    process.send_signal(number)
    done = finished(process)
    assert done.code == 130, done.err
    assert "left running on box" in done.out
    assert "Traceback" not in done.err
    assert here.run("--resume", left.name).code == 0


def test_a_third_interrupt_gives_up_at_once(here: Small) -> None:
    process = here.start(here.batch("third", [{"id": "a", "instruction": LONG}]), "--on-interrupt", "detach")
    batch = here.found("batches/third-*/runs/*.a.1/handle.json").parents[2]
    for word in ("", "leaving the runs", "ending the runs"):
        while word and process.stderr is not None and word not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
    done = finished(process, 30)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    again = here.run("--resume", batch.name)
    assert again.code in (0, 1), again.err


def test_an_interrupt_while_a_check_runs_leaves_the_check(here: Small) -> None:
    task = {"id": "a", "instruction": COMMITS, "verify": "sleep 8"}
    process = here.start(here.batch("checked", [task]))
    batch = here.found("batches/checked-*/runs/*.a.1/verify/out").parents[3]
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert done.code == 130, done.err
    assert "left running on box" in done.out
    assert here.run("--resume", batch.name).code == 0


@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(head -n 1 >/dev/null)"])
def test_nobody_needs_to_hear_it(here: Small, where: str) -> None:
    process = here.start(here.batch("unheard", [{"id": "a", "instruction": COMMITS}]))
    argv = process.args
    process.kill()
    process.communicate()
    assert isinstance(argv, list)
    line = ["bash", "-c", f'exec "$@" {where}', "bash", *argv]
    done = subprocess.run(
        line, env=here.env, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "unheard: 1 succeeded" in done.stdout


def test_a_prefect_api_that_goes_away_costs_pages_and_nothing_else(alone: Small) -> None:
    batch = alone.batch("alone", [{"id": "a", "instruction": script('{"sleep": 2}', f'{{"sh": "{COMMIT}"}}')}])
    process = alone.start(batch, "--json", alone.directory / "alone.json", PREFECT_CLIENT_MAX_RETRIES="0")
    alone.found("batches/alone-*/runs/*.a.1/handle.json")
    for each in alone.server():
        each.kill()
    done = finished(process)
    assert done.code == 0, done.err
    assert "alone: 1 succeeded" in done.out
    assert report(alone.directory / "alone.json")["counts"]["succeeded"] == 1
    assert alone.left() == []


def test_a_prefect_api_that_is_away_for_a_while_delays_pages_and_no_run(alone: Small) -> None:
    marks = alone.directory / "marks"
    tasks = [
        {"id": name, "instruction": script(f'{{"sh": "echo {name} >> {marks}; sleep 6; {COMMIT}"}}')} for name in "ab"
    ]
    with private_server(alone.state, os.environ):
        process = alone.start(alone.batch("frozen", tasks), "--json", alone.directory / "frozen.json")
        for name in "ab":
            first = alone.found(f"batches/frozen-*/runs/*.{name}.1/handle.json", 180)
        with alone.mute_server():
            wait_until(lambda: len(list(alone.runs.glob("*.[ab].1/exit.json"))) == 2, 120)
        done = finished(process, 300)
    assert done.code == 0, done.err
    found = report(alone.directory / "frozen.json")
    assert {run["task_id"]: (run["state"], run["attempt"]) for run in found["runs"]} == {
        "a": ("succeeded", 1),
        "b": ("succeeded", 1),
    }
    assert sorted(marks.read_text().split()) == ["a", "b"], "no run was killed or repeated"
    for name in "ab":
        assert alone.git("log", "--format=%s", f"main..overnight/{first.parents[2].name}/{name}") == "Add greeting"


def test_a_server_that_does_not_let_us_in_is_named(here: Small) -> None:
    api = report(here.state / "prefect" / "server.json")["url"] + "/api"
    done = here.run(here.batch("refused", [{"id": "a", "instruction": COMMITS}]), PREFECT_API_URL=api)
    assert done.code == 2
    assert f"PREFECT_API_URL: {api} answers 401" in done.err


def test_a_report_that_could_not_be_written_is_refused_before_the_night(here: Small) -> None:
    done = here.run(here.batch("folder", [{"id": "a", "instruction": COMMITS}]), "--json", here.directory)
    assert done.code == 2
    assert "is a folder" in done.err

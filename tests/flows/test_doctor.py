"""The doctor asks what a night would ask, says what a night would say, and leaves no night behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.doctor import doctor
from flows.private_server import private_server
from tests.flows.rounds import COMMITS, command
from tests.flows.small import Small, small
from tests.flows.world import Done

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world")) as made, private_server(made.state, os.environ):
        yield made


def examined(here: Small, *files: Path, **env: str) -> tuple[Done, list[dict[str, Any]]]:
    path = here.directory / "doctor.json"
    done = command(here, "flows.doctor", *files, "--lock", here.lock, "--json", path, **env)
    return done, json.loads(path.read_text())["routes"] if done.code in (0, 1, 3) else []


def test_open_routes_are_probed_once_each_and_leave_no_batch(here: Small) -> None:
    done, routes = examined(here, here.batch("well", [{"id": name, "instruction": COMMITS} for name in ("a", "b")]))
    assert done.code == 0, done.err
    assert [(route["state"], route["harness"], route["harness_version"]) for route in routes] == [
        ("open", "scripted", "1")
    ]
    assert routes[0]["preflight_s"] > 0
    assert "scripted" in done.out
    assert "rehearsal" in done.out
    assert not list(here.state.glob("batches/*"))
    assert here.run("--resume", next(here.state.glob("doctor/batches/*")).name).code == 2


def test_a_refused_key_is_named_with_its_mend(here: Small) -> None:
    files = here.batch("refused", [{"id": "a", "instruction": COMMITS}])
    done, routes = examined(here, files, OVERNIGHT_KEY_REHEARSAL="sk-rehearsal-fake-wrong-key-0123456789")
    assert done.code == 3, done.err
    assert routes[0]["failure"]["kind"] == "auth-rejected"
    assert "auth-rejected" in done.out
    assert "mend: replace the key: overnight credentials add rehearsal" in done.out
    assert "sk-rehearsal" not in done.out + done.err


def test_one_shut_route_of_several_files(here: Small) -> None:
    well = here.batch("well", [{"id": "a", "instruction": COMMITS}])
    other = here.batch("other", [{"id": "a", "instruction": COMMITS}])
    nowhere = {"address": "127.0.0.1", "port": 1, "user": "dev", "key_file": str(here.lock), "host_key": "ssh-rsa AAAA"}
    other.write_text(json.dumps({**json.loads(other.read_text()), "hosts": {"box": nowhere}}))
    done, routes = examined(here, well, other)
    assert done.code == 1, done.err
    assert [(route["failure"] or {}).get("kind") for route in routes] == [None, "host-auth"]


def test_bad_input_is_refused_before_anything_starts(here: Small) -> None:
    done, _ = examined(here, here.directory / "none.yaml")
    assert done.code == 2
    assert "none.yaml" in done.err
    assert "Prefect" not in done.err


async def test_the_flow_run_says_what_is_open(here: Small, prefect_api: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in here.env.items():
        monkeypatch.setenv(name, value)
    files = [str(here.batch("well", [{"id": "a", "instruction": COMMITS}]))]
    given = {"files": files, "state": str(here.state), "lock": str(here.lock)}
    state: Any = await doctor(**given, return_state=True)
    assert (state.name, state.message) == ("Completed", "1 route open")
    monkeypatch.setenv("OVERNIGHT_KEY_REHEARSAL", "sk-rehearsal-fake-wrong-key-0123456789")
    shut: Any = await doctor(**given, return_state=True)
    assert shut.name == "Failed"
    assert shut.message.startswith("0 routes open, 1 shut: auth-rejected: ")

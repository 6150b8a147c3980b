"""The doctor asks what a night would ask, says what a night would say, and leaves no night behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.doctor import doctor
from flows.private_server import private_server
from overnight import layers, lockfile
from overnight.doctor.proposal import PROPOSED
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.flows.rounds import COMMITS, command
from tests.flows.small import Small, small
from tests.flows.world import ROOT, Done, heed_signals
from tests.overnight.nights import KEY, MODEL, PYTHON, loopback, make_lock
from tests.sshd import wait_until

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world")) as made, private_server(made.state, os.environ):
        yield made


def examined(here: Small, *files: Path | str, **env: str) -> tuple[Done, list[dict[str, Any]]]:
    path = here.directory / "doctor.json"
    done = command(here, "flows.doctor", *files, "--lock", here.lock, "--json", path, cwd=ROOT, **env)
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


def wrong(here: Small) -> Path:
    """The same lock with the key in the variable that sends the other header."""
    url = lockfile.load(here.lock).providers["rehearsal"].endpoints["anthropic"].url
    return make_lock(here.directory / "wrong.json", url, wrong_variable=True)


def test_the_variable_is_found_and_the_overlay_that_is_proposed_mends_it(here: Small) -> None:
    files, lock = here.batch("found", [{"id": "a", "instruction": COMMITS}]), wrong(here)
    path = here.directory / "found.json"
    done = command(here, "flows.doctor", files, "--lock", lock, "--json", path, "--record", cwd=here.directory)
    assert done.code == 3, done.err
    found = json.loads(path.read_text())
    [diagnosis], [route] = found["diagnoses"], found["routes"]
    assert (route["failure"]["kind"], diagnosis["layer"]) == ("wrong-header", "header")
    assert diagnosis["mend"]["factor"] == "header"
    assert diagnosis["mend"]["proven"]
    assert sum(bool(call["varied"]) for call in diagnosis["calls"]) <= 12
    assert "works with Authorization: Bearer" in done.out
    proposed = here.directory / PROPOSED
    overlay = json.loads(proposed.read_text())
    wiring = overlay["providers"]["rehearsal"]["harnesses"]["scripted"]
    assert wiring["provenance"]["confidence"] == "measured"
    assert diagnosis["transcript"] in wiring["provenance"]["source"]
    assert len(diagnosis["transcript"]) == 64
    mended = here.directory / "mended.json"
    mended.write_text(layers.load(lock, proposed).lock.model_dump_json(by_alias=True, exclude_none=True))
    again = command(here, "flows.doctor", files, "--lock", mended)
    assert again.code == 0, again.out
    assert KEY not in done.out + done.err + path.read_text() + proposed.read_text()


def test_only_what_is_named_is_examined(here: Small) -> None:
    files = here.batch("named", [{"id": "a", "instruction": COMMITS}])
    done, routes = examined(here, files, "--route", "box/scripted/rehearsal")
    assert (done.code, len(routes)) == (0, 1), done.err
    done, _ = examined(here, files, "--provider", "zai")
    assert done.code == 2
    assert "no route is left" in done.err
    assert "scripted on box" in done.err
    done, _ = examined(here, files, "--route", "box//rehearsal")
    assert done.code == 2
    assert "HOST/HARNESS/PROVIDER/MODEL" in done.err


def test_without_a_file_a_route_on_this_machine_can_be_named(here: Small) -> None:
    done, routes = examined(here, "--route", f"local/scripted/rehearsal/{MODEL}", PATH=f"{PYTHON}:{os.environ['PATH']}")
    assert done.code == 0, done.err
    assert [(route["host"], route["state"]) for route in routes] == [("local", "open")]


def test_without_a_file_and_without_a_saved_host_it_says_what_to_do(here: Small) -> None:
    done, _ = examined(here)
    assert done.code == 2
    assert "overnight hosts add" in done.err


def test_fix_closes_a_login_file_only_when_somebody_agrees(here: Small) -> None:
    # pytest's own folders bar the way to everybody else, and then the file's mode does not matter
    with tempfile.TemporaryDirectory() as folder, loopback(Path(folder)) as (_, spec):
        Path(folder).chmod(0o755)
        login = Path(folder) / "home" / ".claude" / ".credentials.json"
        login.parent.mkdir()
        login.write_text('{"claudeAiOauth": {"accessToken": "sk-ant-oat01-fake-fake-fake"}}')
        login.chmod(0o644)
        there = replace(here, host=spec.model_dump(mode="json", exclude_defaults=True))
        given = (there.batch("fix", [{"id": "a", "instruction": COMMITS}]), "--lock", here.lock, "--fix")
        asked = command(there, "flows.doctor", *given)
        assert asked.code == 2, asked.out  # nobody is there to be asked
        assert "Give --yes" in asked.err
        assert login.stat().st_mode & 0o777 == 0o644
        done = command(there, "flows.doctor", *given, "--yes")
        assert done.code == 0, done.err
        assert ".credentials.json: mended" in done.out
        assert login.stat().st_mode & 0o777 == 0o600
        again = command(there, "flows.doctor", *given, "--yes")
        assert "nothing was found that is safe to mend" in again.out
    assert "sk-ant-oat01" not in asked.out + done.out + done.err


def test_ctrl_c_ends_the_agents_it_asked_and_leaves_nothing(tmp_path: Path) -> None:
    with small(tmp_path) as here, EmulatedProvider([Site("mute", KEY, fault=Fault(FaultKind.HANG))]) as provider:
        lock = make_lock(tmp_path / "mute.json", provider.url("mute"), probe_s=600)
        files = here.batch("mute", [{"id": "a", "instruction": COMMITS}])
        argv = [sys.executable, "-m", "flows.doctor", files, "--lock", lock, "--state", here.state]
        with subprocess.Popen(
            list(map(str, argv)),
            env=here.env,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_signals,
        ) as process:
            here.found("doctor/batches/*/runs/*/out")
            wait_until(lambda: any(call.path == "/v1/messages" for call in provider.calls), 60)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "cancelled" in err
        assert "interrupted" in err
        wait_until(lambda: not here.left(), 60)


def test_a_cause_that_a_night_died_of_is_looked_for_by_name(tmp_path: Path) -> None:
    wrong = {"OVERNIGHT_KEY_REHEARSAL": "sk-rehearsal-fake-wrong-key-0123456789"}
    with small(tmp_path) as here, private_server(here.state, os.environ):
        files = here.batch("died", [{"id": "a", "instruction": COMMITS}])
        assert here.run(files, **wrong).code == 3
        mended, _ = examined(here, files)
        assert mended.code == 0, mended.err
        assert "not seen now: auth-rejected of rehearsal with scripted: " in mended.out
        back, _ = examined(here, files, **wrong)
        assert "THERE AGAIN: auth-rejected of rehearsal with scripted: " in back.out

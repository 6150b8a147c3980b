"""The private Prefect server: shared, guarded, gone when nobody needs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest

from flows.private_server import Door, private_server
from flows.revival import kept_up
from overnight.failures import BadInput
from tests.flows.world import heed_signals
from tests.sshd import wait_until

pytestmark = pytest.mark.full
_USER = """
import os, sys, time
from pathlib import Path
from flows.private_server import private_server
with private_server(Path(sys.argv[1]), os.environ) as server:
    print(server.url, flush=True)
    time.sleep(60)
"""


def test_the_last_user_stops_it_and_a_killed_user_does_not(tmp_path: Path) -> None:
    with private_server(tmp_path, os.environ) as first:
        other = subprocess.Popen([sys.executable, "-c", _USER, tmp_path], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        with other, other.stdout:
            assert other.stdout.readline().strip() == first.url
            with private_server(tmp_path, os.environ) as third:
                assert third.url == first.url
            assert _answers(first.url, first.auth)
            other.send_signal(signal.SIGKILL)
        assert _answers(first.url, first.auth)
        child = first.child
        assert child is not None
    assert not psutil.pid_exists(child.pid)
    assert not (tmp_path / "prefect" / "server.json").exists()


def test_it_lets_nobody_in_without_its_password(tmp_path: Path) -> None:
    with private_server(tmp_path, os.environ) as server:
        assert not _answers(server.url, "overnight:wrong")
        assert httpx.get(f"{server.api_url}/admin/version").status_code == 401
    for name in ("login", "encryption"):
        assert stat.S_IMODE((tmp_path / "prefect" / name).stat().st_mode) == 0o600


def test_a_server_that_cannot_start_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "prefect.db").write_bytes(b"no database" * 100)
    with pytest.raises(BadInput, match=r"server\.log"), private_server(tmp_path, os.environ):
        pass


def test_an_interrupt_while_it_starts_leaves_nobody(tmp_path: Path) -> None:
    record = tmp_path / "prefect" / "server.json"
    argv = [sys.executable, "-c", _USER, str(tmp_path)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, preexec_fn=heed_signals) as user:
        while not record.exists():
            assert user.poll() is None
            time.sleep(0.02)
        started = json.loads(record.read_text())["pid"]
        user.send_signal(signal.SIGINT)
    assert not psutil.pid_exists(started)
    assert not record.exists()


def test_a_flow_run_whose_controller_was_killed_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.private_server.DRAIN_S", 4.0)
    with private_server(tmp_path, os.environ) as server, server.client() as client:
        flow = client.post("/flows/", json={"name": "batch"}).json()["id"]
        run = {"flow_id": flow, "state": {"type": "RUNNING"}}
        killed, ours = (client.post("/flow_runs/", json=run).json()["id"] for _ in range(2))
        for flow_run, state in ((killed, "RUNNING"), (ours, "COMPLETED")):
            task = {"flow_run_id": flow_run, "task_key": "monitor", "dynamic_key": "1", "state": {"type": state}}
            client.post("/task_runs/", json=task).raise_for_status()
        assert server.drain(UUID(ours))
        assert not server.drain(UUID(killed))


def test_a_state_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--state"), private_server(tmp_path / "file", os.environ):
        pass


def _answers(url: str, auth: str) -> bool:
    user, _, password = auth.partition(":")
    return httpx.get(f"{url}/api/admin/version", auth=(user, password)).status_code == 200


def test_one_whose_starter_was_killed_before_it_answered_is_taken_over(tmp_path: Path) -> None:
    record = tmp_path / "prefect" / "server.json"
    argv = [sys.executable, "-c", _USER, str(tmp_path)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as starter:
        wait_until(record.exists, 60)
        starter.kill()
    first = json.loads(record.read_text())
    with private_server(tmp_path, os.environ) as server:
        assert (server.url, server.child) == (first["url"], None)
    assert not psutil.pid_exists(first["pid"])


def test_one_that_is_killed_in_the_night_comes_back_at_its_address(tmp_path: Path) -> None:
    said: list[str] = []
    with private_server(tmp_path, os.environ) as server, kept_up(server, os.environ, said.append):
        assert server.child is not None
        server.child.kill()
        wait_until(server.died)
        wait_until(server.answers, 60)
        record = json.loads((tmp_path / "prefect" / "server.json").read_text())
        assert record["url"] == server.url
        assert record["pid"] != server.child.pid
    assert not psutil.pid_exists(record["pid"])
    assert len(said) == 1


def test_a_port_that_is_taken_is_refused_when_asked_for_and_passed_over_when_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match="--port"), private_server(tmp_path, os.environ, Door(port=port)):
            pass
        with private_server(tmp_path, os.environ, Door(first=port)) as first:
            assert not first.url.endswith(f":{port}")
            assert first.door.login
    with private_server(tmp_path, os.environ) as again:
        assert again.url == first.url, "bookmarks hold"

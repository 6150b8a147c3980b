"""The private Prefect server: shared, guarded, gone when nobody needs it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from flows.private_server import private_server
from overnight.failures import BadInput

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
        assert httpx.post(f"{server.api_url}/flows/count", json={}).status_code == 401
    for name in ("login", "encryption"):
        assert stat.S_IMODE((tmp_path / "prefect" / name).stat().st_mode) == 0o600


def test_a_server_that_cannot_start_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "prefect.db").write_bytes(b"no database" * 100)
    with pytest.raises(BadInput, match=r"server\.log"), private_server(tmp_path, os.environ):
        pass


def _answers(url: str, auth: str) -> bool:
    user, _, password = auth.partition(":")
    return httpx.post(f"{url}/api/flows/count", json={}, auth=(user, password)).status_code == 200

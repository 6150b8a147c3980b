"""A Prefect server of our own, for when none is configured.

It lives in the state directory, so pages, blocks and history stay from night
to night. Several processes may use it at once; the last one to leave stops it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import httpx
import psutil

from overnight.failures import BadInput
from overnight.ledger import write

# what Prefect's client raises, and ours, when an API does not answer as it should
OutOfReach = httpx.HTTPError
START_S, STOP_S, DRAIN_S = 120.0, 20.0, 30.0

# measured with prefect 3.8.8 on 2026-11-22: the recorder's defaults (1/1/5 s) record 1,000 task runs 26 s late,
# these 2.3 s; the default lease storage forgets leases when the server restarts
_SETTINGS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}


class PrivateServer:
    """Where the running server is and how to talk to it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.child: subprocess.Popen[bytes] | None = None
        self.login_file = directory / "login"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def auth(self) -> str:
        """`user:password`, as Prefect's settings and its login page take it."""
        return _secret(self.login_file, "overnight:")

    def client(self) -> httpx.Client:
        user, _, password = self.auth.partition(":")
        return httpx.Client(base_url=self.api_url, auth=(user, password), timeout=10, trust_env=False)

    def drain(self, flow_run: UUID) -> bool:
        """Wait until every task run of a flow run is recorded, up to 30 s; states arrive late. False if one was not.

        Of no other flow run: one whose controller was killed has task runs that never end.
        """
        deadline, seen = time.monotonic() + DRAIN_S, -1
        ours = {"flow_runs": {"id": {"any_": [str(flow_run)]}}}
        with self.client() as client:
            while time.monotonic() < deadline:
                body = {**ours, "task_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}}
                unfinished = client.post("/task_runs/count", json=body).json()
                total = client.post("/task_runs/count", json=ours).json()
                if total == seen and unfinished == 0:
                    return True
                seen = total
                time.sleep(1.5)
        return False


@contextmanager
def private_server(state: Path, environ: Mapping[str, str]) -> Iterator[PrivateServer]:
    """Use the server of this state directory, starting it if nobody has.

    Every user holds a shared lock; who gets it alone at the end stops the
    server, so a killed user never stops it for the others.

    Raises:
        BadInput: the state directory cannot be written, or the server did not
            answer within 120 s; the log's place is named.
    """
    directory = state / "prefect"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        users = (directory / "users.lock").open("a")
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise BadInput(str(state), "--state", problem, "Give another --state") from error
    with users:
        with _starting(directory):
            fcntl.flock(users, fcntl.LOCK_SH)
            server = _running(directory) or _start(directory, environ)
        try:
            yield server
        finally:
            with _starting(directory):
                if _alone(users):
                    _stop(directory)
                    if server.child is not None:
                        server.child.wait(STOP_S)


@contextmanager
def _starting(directory: Path) -> Iterator[None]:
    """One process at a time decides whether to start or stop."""
    with (directory / "starting.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alone(users: IO[str]) -> bool:
    fcntl.flock(users, fcntl.LOCK_UN)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(directory: Path) -> PrivateServer | None:
    record = _record(directory)
    if record is None:
        return None
    server = PrivateServer(directory, record["url"])
    return server if _healthy(server) else None


def _record(directory: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((directory / "server.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _start(directory: Path, environ: Mapping[str, str]) -> PrivateServer:
    port = _free_port()
    server = PrivateServer(directory, f"http://127.0.0.1:{port}")
    env = {
        **{n: v for n, v in environ.items() if n in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")},
        **_SETTINGS,
        "PREFECT_HOME": str(directory),
        "PREFECT_SERVER_API_AUTH_STRING": server.auth,
        # without it the key lies in the same database as what it encrypts
        "PREFECT_SERVER_ENCRYPTION_KEY": base64.urlsafe_b64encode(
            bytes.fromhex(_secret(directory / "encryption"))
        ).decode(),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_API_AUTH_STRING": server.auth,
    }
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (directory / "server.log").open("ab") as log:
        server.child = process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True, cwd=directory
        )
    try:
        born = psutil.Process(process.pid).create_time()
        write(directory / "server.json", json.dumps({"schema": 1, "pid": process.pid, "born": born, "url": server.url}))
        _await(server, process)
    except BaseException:  # Ctrl-C too: it is in a session of its own and would stay for ever
        _stop(directory)
        process.wait(STOP_S)
        raise
    return server


def _await(server: PrivateServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if _healthy(server):
            return
        time.sleep(0.2)
    mend = f"Read {server.directory / 'server.log'}; or set PREFECT_API_URL to a server of your own"
    raise BadInput(str(server.directory), "private Prefect server", "did not start", mend)


def _stop(directory: Path) -> None:
    """End the recorded server and everything it started."""
    record = _record(directory)
    (directory / "server.json").unlink(missing_ok=True)
    if record is None:
        return
    try:
        leader = psutil.Process(record["pid"])
        if leader.create_time() != record["born"]:
            return
        tree = [*leader.children(recursive=True), leader]
    except psutil.NoSuchProcess:
        return
    leader.terminate()
    _, stubborn = psutil.wait_procs(tree, STOP_S)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, 5.0)


def _healthy(server: PrivateServer) -> bool:
    """It answers, and it is ours: another server on a reused port would refuse the password."""
    try:
        with server.client() as client:
            return client.post("/flows/count", json={}).status_code == 200
    except httpx.HTTPError:
        return False


def _secret(path: Path, before: str = "") -> str:
    """`before` and 32 random bytes as hex; made once, readable by the owner only."""
    with suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(before + secrets.token_hex(32))
    return path.read_text(encoding="ascii")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

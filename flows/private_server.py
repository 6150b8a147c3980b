"""A Prefect server of our own, for when none is configured.

It lives in the state directory, so pages, blocks and history stay from night
to night. Several processes may use it at once; the last one to leave stops it.
Nobody uses it without its password, unless `overnight up --no-login` said so.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import httpx
import psutil

from flows.processes import STOP_S, end, living
from overnight.failures import BadInput
from overnight.ledger import write

# what Prefect's client raises, and ours, when an API does not answer as it should
OutOfReach = httpx.HTTPError
START_S, DRAIN_S = 120.0, 30.0
LOOPBACK, FIRST_PORT = "127.0.0.1", 4200
_SCHEMA = 2
SETTINGS_FILE = Path(__file__).resolve().parent.parent / "deployments" / "server.env"


@dataclass(frozen=True)
class Door:
    """Where a server listens, and whether it asks for the password. Port 0 is the one it had last, else any free one.

    `first` is tried before any free port when the server never had one.
    """

    listen: str = LOOPBACK
    port: int = 0
    login: bool = True
    first: int = 0


class PrivateServer:
    """Where the running server is and how to talk to it."""

    def __init__(self, directory: Path, url: str, door: Door) -> None:
        self.directory = directory
        self.url = url
        self.door = door
        self.child: subprocess.Popen[bytes] | None = None
        self.login_file = directory / "login"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def auth(self) -> str:
        """`user:password`, as Prefect's settings and its login page take it."""
        return _secret(self.login_file, "overnight:")

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` for a program that shall use this server and no other."""
        elsewhere = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_PROFILE", "PREFECT_CLOUD_")
        return {
            **{name: value for name, value in environ.items() if not name.startswith(elsewhere)},
            "PREFECT_HOME": str(self.directory),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.auth,
            "DO_NOT_TRACK": environ.get("DO_NOT_TRACK", "1"),
        }

    def client(self) -> httpx.Client:
        """May also write: it carries the token that the server wants beside the password (CSRF).

        Raises:
            OutOfReach: the server does not answer.
        """
        name = secrets.token_hex(8)
        with self._reader() as first:
            token = first.get("/csrf-token", params={"client": name}).raise_for_status().json()["token"]
        client = self._reader()
        client.headers.update({"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": token})
        return client

    def _reader(self) -> httpx.Client:
        user, _, password = self.auth.partition(":")
        return httpx.Client(base_url=self.api_url, auth=(user, password), timeout=10, trust_env=False)

    def answers(self) -> bool:
        """It answers, and it is ours: another server on a reused port would refuse the password."""
        try:
            with self._reader() as client:
                return client.get("/admin/version").status_code == 200
        except httpx.HTTPError:
            return False

    def lives(self) -> bool:
        """Its process does, whether or not it answers in this moment."""
        record = _record(self.directory)
        return record is not None and living(record) is not None

    def died(self) -> bool:
        """Nobody stopped it, and its process is gone."""
        record = _record(self.directory)
        return record is not None and living(record) is None

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
def private_server(state: Path, environ: Mapping[str, str], door: Door | None = None) -> Iterator[PrivateServer]:
    """Use the server of this state directory, starting it if nobody has.

    Every user holds a shared lock; who gets it alone at the end stops the
    server, so a killed user never stops it for the others.

    Args:
        door: How to start it. One that runs already is used as it is: compare
            `PrivateServer.door` when that matters.

    Raises:
        BadInput: the state directory cannot be written, the port is taken, or
            the server did not answer within 120 s; the log's place is named.
    """
    directory = state / "prefect"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = directory.resolve()  # it may outlive the link by which it was found
        users = (directory / "users.lock").open("a")
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise BadInput(str(state), "--state", problem, "Give another --state") from error
    with users:
        with _starting(directory):
            fcntl.flock(users, fcntl.LOCK_SH)
            server = _standing(directory) or _start(directory, environ, door or Door())
        try:
            yield server
        finally:
            with _starting(directory):
                if _alone(users):
                    _stop(directory)
                    if server.child is not None:
                        server.child.wait(STOP_S)


def revived(server: PrivateServer, environ: Mapping[str, str]) -> PrivateServer:
    """The same server after its process died, at the same address; started by whichever user of it comes first.

    Raises:
        BadInput: it does not start.
    """
    with _starting(server.directory):
        port = httpx.URL(server.url).port or 0
        return _standing(server.directory) or _start(server.directory, environ, replace(server.door, port=port))


def put_away(directory: Path) -> bool:
    """Stop the server that a killed user left behind. False when somebody still uses it."""
    with _starting(directory), (directory / "users.lock").open("a") as users:
        if not _alone(users):
            return False
        _stop(directory)
    return True


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


def running(directory: Path) -> PrivateServer | None:
    """The server of this folder, if its process lives and answers."""
    record = _record(directory)
    if record is None or living(record) is None:
        return None
    server = PrivateServer(directory, record["url"], Door(**record["door"]))
    return server if server.answers() else None


def _standing(directory: Path) -> PrivateServer | None:
    """The server of this folder, given its time to come up: whoever started it may have been killed meanwhile."""
    deadline, record = time.monotonic() + START_S, _record(directory)
    while record is not None and living(record) is not None:
        if server := running(directory):
            return server
        if time.monotonic() > deadline:
            _stop(directory)  # or nobody would know of it once another is recorded
        time.sleep(0.2)
    return None


def _record(directory: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((directory / "server.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == _SCHEMA else None


def _start(directory: Path, environ: Mapping[str, str], door: Door) -> PrivateServer:
    port = _port(directory, door)
    try:
        return _started(directory, environ, door, port)
    except BadInput:
        if door.port or _free(door.listen, port):
            raise
    return _started(directory, environ, door, _port(directory, door))  # it binds late, somebody was faster


def _started(directory: Path, environ: Mapping[str, str], door: Door, port: int) -> PrivateServer:
    anywhere = door.listen in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    host = LOOPBACK if anywhere else door.listen
    server = PrivateServer(directory, f"http://{f'[{host}]' if ':' in host else host}:{port}", door)
    env = {
        **{n: v for n, v in environ.items() if n in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")},
        **_settings(),
        "PREFECT_HOME": str(directory),
        # without it the key lies in the same database as what it encrypts
        "PREFECT_SERVER_ENCRYPTION_KEY": base64.urlsafe_b64encode(
            bytes.fromhex(_secret(directory / "encryption"))
        ).decode(),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_API_AUTH_STRING": server.auth,
    }
    if door.login:
        env["PREFECT_SERVER_API_AUTH_STRING"] = server.auth
    if anywhere:  # a browser elsewhere knows the address it came by, and we do not
        env["PREFECT_SERVER_UI_API_URL"] = "/api"
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", door.listen, "--port", str(port)]
    with (directory / "server.log").open("ab") as log:
        server.child = process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True, cwd=directory
        )
    try:
        born = psutil.Process(process.pid).create_time()
        record = {"schema": _SCHEMA, "pid": process.pid, "born": born, "url": server.url, "door": asdict(door)}
        write(directory / "server.json", json.dumps(record))
        _await(server, process)
    except BaseException:  # Ctrl-C too: it is in a session of its own and would stay for ever
        _stop(directory)
        process.wait(STOP_S)
        raise
    write(directory / "port", str(port))
    return server


def _settings() -> dict[str, str]:
    lines = SETTINGS_FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _await(server: PrivateServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if server.answers():
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
    leader = living(record)
    if leader is not None:
        end([leader])


def _secret(path: Path, before: str = "") -> str:
    """`before` and 32 random bytes as hex; made once, readable by the owner only."""
    with suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(before + secrets.token_hex(32))
    return path.read_text(encoding="ascii")


def _port(directory: Path, door: Door) -> int:
    """The wanted port; else the one of the last start, so that bookmarks hold; else one that is free.

    Raises:
        BadInput: the wanted port is taken, or the address is not one of this machine.
    """
    last = directory / "port"
    had = int(last.read_text()) if last.exists() else 0
    wanted = [door.port] if door.port else [*filter(None, (had, door.first)), 0]
    for port in wanted:
        if free := _free(door.listen, port):
            return free
    where = f"{door.listen}:{wanted[-1]}" if wanted[-1] else door.listen
    mend = "Name an address of this machine with --listen, and a free --port"
    raise BadInput("command line", "--listen, --port", f"cannot listen on {where}", mend)


def _free(listen: str, port: int) -> int:
    """The port, or any when it is 0, if a server could listen there; else 0."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    try:
        with socket.create_server((listen, port), family=family) as probe:
            number: int = probe.getsockname()[1]
            return number
    except OSError:
        return 0

"""A team's Prefect on loopback: PostgreSQL, Redis, API processes, services, workers, hosts. Without containers."""

from __future__ import annotations

import base64
import glob
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.processes import end
from overnight.rehearsal.model import Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests import sshd
from tests.flows.served import Served
from tests.flows.world import ROOT, heed_signals
from tests.overnight.nights import KEY, PYTHON, make_lock, make_repo

WAIT_S = 120.0


def needed(name: str, pattern: str) -> str:
    """A program by where Debian puts it; without it the test is skipped by name, in CI it fails."""
    found = next(iter(sorted(glob.glob(pattern), reverse=True)), None) or shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {name}")
        pytest.skip(f"no {name} on this machine")
    return found


Ask = Callable[[str], str]


@contextmanager
def postgres() -> Iterator[tuple[dict[str, str], Ask]]:
    """An empty database: what a Prefect server has to be told of it, and a way to ask it in SQL."""
    binaries = Path(needed("postgres", "/usr/lib/postgresql/*/bin/postgres")).resolve().parent
    # it refuses to be root, and the folders of pytest are closed to others
    other = "postgres" if os.getuid() == 0 else None
    rights: dict[str, Any] = {"user": other, "group": other, "extra_groups": []} if other else {}
    port, directory = sshd.free_port(), Path(tempfile.mkdtemp(prefix="overnight-postgres-"))
    with ExitStack() as leave:
        leave.callback(shutil.rmtree, directory)
        if other:
            shutil.chown(directory, other)
        password = directory / "password"
        password.write_text(secrets.token_hex(16))
        if other:
            shutil.chown(password, other)
        data = directory / "data"
        init: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "prefect",
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
            "-N",
        ]
        subprocess.run([*init, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd=directory, **rights)
        argv: list[str | Path] = [
            binaries / "postgres",
            "-D",
            data,
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        argv += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory, preexec_fn=heed_signals, **rights)
        leave.callback(finish, process)
        login = {"PGPASSWORD": password.read_text(), "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "prefect"}

        def ask(sql: str, database: str = "prefect") -> str:
            query: list[str | Path] = [binaries / "psql", "-X", "-A", "-t", "-d", database, "-c", sql]
            return subprocess.run(query, env=login, capture_output=True, check=True, text=True).stdout.strip()

        sshd.wait_until(lambda: _answers(lambda: ask("select 1", "postgres")), WAIT_S)
        ask("create database prefect", "postgres")
        told = {
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(port),
            "PREFECT_SERVER_DATABASE_USER": "prefect",
            "PREFECT_SERVER_DATABASE_NAME": "prefect",
            "PREFECT_SERVER_DATABASE_PASSWORD": password.read_text(),
        }
        yield told, ask


def _answers(ask: Callable[[], str]) -> bool:
    try:
        return bool(ask())
    except subprocess.CalledProcessError:
        return False


@contextmanager
def redis(directory: Path) -> Iterator[dict[str, str]]:
    """An empty Redis; what a Prefect server has to be told of it."""
    port = sshd.free_port()
    argv = [needed("redis-server", "/usr/bin/redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    argv += ["--save", "", "--dir", str(directory)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, preexec_fn=heed_signals)
    try:
        yield {
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(port),
            "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{port}/1",
        }
    finally:
        finish(process)


def finish(process: subprocess.Popen[Any]) -> None:
    """Stop a program of ours; PostgreSQL takes INT for a quick and TERM for a patient end."""
    process.send_signal(2)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _told(name: str) -> dict[str, str]:
    """What a file of `deployments` says, as docker compose reads it."""
    lines = (ROOT / "deployments" / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@dataclass
class Program:
    """A `prefect` command that runs on; it can die with all it started, and be started again."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    process: psutil.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "prefect", *self.argv],
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=heed_signals,
            )

    def tree(self) -> list[psutil.Process]:
        if self.process is None or not self.process.is_running():
            return []
        return [self.process, *self.process.children(recursive=True)]

    def die(self) -> None:
        """As its machine would: all at once, without a word."""
        tree = self.tree()
        for process in tree:
            process.suspend()  # so that nobody notices the death of another
        for process in tree:
            process.kill()
        psutil.wait_procs(tree, 10)

    def stop(self) -> None:
        end(self.tree())


@dataclass
class Team(Served):
    """Served, but by several processes that share nothing but PostgreSQL, Redis and the hosts."""

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    apis: list[Program] = field(default_factory=list)
    services: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    ask: Ask | None = None

    @property
    def api(self) -> tuple[str, str]:
        return self.env["PREFECT_API_URL"], self.env["PREFECT_API_AUTH_STRING"]

    def url(self, number: int) -> str:
        argv = self.apis[number].argv
        return f"http://127.0.0.1:{argv[argv.index('--port') + 1]}/api"

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        url, login = self.api
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: login}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def answers(self, number: int) -> bool:
        try:
            return httpx.get(f"{self.url(number)}/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def add_worker(self, api: int, limit: int) -> Program:
        """A worker on a machine of its own, as far as folders go: HOME, Prefect's and ours."""
        name = f"w{len(self.workers)}"
        home = self.directory / name
        home.mkdir()
        own = {"HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "XDG_STATE_HOME": str(home / "state")}
        argv: tuple[str, ...] = ("worker", "start", "--type", "process", "--pool", "overnight", "--name", name)
        argv += ("--limit", str(limit), "--install-policy", "never")
        env = {**self.env, **own, "PREFECT_API_URL": self.url(api), "PREFECT_WORKER_QUERY_SECONDS": "3"}
        worker = Program(argv, env, self.directory / f"{name}.log")
        self.workers.append(worker)
        worker.start()
        return worker

    def bootstrap(self, *args: str | Path) -> str:
        argv = [sys.executable, "-m", "deployments.bootstrap", *map(str, args)]
        done = subprocess.run(argv, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def team(
    directory: Path,
    tapes: tuple[Tape, ...],
    hosts: tuple[str, ...],
    slots: int,
    apis: int = 2,
    *,
    sshd_lines: tuple[str, ...] = (),
    **settings: str,
) -> Iterator[Team]:
    """Everything of a team but its workers: API processes, services, deployments, hosts. Nothing is left behind.

    Args:
        apis: API processes; 0 for what `overnight up` has instead, one server with SQLite.
        sshd_lines: Further lines of each host's sshd_config.
        settings: Further variables of the server.
    """
    with ExitStack() as leave:
        (directory / "home").mkdir(parents=True)
        make_repo(directory / "repo")
        provider = leave.enter_context(EmulatedProvider([Site("well", KEY)], tapes))
        boxes = {name: leave.enter_context(_host(directory / name, slots, sshd_lines)) for name in hosts}
        lock = make_lock(directory / "lock.json", provider.url("well"))
        common = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "LANG": "C.UTF-8",
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_API_AUTH_STRING": f"overnight:{secrets.token_hex(8)}",
        }
        here = Team(directory, boxes[hosts[0]], {**common, "OVERNIGHT_KEY_REHEARSAL": KEY}, provider, hosts=boxes)
        server = {**common, **_told("server.env"), **settings}
        server["PREFECT_SERVER_API_AUTH_STRING"] = common["PREFECT_API_AUTH_STRING"]
        server["PREFECT_SERVER_ENCRYPTION_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        if apis:
            database, here.ask = leave.enter_context(postgres())
            server |= {**_told("team.env"), **database, **leave.enter_context(redis(directory))}
            upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            done = subprocess.run(upgrade, env=server, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stdout + done.stderr
        leave.callback(_stop, here)
        for number in range(apis or 1):
            argv = ["server", "start", "--host", "127.0.0.1", "--port", str(sshd.free_port())]
            argv += ["--no-services"] if apis else []
            here.apis.append(Program(tuple(argv), server, directory / f"api{number}.log"))
            here.apis[-1].start()
            # one after the other: of two that meet an empty database one dies of the other's block types (3.8.8)
            sshd.wait_until(partial(here.answers, number), WAIT_S)
        here.env["PREFECT_API_URL"] = here.url(0)
        if apis:
            services = Program(("server", "services", "start"), {**server, **here.env}, directory / "services.log")
            here.services.append(services)
            services.start()
        here.bootstrap("--lock", lock)
        yield here


def _stop(here: Team) -> None:
    for program in (*here.workers, *here.services, *here.apis):
        program.stop()


@contextmanager
def _host(directory: Path, slots: int, lines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    (directory / "sshd").mkdir(parents=True)
    with sshd.serving(directory / "sshd", *lines) as box:
        yield box.described(directory / "host", PYTHON, slots)

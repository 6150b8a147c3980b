"""A team's Prefect on loopback: PostgreSQL, Redis, API processes, services, workers, hosts. Without containers."""

from __future__ import annotations

import base64
import getpass
import glob
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from dotenv import dotenv_values

from flows.processes import end
from overnight.rehearsal.model import Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests import sshd
from tests.flows.served import Served
from tests.flows.world import ROOT, heed_signals
from tests.overnight.nights import KEY, PYTHON, make_lock, make_repo

T = TypeVar("T")
WAIT_S = 120.0


def needed(name: str, pattern: str) -> str:
    """A program by where Debian puts it; without it the test is skipped by name, in CI it fails."""
    found = shutil.which(name) or next(iter(sorted(glob.glob(pattern), reverse=True)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {name}")
        pytest.skip(f"no {name} on this machine")
    return found


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """An empty database; what a Prefect server has to be told of it."""
    binaries = Path(needed("postgres", "/usr/lib/postgresql/*/bin/postgres")).parent
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
        init = [binaries / "initdb", "-D", data, "-U", "prefect", "-A", "scram-sha-256", f"--pwfile={password}", "-N"]
        subprocess.run([*init, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd=directory, **rights)
        argv = [binaries / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        argv += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory, preexec_fn=heed_signals, **rights)
        leave.callback(finish, process)
        login = {"PGPASSWORD": password.read_text(), "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "prefect"}
        ask = [binaries / "psql", "-d", "postgres", "-c"]
        sshd.wait_until(
            lambda: subprocess.run([*ask, "select 1"], env=login, capture_output=True).returncode == 0, WAIT_S
        )
        subprocess.run([*ask, "create database prefect"], env=login, check=True, capture_output=True)
        yield {
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(port),
            "PREFECT_SERVER_DATABASE_USER": "prefect",
            "PREFECT_SERVER_DATABASE_NAME": "prefect",
            "PREFECT_SERVER_DATABASE_PASSWORD": password.read_text(),
        }


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


def finish(process: subprocess.Popen[bytes]) -> None:
    """Stop a program of ours; PostgreSQL takes INT for a quick and TERM for a patient end."""
    process.send_signal(2)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def settings(*names: str) -> dict[str, str]:
    """What files of `deployments` say, as docker compose reads them."""
    found = (dotenv_values(ROOT / "deployments" / name, interpolate=False) for name in names)
    return {name: value for each in found for name, value in each.items() if value is not None}


@dataclass
class Program:
    """A `prefect` command that runs on; it can die with all it started, and be started again."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    process: psutil.Process | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "prefect", *self.argv],
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=heed_signals,
            )
        self.process = psutil.Process(started.pid)

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

    @property
    def api(self) -> tuple[str, str]:
        return self.env["PREFECT_API_URL"], self.env["PREFECT_API_AUTH_STRING"]

    def url(self, number: int) -> str:
        argv = self.apis[number].argv
        return f"http://127.0.0.1:{argv[argv.index('--port') + 1]}/api"

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
        argv = ("worker", "start", "--type", "process", "--pool", "overnight", "--name", name)
        argv += ("--limit", str(limit), "--install-policy", "never")
        env = {**self.env, **own, "PREFECT_API_URL": self.url(api)}
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
    directory: Path, tapes: tuple[Tape, ...], hosts: tuple[str, ...], slots: int, apis: int = 2
) -> Iterator[Team]:
    """Everything of a team but its workers: API processes, services, deployments, hosts. Nothing is left behind."""
    with ExitStack() as leave:
        (directory / "home").mkdir(parents=True)
        make_repo(directory / "repo")
        provider = leave.enter_context(EmulatedProvider([Site("well", KEY)], tapes))
        boxes = {name: leave.enter_context(_host(directory / name, slots)) for name in hosts}
        lock = make_lock(directory / "lock.json", provider.url("well"))
        server = {**settings("server.env", "team.env"), **leave.enter_context(postgres())}
        server |= leave.enter_context(redis(directory))
        common = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "LANG": "C.UTF-8",
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_API_AUTH_STRING": f"overnight:{secrets.token_hex(8)}",
        }
        server |= {
            **common,
            "PREFECT_SERVER_API_AUTH_STRING": common["PREFECT_API_AUTH_STRING"],
            "PREFECT_SERVER_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        done = subprocess.run(upgrade, env=server, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        here = Team(directory, boxes[hosts[0]], {**common, "OVERNIGHT_KEY_REHEARSAL": KEY}, hosts=boxes)
        leave.callback(_stop, here)
        for number in range(apis):
            argv = ("server", "start", "--no-services", "--host", "127.0.0.1", "--port", str(sshd.free_port()))
            here.apis.append(Program(argv, server, directory / f"api{number}.log"))
            here.apis[-1].start()
            sshd.wait_until(lambda: here.answers(len(here.apis) - 1), WAIT_S)
        here.env["PREFECT_API_URL"] = here.url(0)
        services = Program(("server", "services", "start"), {**server, **here.env}, directory / "services.log")
        here.services.append(services)
        services.start()
        here.bootstrap("--lock", lock)
        yield here


def _stop(here: Team) -> None:
    for program in (*here.workers, *here.services, *here.apis):
        program.stop()


@contextmanager
def _host(directory: Path, slots: int) -> Iterator[dict[str, Any]]:
    (directory / "sshd").mkdir(parents=True)
    with sshd.serving(directory / "sshd") as box:
        yield {
            "address": "127.0.0.1",
            "port": box.port,
            "user": getpass.getuser(),
            "key_file": str(box.key_file),
            "host_key": box.host_key,
            "slots": slots,
            "path": [PYTHON],
            "directory": str(directory / "host"),
        }

"""`overnight up` over a real sshd and an emulated provider: what users of the pages and of workers have."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from overnight.rehearsal.model import Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests import sshd
from tests.flows.world import heed_signals
from tests.overnight.nights import KEY, MODEL, PYTHON, git, make_lock, make_repo

T = TypeVar("T")
ROUTE = f"scripted / rehearsal / {MODEL}"


@dataclass
class Served:
    """A running server with workers, and one host to run on."""

    directory: Path
    host: dict[str, Any]
    env: dict[str, str]
    provider: EmulatedProvider

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def repo(self) -> Path:
        return self.directory / "repo"

    @property
    def runs(self) -> Path:
        """Where the host keeps its runs."""
        return Path(self.host["directory"]) / "runs"

    @property
    def api(self) -> tuple[str, str]:
        """Where the server is, and its login."""
        record = json.loads((self.state / "prefect" / "server.json").read_text())
        return f"{record['url']}/api", (self.state / "prefect" / "login").read_text()

    def overnight(self, *args: str | Path, timeout_s: float = 180) -> str:
        """A command of ours as its user types it; what it said."""
        done = subprocess.run(
            [Path(sys.executable).with_name("overnight"), *map(str, args)],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            preexec_fn=heed_signals,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def git(self, *args: str) -> str:
        return git(self.repo, *args)

    def call(self, what: Callable[[PrefectClient], Awaitable[T]]) -> T:
        """Ask the server something."""
        url, login = self.api

        async def ask() -> T:
            async with get_client() as client:
                return await what(client)

        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: login}):
            return asyncio.run(ask())

    def start(self, deployment: str, **parameters: Any) -> UUID:
        """Press the button: a flow run of a deployment with these parameters."""

        async def create(client: PrefectClient) -> UUID:
            found = await client.read_deployment_by_name(deployment)
            return (await client.create_flow_run_from_deployment(found.id, parameters=parameters)).id

        return self.call(create)

    def single(self, instruction: str, **more: Any) -> UUID:
        given = {
            "repo": str(self.repo),
            "instruction": instruction,
            "host": self.host,
            "route": ROUTE,
            "host_name": "box",
        }
        limits = {"first_event_s": None, "quiet_s": None, "total_s": 300, "grace_s": 1, "attempts": 1}
        return self.start("single/single", **{**given, "base": "main", "limits": limits, **more})

    def cancel(self, run_id: UUID) -> None:
        """Press the pages' cancel button."""
        self.call(lambda client: client.set_flow_run_state(run_id, Cancelling()))

    def run(self, run_id: UUID) -> FlowRun:
        return self.call(lambda client: client.read_flow_run(run_id))

    def until(self, run_id: UUID, true: Callable[[FlowRun], bool], timeout_s: float = 180) -> FlowRun:
        """The flow run, once it is so."""
        deadline = time.monotonic() + timeout_s
        while not true(seen := self.run(run_id)):
            state = seen.state
            assert time.monotonic() < deadline, f"still {state.name if state else None}: {state and state.message}"
            time.sleep(0.5)
        return seen

    def ended(self, run_id: UUID, timeout_s: float = 180) -> FlowRun:
        return self.until(run_id, lambda run: run.state is not None and run.state.is_final(), timeout_s)


def two_providers(path: Path, url: str) -> Path:
    """The lock with one more provider, `spare`, at `url`."""
    lock = json.loads(path.read_text())
    spare = lock["providers"]["spare"] = copy.deepcopy(lock["providers"]["rehearsal"])
    for endpoint in spare["endpoints"].values():
        endpoint["url"] = url
    path.write_text(json.dumps(lock))
    return path


@contextmanager
def served(directory: Path, tapes: tuple[Tape, ...], *options: str, slots: int = 4) -> Iterator[Served]:
    """Everything up, in an empty HOME; nothing is left behind."""
    (directory / "home").mkdir(parents=True)
    (directory / "sshd").mkdir()
    make_repo(directory / "repo")
    sites = [Site("well", KEY), Site("spare", KEY)]
    with EmulatedProvider(sites, tapes) as provider, sshd.serving(directory / "sshd") as box:
        host = box.described(directory / "host", PYTHON, slots)
        lock = two_providers(make_lock(directory / "lock.json", provider.url("well")), provider.url("spare"))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "LANG": "C.UTF-8",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "OVERNIGHT_KEY_REHEARSAL": KEY,
            "OVERNIGHT_KEY_SPARE": KEY,
        }
        here = Served(directory, host, env, provider)
        here.overnight("up", "--state", here.state, "--lock", lock, "--port", str(sshd.free_port()), *options)
        try:
            yield here
        finally:
            here.overnight("down", "--state", here.state)

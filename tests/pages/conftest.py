"""A world, `overnight up` in it, and a window on its pages; for every test of a module."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.private_server import PrivateServer, running
from overnight.rehearsal.agents import Agent
from tests.flows.world import KEYS, Done, World, heed_signals, world
from tests.pages.browser import Browser, browsing, chromium

OVERNIGHT = str(Path(sys.executable).with_name("overnight"))
WAIT_S = 120


@dataclass(frozen=True)
class Up:
    """What `overnight up` started: no key in its environment, nothing in its HOME."""

    world: World

    @property
    def state(self) -> Path:
        return self.world.directory / "up"

    def overnight(self, *words: str | Path, stdin: str = "") -> Done:
        """Any command of ours, as its user would type it."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.world.directory / "home"),
            "LANG": "C.UTF-8",
            "OVERNIGHT_LOCK": str(self.world.lock),
            "PREFECT_WORKER_QUERY_SECONDS": "1",  # workers of ours look for work every 3 s otherwise
        }
        argv = [OVERNIGHT, *map(str, words), "--state", str(self.state)]
        done = subprocess.run(
            argv,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            preexec_fn=heed_signals,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def server(self) -> PrivateServer:
        found = running(self.state / "prefect")
        assert found is not None, "the server is gone"
        return found

    def flow_runs(self) -> list[dict[str, Any]]:
        with self.server.client() as client:
            found: list[dict[str, Any]] = client.post("/flow_runs/filter", json={}).json()
        return found

    def becomes(self, run_id: str, *names: str) -> dict[str, Any]:
        """Wait until a flow run is in one of the states; the state."""
        deadline = time.monotonic() + WAIT_S
        with self.server.client() as client:
            while True:
                state: dict[str, Any] = client.get(f"/flow_runs/{run_id}").json()["state"]
                if state["name"] in names:
                    return state
                assert time.monotonic() < deadline, state
                time.sleep(0.3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What stood on the page when a test failed is half of its message."""
    report = yield
    window = item.funcargs.get("browser")
    if report.failed and isinstance(window, Browser):
        window.snap(f"failed-{item.name}")
    return report


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, real_agent: Callable[[str], Agent]) -> Iterator[World]:
    chromium()
    with world(tmp_path_factory.mktemp("pages"), real_agent("claude-code").path.parent) as made:
        yield made


@pytest.fixture(scope="module")
def up(here: World) -> Iterator[Up]:
    made = Up(here)
    try:
        started = made.overnight("up")
        assert started.code == 0, started.err
        box = here.hosts["box"]
        told = {"--key-file": box["key_file"], "--path": box["path"][0], "--directory": box["directory"]}
        told["--fingerprint"] = _fingerprint(box["host_key"])
        options = [word for pair in told.items() for word in pair]
        added = made.overnight("hosts", "add", "box", f"{box['user']}@{box['address']}:{box['port']}", *options)
        assert added.code == 0, added.err
        yield made
    finally:
        made.overnight("down")


@pytest.fixture(scope="module")
def browser(up: Up) -> Iterator[Browser]:
    with browsing(up.server.url, up.server.auth) as window:
        yield window


@pytest.fixture(scope="module")
def key(up: Up, browser: Browser) -> str:
    """The provider's key, saved on the pages."""
    fields = {"Provider": "rehearsal", "Key": KEYS["rehearsal"]}
    browser.new_block("provider-credentials", "rehearsal", fields)
    browser.shot("block-form")
    browser.ask("Save", "/block_documents/")
    browser.sees("Paste this snippet")
    browser.shot("block-saved")
    return fields["Key"]


def _fingerprint(host_key: str) -> str:
    told = subprocess.run(["ssh-keygen", "-lf", "-"], input=host_key, capture_output=True, text=True, check=True)
    return told.stdout.split()[1]

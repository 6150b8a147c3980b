"""A night small enough to be killed again and again: the scripted agent, this machine as the host, one provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.flows.world import Done, finished, start_batch
from tests.overnight.nights import KEY, MODEL, PYTHON, TAPES, git, make_lock, make_repo

LIMITS = {"total_s": 120, "first_event_s": None, "quiet_s": None, "grace_s": 0.5, "attempts": 1}


@dataclass
class Small:
    """All that a batch of scripted tasks needs, in one folder."""

    directory: Path
    lock: Path
    host: dict[str, Any]

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def repo(self) -> Path:
        return self.directory / "repo"

    @property
    def runs(self) -> Path:
        """Where the host keeps its runs."""
        return self.directory / "host" / "runs"

    @property
    def env(self) -> dict[str, str]:
        home = str(self.directory / "home")
        return {"PATH": os.environ["PATH"], "HOME": home, "LANG": "C.UTF-8", "OVERNIGHT_KEY_REHEARSAL": KEY}

    def batch(self, name: str, tasks: Sequence[dict[str, Any]]) -> Path:
        route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": MODEL}
        defaults = {"repo": str(self.repo), "base": "main", "route": route, "limits": LIMITS, "ask_for_commit": False}
        path = self.directory / f"{name}.yaml"
        whole = {"schema": 1, "name": name, "hosts": {"box": self.host}, "defaults": defaults, "tasks": tasks}
        path.write_text(json.dumps(whole))
        return path

    def start(self, *args: str | Path, **env: str) -> subprocess.Popen[str]:
        """The command a user would type, in the background."""
        return start_batch([*args, "--state", self.state, "--lock", self.lock], {**self.env, **env})

    def run(self, *args: str | Path, **env: str) -> Done:
        return finished(self.start(*args, **env))

    def found(self, pattern: str, timeout_s: float = 180) -> Path:
        """The first file of the state directory that fits, once it is there."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if seen := sorted(self.state.glob(pattern)):
                return seen[0]
            time.sleep(0.05)
        raise AssertionError(f"no {pattern}")

    def git(self, *args: str) -> str:
        return git(self.repo, *args)

    def server(self) -> list[psutil.Process]:
        """The processes of its private Prefect server."""
        started = json.loads((self.state / "prefect" / "server.json").read_text())
        server = psutil.Process(started["pid"])
        return [*server.children(recursive=True), server]

    @contextmanager
    def mute_server(self) -> Iterator[None]:
        """Its private Prefect server hears meanwhile, and answers nothing."""
        away = self.server()
        for each in away:
            each.suspend()
        try:
            yield
        finally:
            for each in away:
                each.resume()

    def left(self) -> list[list[str]]:
        """Processes that name this world's folder; nobody may be there once a batch is over."""
        mark = str(self.directory)
        seen = [(p.info["cmdline"] or [], p.info["environ"] or {}) for p in psutil.process_iter(["cmdline", "environ"])]
        return [argv for argv, env in seen if any(mark in word for word in argv) or mark in env.get("PREFECT_HOME", "")]


@contextmanager
def small(directory: Path, slots: int = 4) -> Iterator[Small]:
    (directory / "home").mkdir(parents=True)
    make_repo(directory / "repo")
    host = {"kind": "local", "slots": slots, "path": [PYTHON], "directory": str(directory / "host")}
    with EmulatedProvider([Site("well", KEY)], TAPES) as provider:
        made = Small(directory, make_lock(directory / "lock.json", provider.url("well")), host)
        try:
            yield made
        finally:
            end_runs(made)


def end_runs(here: Small) -> None:
    """End what a failed test left on the host, so that no other test meets it."""
    for path in here.runs.glob("*/started.json"):
        started = json.loads(path.read_text())
        if psutil.pid_exists(started["supervisor"]) and not path.with_name("exit.json").exists():
            os.kill(started["supervisor"], signal.SIGTERM)

"""A small world for whole nights: emulated providers, a loopback host, a real sshd, a real repository, the real CLI."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from overnight import lockfile
from overnight.lockfile import Header
from overnight.rehearsal.model import Say, Shell, Tape, Wait, Write
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from tests import sshd

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"rehearsal": "fake-key-bearer-7f3a9c", "rehearsal-x": "fake-key-header-51d0e2"}
AWKWARD = "héllo 'q' \"d\" $HOME `x` \\n\r\nend\ttab\n\n"
COUNTER = "print(list(range(3)))\n"
GREETING, COUNT = "Add the greeting file", "Write a counter in Python"
SLOW, IDLE, CARELESS = "Take your time over the haiku", "Only talk about it", "Forget to commit the draft"
NOVEL = "Write two chapters of a novel"
TAPES = (
    Tape(
        GREETING,
        (
            Write("sub/greeting.txt", AWKWARD),
            Shell("git add -A && git commit -qm 'Add greeting'"),
            Write("second.txt", "2\n"),
            Shell("git add -A && git commit -qm 'Add second'"),
            Say("Done."),
        ),
    ),
    Tape(
        COUNT, (Write("count.py", "print(list(range(3)))\n"), Shell("git add -A && git commit -qm Count"), Say("Done."))
    ),
    Tape(SLOW, (Wait(20), Write("haiku.txt", "old pond\n"), Shell("git add -A && git commit -qm Haiku"), Say("Done."))),
    Tape(
        NOVEL,
        (
            Write("one.txt", "It was night.\n"),
            Shell("git add -A && git commit -qm 'Chapter one'"),
            Wait(300),
            Write("two.txt", "It was day.\n"),
            Say("Done."),
        ),
    ),
    Tape(CARELESS, (Write("draft.txt", "a draft\n"), Say("Done: created draft.txt and committed it."))),
)
WRITTEN = {
    "sub/greeting.txt": AWKWARD,
    "second.txt": "2\n",
    "count.py": "print(list(range(3)))\n",
    "haiku.txt": "old pond\n",
}


@dataclass
class World:
    """Everything one batch needs, in one folder."""

    directory: Path
    provider: EmulatedProvider
    hosts: dict[str, dict[str, Any]]
    repo: Path
    lock: Path
    argv_seen: set[str] = field(default_factory=set)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def env(self) -> dict[str, str]:
        keys = {**KEYS, "rehearsal-incident": KEYS["rehearsal"]}
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory / "home"),
            "LANG": "C.UTF-8",
            **{f"OVERNIGHT_KEY_{name.upper().replace('-', '_')}": key for name, key in keys.items()},
        }

    def batch(self, name: str, tasks: Sequence[Mapping[str, Any]], **defaults: Any) -> Path:
        """Write a batch file; hosts and repository are filled in."""
        below = {"repo": str(self.repo), "base": "main", **defaults}
        path = self.directory / f"{name}.yaml"
        whole = {"schema": 1, "name": name, "hosts": self.hosts, "defaults": below, "tasks": tasks}
        path.write_text(json.dumps(whole))  # every JSON text is YAML
        return path

    def start(self, *args: str | Path, **env: str) -> subprocess.Popen[str]:
        """The command a user would type, in the background."""
        return start_batch([*args, "--state", self.state, "--lock", self.lock], {**self.env, **env})

    def run(self, *args: str | Path, **env: str) -> Done:
        """The same, to its end; every argv on the machine is watched meanwhile."""
        process = self.start(*args, **env)
        with self._watching_argv():
            return finished(process)

    @contextmanager
    def _watching_argv(self) -> Iterator[None]:
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.05):
                for process in psutil.process_iter(["cmdline"]):
                    self.argv_seen.update(process.info["cmdline"] or ())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def git(self, *args: str) -> bytes:
        return subprocess.run(["git", "-C", str(self.repo), *args], check=True, capture_output=True).stdout


def heed_signals() -> None:
    """A runner in the background ignores signals, and its children inherit that; a user's shell does not."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start_batch(args: Sequence[str | Path], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """`python -m flows.batch` with nothing on its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.batch", *map(str, args)],
        preexec_fn=heed_signals,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def finished(process: subprocess.Popen[str], timeout_s: float = 120) -> Done:
    """Wait for a started batch; on a time-out it is ended and the test fails with what it said."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the batch did not end\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


@contextmanager
def world(directory: Path, agents: Path, tapes: Sequence[Tape] = TAPES) -> Iterator[World]:
    """Two hosts: `loop` is asyncssh on loopback, `box` a real OpenSSH server."""
    (directory / "home").mkdir()
    (directory / "loop-home").mkdir()
    (directory / "sshd").mkdir()
    sites = [
        Site("rehearsal", KEYS["rehearsal"]),
        Site("rehearsal-x", KEYS["rehearsal-x"], accepts=frozenset({Header.X_API_KEY})),
    ]
    with ExitStack() as stack:
        provider = stack.enter_context(EmulatedProvider(sites, tapes))
        public = make_key(directory / "id_ed25519")
        loop = stack.enter_context(LoopbackHost("dev", [public], home=directory / "loop-home"))
        box = stack.enter_context(sshd.serving(directory / "sshd")).address()
        path = [str(agents)]
        hosts: dict[str, dict[str, Any]] = {
            "loop": {
                "address": loop.address,
                "port": loop.port,
                "user": "dev",
                "key_file": str(directory / "id_ed25519"),
                "host_key": loop.host_key,
                "path": path,
            },
            "box": {
                "address": box.address,
                "port": box.port,
                "user": box.user,
                "key_file": str(box.key_file),
                "host_key": box.host_key,
                "path": path,
                "directory": str(directory / "box-home"),
            },
        }
        lock = directory / "providers.lock.json"
        lock.write_text(json.dumps(rehearsal_lock(provider)))
        yield World(directory, provider, hosts, repository(directory / "app"), lock)


def rehearsal_lock(provider: EmulatedProvider) -> dict[str, Any]:
    """The real lock with the emulated addresses, and the incident's mistake beside it."""
    lock: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text())
    for name in KEYS:
        for endpoint in lock["providers"][name]["endpoints"].values():
            endpoint["url"] = provider.url(name)
    wrong = copy.deepcopy(lock["providers"]["rehearsal"])
    wiring = wrong["harnesses"]["claude-code"]
    wiring["set"]["ANTHROPIC_API_KEY"] = wiring["set"].pop("ANTHROPIC_AUTH_TOKEN")
    wiring["empty"] = {"ANTHROPIC_AUTH_TOKEN": "by analogy with another vendor"}
    lock["providers"]["rehearsal-incident"] = wrong
    return lock


def repository(path: Path) -> Path:
    path.mkdir()
    run = ["git", "-C", str(path), "-c", "user.name=You", "-c", "user.email=you@localhost"]
    subprocess.run([*run, "init", "-q", "-b", "main"], check=True)
    (path / "app.py").write_text("print('app')\n")
    subprocess.run([*run, "add", "-A"], check=True)
    subprocess.run([*run, "commit", "-qm", "Start"], check=True)
    return path

"""How long the doctor takes for a healthy set: 3 hosts x 2 agents x 3 providers, all on this machine.

    python -m tests.bench.doctor_speed [--rounds 3]

Three real sshd, the real Claude Code and Goose, three emulated providers; no
Prefect server runs before, so the whole command includes starting one. Beside
it, in the same run, what a person would do by hand: the same 18 agents asked
the same by `ssh HOST agent`, four at a time, which tells working from not
working and nothing else. About a minute.
"""

from __future__ import annotations

import argparse
import copy
import getpass
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight import keyshape, lockfile
from overnight.lockfile import Header
from overnight.rehearsal.agents import obtain
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests import sshd
from tests.overnight.nights import KEY, MODEL, make_repo

HARNESSES = ("claude-code", "goose")
PROVIDERS = ("one", "two", "three")
HOSTS = ("box-1", "box-2", "box-3")
AT_ONCE = 4
_AT = re.compile(r"^ *([0-9.]+) s  .*?  (?:doctor|host): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class World:
    """Everything a round needs, in one folder."""

    directory: Path
    lock: Path
    batch: Path
    servers: Mapping[str, sshd.Sshd]
    agents: Path
    urls: Mapping[str, str]

    @property
    def env(self) -> dict[str, str]:
        keys = {keyshape.variable(name): KEY for name in PROVIDERS}
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory / "home"), "LANG": "C.UTF-8", **keys}


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Hosts, providers, a lock that knows them, and a batch with all 18 routes."""
    (directory / "home").mkdir()
    make_repo(directory / "repo")
    agents = Path.home() / ".cache" / "overnight" / "agents"
    for harness in HARNESSES:
        obtain(harness, agents, npm=shutil.which("npm"), pip=None, environment=os.environ, progress=_quiet)
    with ExitStack() as up:
        sites = [Site(name, KEY, frozenset(Header)) for name in PROVIDERS]
        provider = up.enter_context(EmulatedProvider(sites))
        servers: dict[str, sshd.Sshd] = {}
        for host in HOSTS:
            (directory / host).mkdir()
            servers[host] = up.enter_context(sshd.serving(directory / host))
        urls = {name: provider.url(name) for name in PROVIDERS}
        lock, batch = _lock(directory, urls), _batch(directory, servers, agents / "bin")
        yield World(directory, lock, batch, servers, agents / "bin", urls)


def _quiet(_: str) -> None:
    pass


def _lock(directory: Path, urls: Mapping[str, str]) -> Path:
    lock: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
    for name, url in urls.items():
        lock["providers"][name] = copy.deepcopy(lock["providers"]["rehearsal-x"])
        lock["providers"][name]["endpoints"]["anthropic"]["url"] = url
    path = directory / "lock.json"
    path.write_text(json.dumps(lock), encoding="utf-8")
    return path


def _batch(directory: Path, servers: Mapping[str, sshd.Sshd], agents: Path) -> Path:
    routes = [(h, a, p) for h in HOSTS for a in HARNESSES for p in PROVIDERS]
    whole = {
        "name": "speed",
        "hosts": {name: one.described(directory / name / "runs", str(agents), 6) for name, one in servers.items()},
        "defaults": {"repo": str(directory / "repo"), "base": "main"},
        "tasks": [
            {
                "id": f"{host}-{harness}-{provider}",
                "instruction": "Nothing",
                "route": {"host": host, "harness": harness, "provider": provider, "model": MODEL},
            }
            for host, harness, provider in routes
        ],
    }
    path = directory / "speed.yaml"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Round:
    """Seconds: the whole command, and from the first question to the last answer; and how many routes were open."""

    whole_s: float
    asking_s: float
    opened: int


def doctor(world: World) -> Round:
    began = time.monotonic()
    argv = [sys.executable, "-m", "flows.doctor", str(world.batch), "--lock", str(world.lock)]
    argv += ["--state", str(world.directory / "state"), "--json", str(world.directory / "found.json")]
    done = subprocess.run(argv, env=world.env, capture_output=True, text=True, check=False, timeout=300)
    whole_s = time.monotonic() - began
    if done.returncode != 0:
        sys.stderr.write(done.stderr + done.stdout)
    at = [float(seconds) for seconds, _ in _AT.findall(done.stderr)]
    routes = json.loads((world.directory / "found.json").read_text(encoding="utf-8"))["routes"]
    return Round(whole_s, max(at) - min(at), sum(route["state"] == "open" for route in routes))


def by_hand(world: World) -> float:
    """The same agents, asked over one ssh connection a host, four at a time."""
    script, began = world.directory / "by_hand.sh", time.monotonic()
    lines = []
    for name, one in world.servers.items():
        control = f"-o ControlMaster=auto -o ControlPath={world.directory}/{name}.ctl -o ControlPersist=5"
        ssh = f"ssh -n -p {one.port} -i {one.key_file} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        ssh = f"{ssh} -o LogLevel=ERROR {control} {getpass.getuser()}@127.0.0.1"
        for provider in PROVIDERS:
            url, where = world.urls[provider], world.agents
            claude = (
                f"ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY={KEY} CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 "
                f"{where}/claude -p 'Reply with the single word ok.' --model {MODEL} --setting-sources=''"
            )
            goose = (
                f"GOOSE_PROVIDER=anthropic GOOSE_MODEL={MODEL} ANTHROPIC_HOST={url} ANTHROPIC_API_KEY={KEY} "
                f"GOOSE_DISABLE_KEYRING=1 {where}/goose run --no-session -t 'Reply with the single word ok.'"
            )
            lines += [f"{ssh} {shlex.quote(f'HOME={world.directory}/home {each}')}" for each in (claude, goose)]
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    argv = ["xargs", "-a", str(script), "-P", str(AT_ONCE), "-d", "\n", "-I", "{}", "sh", "-c", "{}"]
    subprocess.run(argv, env=world.env, stdout=subprocess.DEVNULL, check=True, timeout=300)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as folder, world(Path(folder)) as made:
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(doctor(made))
            theirs.append(by_hand(made))
    peer = statistics.median(theirs)
    opened = [each.opened for each in ours]
    lines = [f"18 routes, {rounds} rounds, medians, load {os.getloadavg()[0]:.1f}; open: {opened}"]
    for name, seconds in (
        ("doctor, first question to last answer", statistics.median(each.asking_s for each in ours)),
        ("doctor, whole command with Prefect's server", statistics.median(each.whole_s for each in ours)),
        (f"ssh, {AT_ONCE} at a time, by hand", peer),
    ):
        lines.append(f"{name:48} {seconds:6.1f} s   {seconds / peer:5.2f} x by hand")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()

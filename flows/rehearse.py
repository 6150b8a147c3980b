"""`overnight rehearse` without a batch: replays the incident on this machine, with no account and a real agent.

A loopback SSH host and an emulated provider are started; then the batch is run
by the very command a user would type. One route is right, one has the key in
the wrong variable, as on the day this project answers.
"""

from __future__ import annotations

import copy
import json
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from overnight import keyshape, lockfile
from overnight.failures import FailureError
from overnight.git import Repo
from overnight.harnesses import HARNESSES
from overnight.ledger import write
from overnight.lockfile import Header
from overnight.night import now
from overnight.rehearsal.agents import obtain
from overnight.report import BatchReport

PROJECT = Path(__file__).resolve().parent.parent
QUICKSTART = Path("deployments/quickstart.yaml")
INCIDENT, RIGHT = "rehearsal-incident", "rehearsal"
_VENDOR, _AGENT = "zhipu", "claude-code"
_STORY = ('export {wrong}="$ZHIPU_API_KEY"', "unset {right}")
_GREET = '''"""Says hello."""

import sys


def greet(name):
    return f"Hello, {name}!"


if __name__ == "__main__":
    print(greet(sys.argv[1] if len(sys.argv) > 1 else "world"))
'''


def rehearse(state: Path, cache: Path, harness: str, environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Run the quickstart batch in a new folder below `state`; 0 when the incident was caught and the commits are here.

    Args:
        cache: Where the agent's CLI is installed and kept.
        harness: The agent to use; `scripted` stands in when it cannot be had.
    """
    directory = state / "rehearsals" / f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    directory.mkdir(parents=True, mode=0o700)
    harness, agents = _agent(harness, cache, environ, say)
    repo = repository(directory / "greet", environ)
    with _rehearsal(directory, environ) as served:
        lock = directory / "providers.lock.json"
        urls = {name: served["sites"][name]["url"] for name in (RIGHT, INCIDENT)}
        write(lock, json.dumps(incident_lock(urls), indent=2, ensure_ascii=False))
        report_path = directory / "report.json"
        argv = [sys.executable, "-m", "flows.batch", str(QUICKSTART), "--lock", str(lock), "--state", str(state)]
        argv += ["--json", str(report_path)]
        say(f"\n$ python -m flows.batch {' '.join(argv[3:])}\n")
        env = _batch_environment(environ, served, harness, agents, repo)
        to_its_end(argv, PROJECT, env)
        if not report_path.exists():
            say("The batch wrote no report; see its words above.")
            return 1
        report = BatchReport.model_validate_json(report_path.read_text(encoding="utf-8"))
        right = _told(report, repo, say)
        found = _found(directory, harness, lock, state, env, say)
    return 0 if right and found and _read(directory, env, say) else 1


def _found(
    directory: Path, harness: str, lock: Path, state: Path, env: Mapping[str, str], say: Callable[[str], None]
) -> bool:
    """Let the doctor search for what would work on the route that is shut; whether it found the variable."""
    say("\nWhat would work on that route? The doctor varies one factor at a time:")
    found = directory / "doctor.json"
    route = f"rehearsal/{harness}/{INCIDENT}"
    argv = [sys.executable, "-m", "flows.doctor", str(QUICKSTART), "--route", route, "--lock", str(lock)]
    argv += ["--state", str(state), "--json", str(found)]
    say(f"\n$ python -m flows.doctor {' '.join(argv[3:])}\n")
    to_its_end(argv, PROJECT, env)
    if not found.exists():
        return False
    [diagnosis] = json.loads(found.read_text(encoding="utf-8"))["diagnoses"]
    return diagnosis["mend"] is not None and diagnosis["mend"]["proven"]


def _read(directory: Path, env: Mapping[str, str], say: Callable[[str], None]) -> bool:
    """Let the check of launchers read the script of the story; whether it pointed at its two lines."""
    say("\nAnd the script behind it, read without running anything:")
    (directory / "dispatch.sh").write_text(incident_script(lockfile.load()), encoding="utf-8")
    say(f"\n$ overnight lock check {directory / 'dispatch.sh'}\n")
    argv = [sys.executable, "-c", "from flows.entry import main; main()", "lock", "check", "dispatch.sh"]
    environment = {**env, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(argv, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    say(done.stdout)
    return done.returncode == 1 and done.stdout.count("dispatch.sh:") == len(_STORY)


def incident_script(lock: lockfile.ProviderLock) -> str:
    """The launcher of the story: the key in the wrong variable, the right one taken away."""
    wiring = lock.providers[_VENDOR].harnesses[_AGENT]
    [right] = wiring.key_variables
    wrong = next(name for name, header in HARNESSES[_AGENT].HEADER_OF.items() if header is Header.X_API_KEY)
    [address] = [name for name, value in wiring.set.items() if value == "{base_url}"]
    url = lock.providers[_VENDOR].endpoints[wiring.endpoint].url
    story = [line.format(right=right, wrong=wrong) for line in _STORY]
    head = ["#!/usr/bin/env bash", "set -euo pipefail", f"export {address}={url}"]
    return "\n".join([*head, *story, 'exec claude --output-format=stream-json --verbose -p "$1"', ""])


def to_its_end(argv: Sequence[str], cwd: Path, env: Mapping[str, str], *, alone: bool = False) -> int:
    """Run a batch and give its exit code; whatever ends us ends the batch first, which ends what it started.

    Args:
        alone: It gets a process group of its own and asks nobody, so that an interrupt comes to it once, from us.
            Else Ctrl-C reaches it as it reaches us.
    """
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def heard(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and not alone:
            return
        for child in children:
            child.send_signal(number)
        if not children:
            early.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for ending, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP for us
                signal.signal(ending, heard)
        child = subprocess.Popen(argv, cwd=cwd, env=dict(env), process_group=0 if alone else None)
        children.append(child)
        for number in early:
            child.send_signal(number)
        return child.wait()
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


def _agent(harness: str, cache: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> tuple[str, Path]:
    """The harness to use and the folder of its command."""
    if harness != "scripted":
        try:
            agent = obtain(
                harness,
                cache / "agents",
                npm=shutil.which("npm", path=environ.get("PATH")),
                pip=str(Path(sys.executable).with_name("pip")),
                environment=environ,
                progress=say,
            )
        except FailureError as error:
            say(f"{harness} cannot be had here: {error.failure}")
            say("The `scripted` harness stands in: our own small agent, which proves the pipeline and no real agent.")
        else:
            say(f"Agent: {harness} {agent.version} ({agent.how})")
            return harness, agent.path.parent
    return "scripted", Path(shutil.which("python3", path=environ.get("PATH")) or sys.executable).parent


def repository(path: Path, environ: Mapping[str, str]) -> Repo:
    """A small real repository with one commit on main."""
    path.mkdir()
    repo = Repo(path, environ.get("PATH", ""))
    repo.run("init", "-q", "-b", "main")
    (path / "greet.py").write_text(_GREET, encoding="utf-8")
    (path / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    repo.run("add", "-A")
    repo.run("-c", "user.name=You", "-c", "user.email=you@localhost", "commit", "-q", "-m", "Say hello")
    return repo


@contextmanager
def _rehearsal(directory: Path, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The emulated parts, up while the block runs."""
    sites = [f"--site={name},accepts=bearer" for name in (RIGHT, INCIDENT)]
    tapes = PROJECT / "deployments" / "quickstart.tapes.yaml"
    argv = [
        sys.executable,
        "-m",
        "overnight.rehearsal",
        "--directory",
        str(directory / "world"),
        f"--tapes={tapes}",
        *sites,
    ]
    with subprocess.Popen(
        argv, cwd=PROJECT, env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("opened with pipes")
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def incident_lock(urls: Mapping[str, str]) -> dict[str, Any]:
    """The project's lock with the rehearsal's real addresses, and the story's mistake beside it."""
    lock: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
    wrong = copy.deepcopy(lock["providers"][RIGHT])
    other_of = {name: _variable(name, Header.X_API_KEY) for name in wrong["harnesses"]}
    wrong["harnesses"] = {name: wiring for name, wiring in wrong["harnesses"].items() if other_of[name]}
    for name, wiring in wrong["harnesses"].items():
        right = next(v for v, text in wiring["set"].items() if "{key}" in text)
        other = other_of[name]
        wiring["set"][other] = wiring["set"].pop(right)
        wiring["absent"] = {name: why for name, why in wiring.get("absent", {}).items() if name != other}
        wiring["empty"] = {right: "by analogy with another vendor: the mistake this rehearsal replays"}
    lock["providers"][INCIDENT] = wrong
    for name in (RIGHT, INCIDENT):
        for endpoint in lock["providers"][name]["endpoints"].values():
            endpoint["url"] = urls[name]
    return lock


def _variable(harness: str, header: Header) -> str | None:
    """The variable from which this harness makes that header; None when it cannot send it."""
    return next((name for name, sends in HARNESSES[harness].HEADER_OF.items() if sends is header), None)


def _batch_environment(
    environ: Mapping[str, str], served: Mapping[str, Any], harness: str, agents: Path, repo: Repo
) -> dict[str, str]:
    host, sites = served["host"], served["sites"]
    return {
        **environ,
        "DO_NOT_TRACK": "1",  # a rehearsal talks to nobody
        "REHEARSAL_PORT": str(host["port"]),
        "REHEARSAL_KEY_FILE": host["key_file"],
        "REHEARSAL_HOST_KEY": host["host_key"],
        "REHEARSAL_AGENTS": str(agents),
        "REHEARSAL_REPO": str(repo.path),
        "REHEARSAL_HARNESS": harness,
        keyshape.variable(RIGHT): Path(sites[RIGHT]["key_file"]).read_text(encoding="ascii"),
        keyshape.variable(INCIDENT): Path(sites[INCIDENT]["key_file"]).read_text(encoding="ascii"),
    }


def _told(report: BatchReport, repo: Repo, say: Callable[[str], None]) -> bool:
    """What the rehearsal showed, and whether it went as it must."""
    shut = [route for route in report.routes if route.failure is not None]
    home = [run for run in report.runs if run.commits]
    for route in shut:
        say(f"The incident, caught before any task ran on that route, {route.preflight_s:.1f} s after preflight began.")
        say("In the story it took a day.")
    say(f"\nWhat came home, in {repo.path}:\n")
    say(repo.run("log", "--oneline", "--decorate", "--graph", "--branches", "--stat"))
    say(f"\n  git -C {repo.path} log --branches")
    right = len(home) == 2 and [route.provider for route in shut] == [INCIDENT]
    if not right:
        say("\nThis rehearsal did NOT go as it must: two tasks with commits and one route shut.")
    return right

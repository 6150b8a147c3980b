"""Starts a harness as a run would: own HOME beside the work tree, exact environment, no standard input."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from overnight.events import AgentEvent, Exited
from overnight.harnesses.protocol import Harness, Launch
from overnight.transcript import Transcript

IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Rehearsal"), ("EMAIL", "rehearsal@example.invalid"))
}


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    work: Path
    code: int
    out: bytes
    err: bytes
    events: list[AgentEvent]
    transcript: Transcript


def run(
    harness: Harness,
    launch: Launch,
    env: Mapping[str, str],
    place: Path,
    timeout_s: float = 60,
    until: Callable[[Transcript], bool] | None = None,
    *,
    sweep: bool = True,
) -> Ran:
    """Run it to its end, or until its words so far are enough; then it has no ending, as while it was running.

    Args:
        sweep: Whoever it started ends with it; else the caller sees to that.
    """
    home, work = place / "home", place / "work"
    home.mkdir(exist_ok=True)
    if not work.exists():
        work.mkdir()
        git(work, "init", "-q", "-b", "main")
        git(work, "commit", "-q", "--allow-empty", "-m", "base")
    for name, text in harness.home_files(launch).items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # files, as on a host: whoever the agent leaves behind would hold a pipe open
    with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
        process = subprocess.Popen(
            harness.argv(launch),
            cwd=work,
            env={
                "HOME": str(home),
                "PATH": os.defpath,
                "TERM": "dumb",
                "LANG": "C.UTF-8",
                **IDENTITY,
                **_placed(env, work),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        stopped = _wait(process, time.monotonic() + timeout_s, lambda: until and until(_read(harness, place)[1]), sweep)
    events, transcript = _read(harness, place)
    died = process.returncode < 0
    ending = Exited(None if died else process.returncode, -process.returncode if died else None, 1.0)
    transcript.ending = None if stopped else ending
    said, complained = (place / "out").read_bytes(), (place / "err").read_bytes()
    return Ran(work, process.returncode, said, complained, events, transcript)


def _placed(env: Mapping[str, str], work: Path) -> dict[str, str]:
    return {name: text.replace("{cwd}", str(work)) for name, text in env.items()}


def _wait(process: subprocess.Popen[bytes], deadline: float, enough: Callable[[], bool | None], sweep: bool) -> bool:
    """Whether we ended it. Raises TimeoutExpired after the deadline; it has ended in every case."""
    try:
        while True:
            try:
                process.wait(0.2)
                return False
            except subprocess.TimeoutExpired:
                if enough():
                    return True
                if time.monotonic() > deadline:
                    raise
    finally:
        if sweep or process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(harness: Harness, place: Path) -> tuple[list[AgentEvent], Transcript]:
    said, complained = (place / "out").read_bytes(), (place / "err").read_bytes()
    reader, transcript = harness.reader(), Transcript()
    events = [*reader.feed("err", complained), *reader.feed("out", said)]
    transcript.add_bytes("out", said)
    transcript.add_bytes("err", complained)
    transcript.add_events(0.0, events)
    return events, transcript


def git(work: Path, *arguments: str) -> str:
    env = {"HOME": str(work.parent / "home"), "PATH": os.defpath, **IDENTITY}
    argv = ["git", "-C", str(work), *arguments]
    return subprocess.run(argv, env=env, capture_output=True, check=True, text=True, timeout=30).stdout

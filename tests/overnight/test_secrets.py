"""No secret anywhere: argv, run directories, state, git objects, with our own agent and with the real Claude Code."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.night import Night
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.model import Shell, Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import COMMIT, KEY, TAPES, Evening, carry_out, loopback

LEAKY = Tape("Show the environment", (Shell("env | sort"), Shell(COMMIT)))


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider([Site("well", KEY)], [*TAPES, LEAKY]) as running:
        yield running


class Arguments:
    """Every command line of every process that lives while the block runs, as often as can be looked."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit():
                    try:
                        self.seen.add((folder / "cmdline").read_bytes())
                    except OSError:
                        continue

    def __enter__(self) -> Arguments:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def holding(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold the secret, by content or by name."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return [str(p.relative_to(folder)) for p in files if secret.encode() in p.read_bytes() or secret in str(p)]


def on_the_host(spec: HostSpec, batch_id: str) -> list[str]:
    """Files in the host user's home that hold the key, but for runs of other batches."""
    assert spec.key_file is not None
    found = holding(spec.key_file.parent / "home", KEY)
    return [path for path in found if "/runs/" not in path or f"/runs/{batch_id}." in path]


def git_objects(repo: Path) -> bytes:
    argv = ["git", "-C", str(repo), "cat-file", "--batch-all-objects", "--batch"]
    return subprocess.run(argv, capture_output=True, check=True, env={"PATH": os.defpath}).stdout


@contextmanager
def watched_night(evening: Evening, harness: str, instruction: str, batch_id: str) -> Iterator[tuple[Night, Arguments]]:
    task = evening.task("t", instruction, verify="env", harness=harness)
    with Arguments() as arguments, evening.night(task, batch_id=batch_id) as night:
        assert night.preflight(task).failure is None
        run = carry_out(night, task)
        assert run.failure is None
        assert KEY not in run.model_dump_json()
        yield night, arguments


def test_no_secret_anywhere_with_our_own_agent(evening: Evening, host: tuple[LoopbackHost, HostSpec]) -> None:
    with watched_night(evening, "scripted", "Add a greeting", "s1") as (_, arguments):
        pass
    assert any(b"scripted_agent.py" in line for line in arguments.seen), "the agent itself must have been seen"
    assert [line for line in arguments.seen if KEY.encode() in line] == []
    assert holding(evening.state, KEY) == []
    assert on_the_host(host[1], "s1") == []
    assert KEY.encode() not in git_objects(evening.directory / "repo")
    assert KEY not in "".join(evening.told)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_agent: Callable[[str], Agent]) -> Iterator[HostSpec]:
    directory = tmp_path_factory.mktemp("real-night")
    with loopback(directory, path=[str(real_agent("claude-code").path.parent)]) as (_, spec):
        yield spec


@pytest.mark.full
def test_no_secret_anywhere_with_the_real_claude_code(evening: Evening, real: HostSpec) -> None:
    evening.host = real
    with watched_night(evening, "claude-code", "Add a greeting", "c1") as (_, arguments):
        pass
    assert any(b"--output-format=stream-json" in line for line in arguments.seen)
    assert [line for line in arguments.seen if KEY.encode() in line] == []
    assert holding(evening.state, KEY) == []
    assert on_the_host(real, "c1") == []
    assert KEY.encode() not in git_objects(evening.directory / "repo")


@pytest.mark.full
def test_a_key_that_the_agent_prints_is_masked_in_our_copy(evening: Evening, real: HostSpec) -> None:
    """What a host's user may read there is not ours to hide: the agent wrote it, and so it stays in its own files."""
    evening.host = real
    with watched_night(evening, "claude-code", "Show the environment", "c2"):
        pass
    ours = (evening.state / "batches" / "c2" / "runs" / "c2.t.1" / "out").read_bytes()
    assert b"*" * len(KEY) in ours
    assert holding(evening.state, KEY) == []
    assert KEY.encode() not in git_objects(evening.directory / "repo")
    there = {path.rpartition("c2.t.1/")[2].split("/")[0] for path in on_the_host(real, "c2")}
    assert there <= {"out", "home"}
    assert "out" in there

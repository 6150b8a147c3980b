"""The real CLIs against the emulated provider: what the tape says is what git holds, byte for byte."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from overnight.lockfile import Header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import PROBE_SENTENCE
from overnight.rehearsal.provider import EmulatedProvider
from tests.overnight.rehearsal.conftest import AWKWARD, KEY

pytestmark = pytest.mark.full

IDENTITY = {
    f"GIT_{who}_{what}": said
    for who in ("AUTHOR", "COMMITTER")
    for what, said in (("NAME", "Rehearsal"), ("EMAIL", "rehearsal@example.invalid"))
}


def claude(executable: str, url: str, said: str) -> tuple[list[str], dict[str, str]]:
    argv = [executable, "-p", said, "--output-format", "stream-json", "--verbose", "--setting-sources", ""]
    argv += ["--permission-mode", "acceptEdits", "--allowedTools", "Bash,Write"]
    env = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": KEY, "ANTHROPIC_MODEL": "rehearsal-large"}
    knobs = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    return argv, {**env, **knobs, "CLAUDE_CODE_MAX_RETRIES": "1"}


def goose(executable: str, url: str, said: str) -> tuple[list[str], dict[str, str]]:
    argv = [executable, "run", "--no-session", "--with-builtin", "developer", "--output-format", "stream-json"]
    env = {"GOOSE_PROVIDER": "anthropic", "GOOSE_MODEL": "rehearsal-large", "ANTHROPIC_HOST": url}
    knobs = {"ANTHROPIC_API_KEY": KEY, "GOOSE_DISABLE_KEYRING": "1", "GOOSE_MODE": "auto"}
    return [*argv, "-t", said], {**env, **knobs}


Agent = Callable[[str, str, str], tuple[list[str], dict[str, str]]]
AGENTS = pytest.mark.parametrize(
    ("launch", "site", "header"),
    [(claude, "bearer", Header.BEARER), (goose, "header", Header.X_API_KEY)],
    ids=["claude", "goose"],
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for folder in ("home", "work"):
        (tmp_path / folder).mkdir()
    git(tmp_path / "work", "init", "-q")
    return tmp_path / "work"


def git(work: Path, *arguments: str) -> bytes:
    env = {"HOME": str(work.parent / "home"), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *arguments], cwd=work, env=env, check=True, capture_output=True, timeout=10).stdout


def run(work: Path, argv: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    base = {"HOME": str(work.parent / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb"}
    whole = {**base, **IDENTITY, **env}
    return subprocess.run(argv, cwd=work, env=whole, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def words(done: subprocess.CompletedProcess[bytes]) -> str:
    """All text in a stream of JSON lines; Goose passes on every delta by itself."""
    return "".join(re.findall(r'"text":"([^"]*)"', done.stdout.decode()))


@AGENTS
def test_a_tape_becomes_a_commit_byte_for_byte(
    provider: EmulatedProvider, program: Callable[[str], str], work: Path, launch: Agent, site: str, header: Header
) -> None:
    before = len(provider.calls)
    argv, env = launch(program(launch.__name__), provider.url(site), "please make the greeting")
    done = run(work, argv, env)
    assert done.returncode == 0, done.stderr
    assert "All done." in words(done)
    assert git(work, "log", "--format=%s").decode().split("\n") == ["Add greeting", ""]
    assert git(work, "show", "HEAD:sub/greeting.txt") == AWKWARD.encode()
    assert git(work, "status", "--porcelain") == b""
    chats = [c for c in provider.calls[before:] if c.path == "/v1/messages" and c.tools]
    assert [c.turn for c in chats] == [1, 2, 3]
    assert {frozenset(c.keys) for c in chats} == {frozenset({header})}
    assert {c.status for c in chats} == {200}


@AGENTS
def test_a_probe_brings_its_nonce_back(
    provider: EmulatedProvider, program: Callable[[str], str], work: Path, launch: Agent, site: str, header: Header
) -> None:
    argv, env = launch(program(launch.__name__), provider.url(site), PROBE_SENTENCE.format(nonce="pony71"))
    done = run(work, argv, env)
    assert done.returncode == 0, done.stderr
    assert "pony71" in words(done)
    assert provider.calls[-1].is_probe


@AGENTS
def test_a_key_revoked_at_the_second_turn_leaves_no_commit(
    provider: EmulatedProvider, program: Callable[[str], str], work: Path, launch: Agent, site: str, header: Header
) -> None:
    provider.set_fault(site, Fault(FaultKind.KEY_REFUSED, turn=2))
    argv, env = launch(program(launch.__name__), provider.url(site), "please make the greeting")
    assert run(work, argv, env).returncode == 1
    assert (work / "sub/greeting.txt").read_bytes() == AWKWARD.encode()
    assert git(work, "rev-list", "--all") == b""
    assert provider.calls[-1].status == 401

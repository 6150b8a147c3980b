"""A host looked at over a real sshd."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.hostcheck import HostCheck, check_host
from overnight.spec import HostSpec
from overnight.station import Station
from tests.sshd import Sshd, free_port, serving, wait_until

pytestmark = pytest.mark.full
LOCK = lockfile.load()
CLAUDE = next(v for v, known in LOCK.harnesses["claude-code"].versions.items() if known.status == "good")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def look(sshd: Sshd, folder: Path, change: Mapping[str, Any]) -> HostCheck:
    address = sshd.address()
    given = {
        "address": address.address,
        "port": address.port,
        "user": address.user,
        "key_file": address.key_file,
        "host_key": address.host_key,
        "python": sys.executable,
        "directory": str(folder / "host"),
    }
    station = Station("box", HostSpec(**{**given, **change}), lambda _: None)
    try:
        return check_host(station, LOCK)
    finally:
        station.close()


def put_claude(folder: Path, version: str) -> str:
    command = folder / "bin" / "claude"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
    command.chmod(0o755)
    return str(command.parent)


def test_it_finds_python_and_the_agents_and_leaves_nobody_behind(sshd: Sshd, tmp_path: Path) -> None:
    found = look(sshd, tmp_path, {"path": [put_claude(tmp_path, CLAUDE)]})
    assert found.ok, found.evidence
    assert found.python.startswith("3.")
    assert found.agents["claude-code"].version == CLAUDE
    assert found.agents["claude-code"].executable == str(tmp_path / "bin" / "claude")
    assert "scripted" not in found.agents
    assert not [note for note in found.notes if "claude-code" in note]
    wait_until(lambda: psutil.Process(sshd.pid).children() == [], 60)


def test_a_version_that_the_lock_does_not_know_is_a_note(sshd: Sshd, tmp_path: Path) -> None:
    found = look(sshd, tmp_path, {"path": [put_claude(tmp_path, "0.0.1")]})
    assert found.ok
    assert "claude-code 0.0.1 is not in the lock" in found.notes


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (
            {"host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"},
            "host-key-mismatch",
        ),
        ({"key_file": Path("/nonexistent/key")}, "host-auth"),
        ({"python": "python2.1"}, "host-unfit"),
        ({"port": free_port()}, "host-unreachable"),
    ],
)
def test_what_is_wrong_is_the_answer(sshd: Sshd, tmp_path: Path, change: Mapping[str, Any], kind: str) -> None:
    found = look(sshd, tmp_path, change)
    assert (found.ok, found.kind) == (False, FailureKind(kind))
    assert found.evidence
    assert found.mend

"""The keys of a real sshd, read without logging in."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from overnight.failures import FailureKind, HostError
from overnight.hosts.known import fingerprint
from overnight.hosts.scan import scan
from tests.sshd import free_port, serving

pytestmark = pytest.mark.full


def by_ssh_keygen(public: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def test_it_reads_every_key_the_best_first_and_logs_in_nowhere(tmp_path: Path) -> None:
    for kind in ("ecdsa", "rsa"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / kind], check=True)
    options = [f"HostKey {tmp_path / kind}" for kind in ("rsa", "ecdsa")]
    with serving(tmp_path, *options) as server:
        found = scan("box", "127.0.0.1", server.port)
        log = server.log.read_text()
    publics = [tmp_path / name for name in ("host_key.pub", "ecdsa.pub", "rsa.pub")]
    assert list(found) == [" ".join(public.read_text().split()[:2]) for public in publics]
    assert [fingerprint(key).split()[1] for key in found] == [by_ssh_keygen(public) for public in publics]
    assert "Accepted" not in log
    assert "nobody" not in log


def test_one_key_alone_is_enough(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert scan("box", "127.0.0.1", server.port) == (server.host_key,)


def test_nobody_there_is_named() -> None:
    with pytest.raises(HostError) as caught:
        scan("box", "127.0.0.1", free_port())
    assert caught.value.failure.kind is FailureKind.HOST_UNREACHABLE


def test_somebody_who_hangs_up_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        guest = threading.Thread(target=lambda: listener.accept()[0].close())
        guest.start()
        with pytest.raises(HostError) as caught:
            scan("box", "127.0.0.1", listener.getsockname()[1])
        guest.join(60)
    assert caught.value.failure.kind is FailureKind.HOST_UNREACHABLE

"""A real OpenSSH server on loopback for one test, as the current user, outside /etc; and a relay that cuts."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overnight.hosts.ssh import SshAddress

BINARY = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/sbin")


@dataclass(frozen=True)
class Sshd:
    """A server that runs."""

    port: int
    host_key: str
    key_file: Path
    log: Path
    pid: int

    def described(self, directory: Path, path: str, slots: int) -> dict[str, Any]:
        """This server as a batch file or a block names it; runs lie in `directory`, agents in the folder `path`."""
        return {
            "address": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": str(self.key_file),
            "host_key": self.host_key,
            "slots": slots,
            "path": [path],
            "directory": str(directory),
        }

    def address(self, name: str = "box") -> SshAddress:
        return SshAddress(name, "127.0.0.1", self.port, getpass.getuser(), self.key_file, self.host_key)


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[Sshd]:
    """A server with fresh keys in `directory`; `options` are lines of its configuration, and the first one wins."""
    if BINARY is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have openssh-server")
        pytest.skip("no sshd on this machine")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd separates privileges there and refuses to start
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    shutil.copy(directory / "user_key.pub", directory / "authorized_keys")
    port = free_port()
    config = directory / "sshd_config"
    lines = [
        *options,
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {directory / 'host_key'}",
        f"AuthorizedKeysFile {directory / 'authorized_keys'}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
    ]
    config.write_text("\n".join(lines) + "\n")
    log = directory / "sshd.log"
    with log.open("wb") as file:
        process = subprocess.Popen([BINARY, "-D", "-e", "-f", config], stderr=file)
    try:
        wait_until(lambda: answers(port))
        host_key = " ".join((directory / "host_key.pub").read_text().split()[:2])
        yield Sshd(port, host_key, directory / "user_key", log, process.pid)
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Relay:
    """A TCP relay that cuts each connection after as many bytes from the server as `budget` says.

    While `spoils`, one bit of the last byte of whatever it hears from the server is another.
    """

    def __init__(self, port: int, budget: Callable[[], int]) -> None:
        self._target = port
        self._budget = budget
        self.connections = 0
        self.spoils = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self.connections += 1
            self._links += [near, far]
            threading.Thread(target=self._carry, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, self._budget()), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, budget: int | None) -> None:
        with suppress(OSError):
            while budget is None or budget > 0:
                data = source.recv(65536 if budget is None else min(65536, budget))
                if not data:
                    break
                if self.spoils and budget is not None:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                sink.sendall(data)
                budget = None if budget is None else budget - len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.close()

"""An SSH host on loopback that can be cut, frozen and refused, and runs commands as the current user.

It does what OpenSSH's sshd does for `exec`, as far as a client can see, with
one difference: the exit status comes when the command's output is closed too,
not before.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncssh

from overnight.rehearsal.link import Link
from overnight.rehearsal.loop import LoopThread

_CHUNK_BYTES = 64 * 1024
_PATH = "/usr/local/bin:/usr/bin:/bin"


def make_key(path: Path) -> str:
    """Make an ed25519 key pair, private half in `path` (0600), and return the public line."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.export_private_key())
    return key.export_public_key().decode().strip()


class LoopbackHost:
    """The host, up while its `with` block runs.

    Args:
        user: The only user name let in; commands run as the current user all the same.
        authorized_keys: Public lines, as `make_key` returns them.
        home: HOME and working directory of commands. None is the current user's own.
        host_key: A private key file; None makes a new key.
        max_sessions: Channels of one connection at a time. A channel is in use
            until its command has ended, even when the client has closed it.
        env: Bindings added to what sshd gives a command. It inherits nothing.
        port: 0 for any free one.
    """

    def __init__(
        self,
        user: str,
        authorized_keys: Sequence[str],
        *,
        home: Path | None = None,
        host_key: Path | None = None,
        max_sessions: int = 10,
        env: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        key = asyncssh.read_private_key(host_key) if host_key else asyncssh.generate_private_key("ssh-ed25519")
        account = pwd.getpwuid(os.getuid())
        folder = str(home or account.pw_dir)
        self._terms = _Terms(
            user=user,
            keys=frozenset(asyncssh.import_public_key(line).public_data for line in authorized_keys),
            max_sessions=max_sessions,
            home=folder,
            env={"HOME": folder, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "PATH": _PATH, **(env or {})},
            running=set(),
        )
        self._host_key = key
        self._wanted_port = port
        self.host_key = " ".join(key.export_public_key().decode().split()[:2])
        """What a client pins: `ssh-ed25519 AAAA...`."""

    def __enter__(self) -> Self:
        self._loop = LoopThread("loopback-host")
        self.link = Link(self._loop.call(self._start()), self._wanted_port)
        """The way to the host, to be cut, frozen or refused."""
        self.link.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go down as a machine does: connections end, commands are killed. Daemons in sessions of their own live on."""
        self.link.__exit__(kind, error, trace)
        self._loop.call(self._stop())
        self._loop.stop()

    @property
    def address(self) -> str:
        return self.link.address

    @property
    def port(self) -> int:
        return self.link.port

    async def _start(self) -> int:
        self._server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Guard(self._terms),
            server_host_keys=[self._host_key],
            encoding=None,
            allow_pty=False,
            agent_forwarding=False,
        )
        return self._server.get_port()

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        running = list(self._terms.running)
        for command in running:
            command.kill()
        await asyncio.gather(*(command.ended() for command in running))


@dataclass(frozen=True)
class _Terms:
    """What every connection of one host goes by."""

    user: str
    keys: frozenset[bytes]
    max_sessions: int
    home: str
    env: Mapping[str, str]
    running: set[_Command]

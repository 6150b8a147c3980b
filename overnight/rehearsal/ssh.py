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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh

from overnight.rehearsal.command import Command
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
        port: 0 for any free one. One in use is an OSError on entry.
        forwards: Whether clients may have it listen for them on loopback (`AllowTcpForwarding`).
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
        forwards: bool = True,
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
            forwards=forwards,
        )
        self._host_key = key
        self._wanted_port = port
        self.host_key = " ".join(key.export_public_key().decode().split()[:2])
        """What a client pins: `ssh-ed25519 AAAA...`."""

    def __enter__(self) -> Self:
        with ExitStack() as up:
            self._loop = LoopThread("loopback-host")
            up.callback(self._loop.stop)
            inner_port = self._loop.call(self._start())
            up.callback(lambda: self._loop.call(self._stop()))
            self.link = up.enter_context(Link(inner_port, self._wanted_port))
            """The way to the host, to be cut, frozen or refused."""
            self._up = up.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go down as a machine does: connections end, commands are killed. Daemons in sessions of their own live on."""
        self._up.close()

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
            command.signal("SIGKILL")
        await asyncio.gather(*(command.ended() for command in running))


@dataclass(frozen=True)
class _Terms:
    """What every connection of one host goes by."""

    user: str
    keys: frozenset[bytes]
    max_sessions: int
    home: str
    env: Mapping[str, str]
    running: set[Command]
    forwards: bool


class _Guard(asyncssh.SSHServer):
    """One connection: who may in, and how many channels."""

    def __init__(self, terms: _Terms) -> None:
        self._terms = terms
        self._slots: set[_Session] = set()

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002  # asyncssh's signature; the key check asks for the name
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == self._terms.user and key.public_data in self._terms.keys

    def server_requested(self, listen_host: str, listen_port: int) -> bool:  # noqa: ARG002  # asyncssh's signature
        return self._terms.forwards and listen_host == "127.0.0.1"

    def session_requested(self) -> _Session | bool:
        if len(self._slots) >= self._terms.max_sessions:
            return False
        session = _Session(self._terms, self._slots.discard)
        self._slots.add(session)
        return session


class _Session(asyncssh.SSHServerProcess[bytes]):
    """One channel: exactly one command, no shell, no subsystem. `leave` gives its slot back."""

    def __init__(self, terms: _Terms, leave: Callable[[_Session], None]) -> None:
        super().__init__(self._run, None, 3, False)
        self._terms = terms
        self._leave = leave
        self._ran: Command | None = None

    def shell_requested(self) -> bool:
        return False

    def subsystem_requested(self, subsystem: str) -> bool:  # noqa: ARG002  # asyncssh's signature
        return False

    def signal_received(self, signal: str) -> None:
        if self._ran is not None:
            self._ran.signal(f"SIG{signal}")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._ran is None:
            self._leave(self)

    async def _run(self, _process: asyncssh.SSHServerProcess[bytes]) -> None:
        peer, here = self.get_extra_info("peername"), self.get_extra_info("sockname")
        env = {**self._terms.env, "SSH_CONNECTION": f"{peer[0]} {peer[1]} {here[0]} {here[1]}"}
        self._ran = await Command.start(self.command or "", env, self._terms.home)
        self._terms.running.add(self._ran)
        try:
            await self._carry(self._ran)
        finally:
            self._terms.running.discard(self._ran)
            self._leave(self)

    async def _carry(self, command: Command) -> None:
        """Until the command has ended; a client that leaves before takes only the pipes away."""
        feeding = asyncio.create_task(_feed(self.stdin, command.stdin))
        gone = asyncio.create_task(self.channel.wait_closed())
        done = asyncio.gather(_pump(command.stdout, self.stdout), _pump(command.stderr, self.stderr), command.ended())
        ends: list[asyncio.Future[Any]] = [done, gone]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        command.let_go()
        *_, code = await done
        feeding.cancel()
        gone.cancel()
        if code >= 0:
            self.exit(code)
        else:
            self.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))


async def _feed(source: asyncssh.SSHReader[bytes], target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
    except (OSError, asyncssh.Error):  # the command closed its input, or the client is gone
        pass
    target.close()


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    try:
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
    except (OSError, asyncssh.Error):  # the client is gone
        pass

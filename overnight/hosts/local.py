"""This machine as a host: the same contract, by subprocess."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import threading
import weakref
from pathlib import Path

from overnight.failures import Evidence, FailureKind, HostError, fail
from overnight.hosts.protocol import ERRORS_BYTES, Channel

PATH = ("/usr/local/bin", "/usr/bin", "/bin")


class LocalHost:
    """Commands get what a login over SSH would give them: a home, a path, and nothing of our environment.

    Args:
        name: What reports call it.
        home: Where commands start; the user's home when None.
        path: Folders searched for commands.
    """

    def __init__(self, name: str = "local", *, home: Path | None = None, path: tuple[str, ...] = PATH) -> None:
        user = pwd.getpwuid(os.getuid())
        self._name = name
        self._home = home or Path(user.pw_dir)
        self._env = {"HOME": str(self._home), "USER": user.pw_name, "PATH": os.pathsep.join(path)}
        self._channels: weakref.WeakSet[LocalChannel] = weakref.WeakSet()

    @property
    def name(self) -> str:
        return self._name

    def connect(self) -> None:
        """Nothing to dial."""

    def open(self, command: str, timeout_s: float = 20.0) -> Channel:  # noqa: ARG002  # nothing here waits
        channel = LocalChannel(command, self._home, self._env, self._name)
        self._channels.add(channel)
        return channel

    def forward(self, port: int, to: int) -> contextlib.AbstractContextManager[None]:
        """Nothing to carry: here and there are the same."""
        if port != to:
            raise ValueError(f"{self._name} is this machine: {port} cannot lead to {to}")
        return contextlib.nullcontext()

    def drop(self) -> None:
        for channel in list(self._channels):
            channel.close()

    def close(self) -> None:
        self.drop()


class LocalChannel:
    """One process. Sockets stand for pipes, because a socket can be shut while another thread waits on it."""

    def __init__(self, command: str, home: Path, env: dict[str, str], host: str) -> None:
        self._host = host
        self._errors = bytearray()
        self._closed = False
        ends = [socket.socketpair() for _ in range(3)]
        (self._input, their_input), (self._output, their_output), (self._stderr, their_stderr) = ends
        with their_input, their_output, their_stderr:
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    ["/bin/sh", "-c", command],
                    stdin=their_input.fileno(),
                    stdout=their_output.fileno(),
                    stderr=their_stderr.fileno(),
                    cwd=home,
                    env=env,
                    start_new_session=True,
                )
            except OSError as error:
                for ours in (self._input, self._output, self._stderr):
                    ours.close()
                raise self._fault(FailureKind.HOST_UNFIT, f"no process could be started: {error.strerror}") from error
        for end in (self._input, self._output):
            weakref.finalize(self, end.close)  # not in `close`: another thread may still wait on it
        self._drained = threading.Thread(target=self._drain, name=f"stderr on {host}", daemon=True)
        self._drained.start()
        threading.Thread(target=self._process.wait, name=f"wait on {host}", daemon=True).start()

    def send(self, data: bytes) -> None:
        try:
            self._input.sendall(data)
        except OSError:
            self._check_open()

    def close_input(self) -> None:
        try:
            self._input.shutdown(socket.SHUT_WR)
        except OSError:
            self._check_open()

    def recv(self, limit: int, timeout_s: float | None) -> bytes:
        self._output.settimeout(timeout_s)
        try:
            data = self._output.recv(limit)
        except ConnectionResetError:  # it ended without reading what it was sent
            data = b""
        if not data:
            self._check_open()
        return data

    def errors(self) -> bytes:
        self._drained.join(0.5)
        return bytes(self._errors)

    def exit_code(self, timeout_s: float) -> int:
        self._check_open()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError("the command still runs") from error

    def close(self) -> None:
        self._closed = True
        for end in (self._input, self._output):
            with contextlib.suppress(OSError):  # the other side was faster
                end.shutdown(socket.SHUT_RDWR)

    def _check_open(self) -> None:
        if self._closed:
            raise self._fault(FailureKind.HOST_UNREACHABLE, "the connection was closed")

    def _fault(self, kind: FailureKind, seen: str) -> HostError:
        return HostError(fail(kind, Evidence(source="host", seen=seen, where=self._host), names={"host": self._host}))

    def _drain(self) -> None:
        with self._stderr as pipe:
            while data := pipe.recv(ERRORS_BYTES):
                self._errors += data
                del self._errors[:-ERRORS_BYTES]

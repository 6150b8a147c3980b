"""What every host can do: run one command and carry bytes both ways."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

ERRORS_BYTES = 65536
"""How much of the end of standard error a channel keeps."""


class Channel(Protocol):
    """One command on the host.

    `send` blocks until the bytes are taken; what is sent to a command that has
    ended is dropped, as a pipe does it. `recv` returns at most `limit`
    bytes of standard output, b"" once the command closed it, and raises
    TimeoutError after `timeout_s` (None waits for ever). Standard error is
    drained meanwhile and its last 64 KiB are kept. Both raise HostError when
    the connection is gone.
    """

    def send(self, data: bytes) -> None: ...

    def close_input(self) -> None:
        """End of input for the command; `recv` still works."""
        ...

    def recv(self, limit: int, timeout_s: float | None) -> bytes: ...

    def errors(self) -> bytes:
        """The tail of standard error so far."""
        ...

    def exit_code(self, timeout_s: float) -> int:
        """Exit code of the command; -N for signal N.

        Raises:
            TimeoutError: it still runs.
            HostError: the connection ended before the command did.
        """
        ...

    def close(self) -> None:
        """Let go of the command. Does not promise to end it."""
        ...


class Host(Protocol):
    """A machine that carries runs. Safe to use from several threads."""

    @property
    def name(self) -> str: ...

    def connect(self) -> None:
        """Make the connection now, if it is not there. Idempotent.

        Raises:
            HostError: with the failure that names why.
        """
        ...

    def open(self, command: str, timeout_s: float = 20.0) -> Channel:
        """Start `command` and return its channel; connects first if needed.

        The command is a shell string for the user's login shell; keep it to
        plain words (no quotes, no variables), since that shell may be csh or fish.

        Raises:
            HostError: no connection, or the host refuses another channel.
        """
        ...

    def forward(self, port: int, to: int) -> AbstractContextManager[object]:
        """Whoever connects to `127.0.0.1:port` there reaches `127.0.0.1:to` here, while the `with` block runs.

        Raises:
            HostError: on entry; no connection, or the host does not listen for us: its sshd may not
                allow it, or the port is taken.
            ValueError: this machine is the host, and the two ports differ.
        """
        ...

    def drop(self) -> None:
        """Close the connection so that the next `open` dials afresh."""
        ...

    def close(self) -> None:
        """Close for good."""
        ...

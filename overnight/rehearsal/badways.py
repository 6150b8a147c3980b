"""Ways to a provider that lead nowhere: addresses on loopback, and a name, that fail below HTTP.

`https` on the URL of an EmulatedProvider without TLS is one more, and each URL
here is a dead proxy, too. Nothing runs: the kernel alone takes or refuses what
comes. On Linux.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

NOWHERE = "http://nowhere.invalid"
"""A URL whose name no DNS will ever know (RFC 6761)."""

_ENOUGH = 128
_NO_ANSWER_S = 0.3


@contextmanager
def refused() -> Iterator[str]:
    """A URL whose port nobody listens on, and nobody else can take while the block runs."""
    with _bound() as (_, url):
        yield url


@contextmanager
def mute() -> Iterator[str]:
    """A URL whose port takes every connection, up to 1024, and reads and says nothing: TLS gets no answer either."""
    with _bound() as (listener, url):
        listener.listen(1024)
        yield url


@contextmanager
def unreachable() -> Iterator[str]:
    """A URL whose port never answers a SYN, since its backlog is full.

    Blocks for less than a second on entry.

    Raises:
        OSError: the kernel took every connection.
    """
    with _bound() as (listener, url), ExitStack() as waiting:
        listener.listen(0)
        for _ in range(_ENOUGH):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            if not select.select([], [client], [], _NO_ANSWER_S)[1]:
                break
        else:
            raise OSError("the backlog does not fill")
        yield url


@contextmanager
def _bound() -> Iterator[tuple[socket.socket, str]]:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        yield own, f"http://127.0.0.1:{own.getsockname()[1]}"

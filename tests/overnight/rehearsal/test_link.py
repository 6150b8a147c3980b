from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from overnight.rehearsal.link import Link

SENT = bytes(range(256)) * 2000


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that sends SENT to whoever connects, then what it receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with Link(listener.getsockname()[1]) as between:
            yield between
        listener.shutdown(socket.SHUT_RDWR)


def serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the test is over
            return
        threading.Thread(target=greet, args=(connection,), daemon=True).start()


def greet(connection: socket.socket) -> None:
    with connection:
        try:
            connection.sendall(SENT)
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:  # the link was cut
            return


def dial(link: Link) -> socket.socket:
    return socket.create_connection((link.address, link.port), timeout=5)


def read(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := client.recv(count - len(got))):
        got += data
    return got


def test_bytes_pass_and_ends_are_forwarded(link: Link) -> None:
    with dial(link) as client:
        assert read(client, len(SENT)) == SENT
        client.sendall(b"ping")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 100) == b"ping"


@pytest.mark.parametrize("count", [0, 1, 255, 70_000, len(SENT) - 1])
def test_a_cut_comes_at_the_very_byte_and_once(link: Link, count: int) -> None:
    link.cut_after(count)
    with dial(link) as client:
        assert read(client, len(SENT)) == SENT[:count]
    with dial(link) as client:
        assert read(client, len(SENT)) == SENT


def test_a_cut_ends_every_connection_and_welcomes_new_ones(link: Link) -> None:
    with dial(link) as one, dial(link) as two:
        read(one, len(SENT))
        read(two, len(SENT))
        link.cut()
        assert one.recv(1) == b""
        assert two.recv(1) == b""
    with dial(link) as client:
        assert read(client, len(SENT)) == SENT


def test_refused_is_refused_and_what_stands_stays(link: Link) -> None:
    with dial(link) as standing:
        read(standing, len(SENT))
        link.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(link)
        standing.sendall(b"still here")
        assert read(standing, 10) == b"still here"
    link.accept()
    with dial(link) as client:
        assert read(client, 1) == SENT[:1]


def test_a_refusal_ends_by_itself(link: Link) -> None:
    link.refuse(0.3)
    with pytest.raises(ConnectionRefusedError):
        dial(link)
    time.sleep(0.5)
    with dial(link) as client:
        assert read(client, 1) == SENT[:1]


def test_nothing_listening_behind_is_a_connection_that_ends(link: Link) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Link(port) as nowhere, dial(nowhere) as client:
        assert client.recv(1) == b""

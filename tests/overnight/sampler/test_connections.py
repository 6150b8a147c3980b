"""What a sample shows of real connections on loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from overnight.remote import StartOrder
from overnight.sampler.connections import by_netlink, by_table, place
from tests.overnight.following import python
from tests.overnight.sampler.conftest import Run
from tests.sshd import wait_until

pytestmark = pytest.mark.full  # each a real run with its follower

REQUEST = b"POST /v1/messages HTTP/1.1\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as listening:
        listening.settimeout(30)
        yield listening


def client(listener: socket.socket, then: str = "s.recv(99)") -> StartOrder:
    address = listener.getsockname()
    return python("r1", f"import socket, time; s = socket.create_connection({address}); {then}; time.sleep(60)")


def test_a_connection_that_is_not_answered(run: Run, listener: socket.socket) -> None:
    with ExitStack() as stack:
        for _ in range(4):  # what the listener would queue is full then
            full = stack.enter_context(closing(socket.socket()))
            full.setblocking(False)
            full.connect_ex(listener.getsockname())
        seen = run.start(client(listener)).connection(lambda each: each.retransmits)
    assert (seen.state, seen.remote) == ("SYN_SENT", f"127.0.0.1:{listener.getsockname()[1]}")
    assert (seen.sent_bytes, seen.received_bytes, seen.last_received_s) == (0, 0, None)


def test_a_tls_greeting_that_is_not_answered(run: Run, listener: socket.socket) -> None:
    greet = "import ssl; ssl.create_default_context().wrap_socket(s, server_hostname='x')"
    run.start(client(listener, greet))
    with closing(listener.accept()[0]):
        seen = run.connection(lambda each: each.sent_bytes)
    assert (seen.state, seen.received_bytes, seen.send_queue_bytes) == ("ESTABLISHED", 0, 0)


def test_a_request_that_is_not_answered(run: Run, listener: socket.socket) -> None:
    run.start(client(listener, f"s.sendall({REQUEST!r}); s.recv(99)"))
    with closing(listener.accept()[0]):
        seen = run.connection(lambda each: each.sent_bytes)
    assert (seen.sent_bytes, seen.received_bytes) == (len(REQUEST), 0)
    assert seen.last_sent_s is not None
    assert (seen.last_received_s, seen.sent_delta_bytes, seen.retransmits) == (None, 0, 0)


def test_headers_and_nothing_more(run: Run, listener: socket.socket) -> None:
    run.start(client(listener, "s.recv(99); s.recv(99)"))
    with closing(listener.accept()[0]) as peer:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        seen = run.connection(lambda each: each.received_bytes and not each.received_delta_bytes)
    assert (seen.received_bytes, seen.receive_queue_bytes) == (19, 0)
    assert seen.last_received_s is not None


def test_a_drip(run: Run, listener: socket.socket) -> None:
    run.start(client(listener, "[s.recv(1) for _ in range(10**6)]"))
    over = threading.Event()

    def drip(peer: socket.socket) -> None:
        while not over.wait(0.01):
            peer.send(b".")

    with closing(listener.accept()[0]) as peer:
        dripping = threading.Thread(target=drip, args=(peer,))
        dripping.start()
        seen = run.connection(lambda each: each.received_delta_bytes)
        over.set()
        dripping.join()
    assert (seen.received_delta_bytes or 0) < (seen.received_bytes or 0)


def test_a_peer_that_closed_is_not_noticed_by_who_does_not_read(run: Run, listener: socket.socket) -> None:
    run.start(client(listener, "pass"))
    peer = listener.accept()[0]
    peer.sendall(b"bye")
    peer.close()
    seen = run.connection(lambda each: each.state == "CLOSE_WAIT")
    assert (seen.received_bytes, (seen.receive_queue_bytes or 0) >= 3) == (3, True)


def test_a_name_server_that_does_not_answer(run: Run) -> None:
    asking = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 53))"
    run.start(python("r1", f"{asking}; time.sleep(60)"))
    assert run.seen(lambda sample: sample.asks_names_of).asks_names_of == ("127.0.0.1:53",)


def test_the_table_agrees_with_the_kernel_as_far_as_it_goes(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as ours, closing(listener.accept()[0]) as theirs:
        theirs.sendall(b"unread")
        inode = os.fstat(ours.fileno()).st_ino
        wait_until(lambda: by_netlink()[inode]["receive_queue_bytes"] == 6, 30)
        asked, listed = by_netlink()[inode], by_table("/proc/self/net")[inode]
    assert listed == {name: asked[name] for name in listed}
    assert asked["received_bytes"] == 6


def test_addresses_are_written_as_people_do() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
    assert place(socket.AF_INET6, bytes(15) + b"\1", 443) == "[::1]:443"
    assert place(socket.AF_INET6, mapped, 443) == "10.0.0.1:443"

"""What every host must do. A test module subclasses `HostContract` and provides the `host` fixture."""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.failures import HostError
from overnight.hosts.protocol import Channel, Host
from tests.sshd import free_port

EVERY_BYTE = bytes(range(256))
# connects to the port, sends its standard input, says that this was all, and prints what comes back
CALL = """
import socket, sys, threading
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def feed():
    link.sendall(sys.stdin.buffer.read())
    link.shutdown(socket.SHUT_WR)
threading.Thread(target=feed).start()
while data := link.recv(65536):
    sys.stdout.buffer.write(data)
"""


def read_all(channel: Channel, timeout_s: float = 30) -> bytes:
    return b"".join(iter(lambda: channel.recv(65536, timeout_s), b""))


@contextmanager
def echo() -> Iterator[int]:
    """A port on this machine where everybody gets back what they send, until they say that this was all."""

    def answer(link: socket.socket) -> None:
        with link:
            while data := link.recv(65536):
                link.sendall(data)

    def listen() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(link,)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


class HostContract:
    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        return tmp_path / "script"

    def run(self, host: Host, script: Path, text: str) -> Channel:
        """The text as a shell script, started by a command of plain words."""
        script.write_text(text)
        return host.open(f"exec sh {script}")

    def test_carries_every_byte_both_ways(self, host: Host) -> None:
        channel = host.open("exec cat")
        channel.send(EVERY_BYTE)
        channel.close_input()
        assert read_all(channel) == EVERY_BYTE
        assert channel.exit_code(5) == 0
        channel.close()

    def test_carries_20_mb_both_ways_at_once(self, host: Host) -> None:
        block = EVERY_BYTE * 4096
        channel = host.open("exec cat")

        def feed() -> None:
            for _ in range(20):
                channel.send(block)
            channel.close_input()

        feeder = threading.Thread(target=feed)
        feeder.start()
        received = hashlib.sha256()
        while data := channel.recv(262144, 30):
            received.update(data)
        feeder.join(10)
        channel.close()
        assert received.digest() == hashlib.sha256(block * 20).digest()

    def test_a_flood_on_standard_error_blocks_nobody(self, host: Host, script: Path) -> None:
        flood = f'exec {sys.executable} -c \'import os\nfor i in range(80): os.write(2, b"x" * 65536)\n'
        channel = self.run(host, script, flood + 'os.write(2, b"last words"); os.write(1, b"done")\'')
        assert read_all(channel) == b"done"
        assert channel.exit_code(5) == 0
        assert channel.errors().endswith(b"x" * 1000 + b"last words")
        assert len(channel.errors()) <= 65536
        channel.close()

    @pytest.mark.parametrize("code", [0, 3, 255])
    def test_tells_the_exit_code(self, host: Host, script: Path, code: int) -> None:
        channel = self.run(host, script, f"exit {code}")
        assert read_all(channel) == b""
        assert channel.exit_code(5) == code
        channel.close()

    def test_tells_the_signal(self, host: Host, script: Path) -> None:
        channel = self.run(host, script, "kill -9 $$")
        assert read_all(channel) == b""
        assert channel.exit_code(5) == -9
        channel.close()

    def test_a_command_that_is_not_there_says_so(self, host: Host) -> None:
        channel = host.open("exec no-such-command-here")
        assert read_all(channel) == b""
        assert channel.exit_code(5) == 127
        assert b"no-such-command-here" in channel.errors()
        channel.close()

    def test_waits_only_as_long_as_told_and_goes_on_after(self, host: Host) -> None:
        channel = host.open("exec cat")
        with pytest.raises(TimeoutError):
            channel.recv(10, 0.1)
        with pytest.raises(TimeoutError):
            channel.exit_code(0.1)
        channel.send(b"still here")
        assert channel.recv(100, 5) == b"still here"
        channel.close_input()
        assert read_all(channel) == b""
        channel.close()

    def test_what_is_sent_to_an_ended_command_is_dropped(self, host: Host) -> None:
        channel = host.open("exec true")
        assert read_all(channel) == b""
        assert channel.exit_code(5) == 0
        channel.send(EVERY_BYTE * 1000)
        channel.close_input()
        channel.close()

    def test_a_dropped_connection_is_an_error_not_an_end(self, host: Host, script: Path) -> None:
        channel = self.run(host, script, "echo first; exec sleep 20")
        assert channel.recv(100, 5) == b"first\n"
        threading.Timer(0.2, host.drop).start()
        with pytest.raises(HostError) as raised:
            channel.recv(100, 10)
        assert raised.value.failure.kind == "host-unreachable"
        again = host.open("exec echo back")
        assert read_all(again) == b"back\n"
        again.close()

    def test_channels_do_not_mix(self, host: Host) -> None:
        channels = [host.open("exec cat") for _ in range(4)]
        for number, channel in enumerate(channels):
            channel.send(b"%d" % number * 1000)
            channel.close_input()
        assert [read_all(channel) for channel in channels] == [b"%d" % n * 1000 for n in range(4)]
        for channel in channels:
            channel.close()

    def leading_to(self, port: int) -> int:
        """A port of the host that can be forwarded to `port` here."""
        return free_port()

    def call(self, host: Host, port: int, script: Path) -> Channel:
        """What connects to a port of the host, from there."""
        script.write_text(CALL)
        return host.open(f"exec {sys.executable} {script} {port}")

    def test_a_forwarded_port_carries_both_ways_to_the_end(self, host: Host, script: Path) -> None:
        block = EVERY_BYTE * 4096
        with echo() as port:
            there = self.leading_to(port)
            with host.forward(there, port):
                callers = [self.call(host, there, script) for _ in range(3)]
                for caller in callers:
                    threading.Thread(target=lambda c=caller: (c.send(block), c.close_input())).start()
                assert [read_all(caller) for caller in callers] == [block] * 3
                assert [caller.exit_code(5) for caller in callers] == [0] * 3


class FullConnectionContract:
    """A host over SSH opens ten channels a connection, as sshd does unless told otherwise."""

    def test_a_full_connection_refuses_a_channel_and_stays_usable(self, host: Host) -> None:
        channels = [host.open("exec cat") for _ in range(10)]
        with pytest.raises(HostError) as raised:
            host.open("exec true", timeout_s=0.5)
        assert "MaxSessions" in str(raised.value)
        threading.Timer(0.3, channels[0].close_input).start()
        again = host.open("exec echo fits")
        assert read_all(again) == b"fits\n"
        for channel in [*channels, again]:
            channel.close()

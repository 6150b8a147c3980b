"""Calls that share one process of a host."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from overnight.calls import AT_ONCE
from overnight.failures import HostError
from overnight.hosts.local import LocalHost
from overnight.hosts.protocol import Channel
from overnight.remote import Remote
from overnight.supervisor import READ_BYTES, SERVE_WINDOW_BYTES
from tests.sshd import wait_until

SLEEP = ["/bin/sleep", "60"]


def serving() -> list[psutil.Process]:
    return [
        p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE and p.cmdline()[-1:] == ["serve"]
    ]


def server() -> psutil.Process:
    wait_until(lambda: len(serving()) == 1)  # that of the test before may be about to go
    return serving()[0]


def test_a_hundred_calls_start_one_interpreter(tmp_path: Path) -> None:
    started, counting = tmp_path / "started", tmp_path / "python"
    counting.write_text(f'#!/bin/sh\necho once >> {started}\nexec {sys.executable} "$@"\n')
    counting.chmod(0o755)
    remote = Remote(LocalHost(home=tmp_path), python=str(counting))
    remote.install()
    before = started.read_text().count("once")
    with ThreadPoolExecutor(20) as pool:
        said = pool.map(lambda n: remote.execute(["/bin/echo", str(n)]).out, range(100))
        assert list(said) == [f"{n}\n".encode() for n in range(100)]
    assert started.read_text().count("once") == before == 2, "the upload and the server"
    remote.close()


def test_a_call_that_nobody_reads_stops_itself_and_no_other(remote: Remote) -> None:
    endless = remote.pipe(["/bin/cat", "/dev/zero"])
    assert len(endless.recv(1, 5)) == 1
    time.sleep(0.5)
    assert remote.execute(["/bin/echo", "me too"]).out == b"me too\n"
    assert 0 < len(endless.recv(10 * SERVE_WINDOW_BYTES, 5)) <= READ_BYTES
    endless.close()


def test_a_host_sends_ahead_what_there_is_room_for_and_no_more(remote: Remote, tmp_path: Path) -> None:
    def writing(size: int, end: Path) -> Channel:
        return remote.pipe(["/bin/sh", "-c", 'head -c "$1" /dev/zero && : > "$2"', "sh", str(size), str(end)])

    little, much = tmp_path / "little", tmp_path / "much"
    first = writing(SERVE_WINDOW_BYTES - 1000, little)
    wait_until(little.exists)
    second = writing(SERVE_WINDOW_BYTES + 2 * READ_BYTES, much)
    time.sleep(0.5)
    assert not much.exists()
    assert sum(map(len, iter(lambda: second.recv(100_000, 10), b""))) == SERVE_WINDOW_BYTES + 2 * READ_BYTES
    assert much.exists()
    for channel in (first, second):
        channel.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells and sets the size of a pipe")
def test_the_pipe_of_a_call_holds_what_one_read_takes(remote: Remote) -> None:
    said = remote.execute([sys.executable, "-c", "import fcntl; print(fcntl.fcntl(1, fcntl.F_GETPIPE_SZ))"])
    assert int(said.out) == READ_BYTES


def test_what_is_read_slowly_comes_whole(remote: Remote) -> None:
    channel = remote.pipe(["/usr/bin/seq", "-w", "1", "500000"])
    said = bytearray()
    while data := channel.recv(70_000, 10):
        said += data
    assert channel.exit_code(5) == 0
    assert said == b"".join(b"%06d\n" % n for n in range(1, 500_001))
    channel.close()


def test_a_call_is_ended_by_the_end_of_its_input(remote: Remote) -> None:
    channel = remote.pipe(["/bin/cat"])
    channel.send(b"x" * 300_000)
    channel.close_input()
    assert sum(map(len, iter(lambda: channel.recv(65536, 10), b""))) == 300_000
    assert channel.exit_code(5) == 0


def test_a_server_that_dies_fails_its_calls_and_is_started_again(remote: Remote) -> None:
    remote.install()
    failed: list[HostError] = []

    def wait() -> None:
        with pytest.raises(HostError) as raised:
            remote.execute(SLEEP)
        failed.append(raised.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: any(p.cmdline() == SLEEP for p in server().children()))
    sleeper, dead = server().children()[0], server()
    dead.kill()
    waiting.join(10)
    assert failed[0].failure.kind == "host-unreachable"
    assert remote.execute(["/bin/echo", "again"]).out == b"again\n"
    sleeper.kill()


def test_the_server_goes_with_its_connection(remote: Remote) -> None:
    remote.install()
    gone = server()
    remote.close()
    wait_until(lambda: not gone.is_running() or gone.status() == psutil.STATUS_ZOMBIE)


def test_a_call_that_is_left_gives_its_place_back(remote: Remote) -> None:
    for _ in range(AT_ONCE + 3):
        remote.pipe(SLEEP).close()
    assert remote.execute(["/bin/true"]).code == 0
    for process in server().children():
        process.kill()


def test_a_signal_that_ended_a_call_is_told(remote: Remote) -> None:
    assert remote.execute(["/bin/sh", "-c", "kill -KILL $$"]).code == -9

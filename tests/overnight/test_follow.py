"""Follower through the local host; through a real sshd where the wire itself is under test."""

from __future__ import annotations

import hashlib
import os
import queue
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from overnight.events import Exited, Heartbeat, Killed, Lost, Output, Started
from overnight.follow import Follower, LinkState
from overnight.hosts.local import LocalHost
from overnight.hosts.protocol import Channel, Host
from overnight.hosts.ssh import SshHost
from overnight.remote import Remote
from tests.overnight.following import (
    KEY,
    Watching,
    expected_noise,
    kill_supervisor,
    marked,
    noise,
    order,
    python,
    shell,
)
from tests.sshd import Relay, serving

pytestmark = pytest.mark.full  # many real processes: too slow for the fast tier


class TestFollower:
    def test_a_run_is_told_from_start_to_end(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        remote.start(shell("r1", "echo out; echo err >&2; exit 3"))
        watching = Watching(follower, "r1", tmp_path)
        end = watching.ending()
        assert isinstance(end, Exited)
        assert (end.code, end.signal, end.exec_error) == (3, None, None)
        assert (end.disk_free_bytes or 0) > 0
        assert isinstance(watching.told[0], Started)
        assert (watching.copied("out"), watching.copied("err")) == (b"out\n", b"err\n")
        assert (watching.bytes_told("out"), watching.bytes_told("err")) == (b"out\n", b"err\n")
        assert sum(isinstance(event, Started) for event in watching.told) == 1

    def test_a_living_run_beats(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        remote.start(shell("r1", "sleep 60"))
        watching = Watching(follower, "r1", tmp_path)
        beat = watching.until(lambda event: isinstance(event, Heartbeat))
        assert isinstance(beat, Heartbeat)
        assert beat.processes >= 1
        later = watching.until(lambda event: isinstance(event, Heartbeat) and event.quiet_s > beat.quiet_s + 1)
        assert isinstance(later, Heartbeat)
        assert later.age_s > beat.age_s + 1, "the age is the run's, not the heartbeat's"
        follower.cancel("r1")
        end = watching.ending()
        assert isinstance(end, Killed)
        assert (end.by, end.code, end.signal) == ("request", None, signal.SIGTERM)

    def test_a_command_that_cannot_start_says_why(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        remote.start(order("r1", ("/no/such",)))
        end = Watching(follower, "r1", tmp_path).ending()
        assert isinstance(end, Exited)
        assert end.exec_error == "exec: No such file or directory: /no/such"

    def test_a_run_the_host_does_not_have_is_lost(self, follower: Follower, tmp_path: Path) -> None:
        assert Watching(follower, "never", tmp_path).ending() == Lost("the host has no such run directory")

    def test_an_orphan_is_ended_and_named(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        answer = remote.start(shell("r1", "setsid sleep 60 & sleep 60"))
        watching = Watching(follower, "r1", tmp_path)
        watching.until(lambda event: isinstance(event, Started))
        kill_supervisor(answer.pid)
        end = watching.ending()
        assert isinstance(end, Killed)
        assert end.by == "orphan"
        assert not [p for p in psutil.process_iter(["environ"]) if marked(p, "r1")]
        assert Watching(follower, "r1", tmp_path / "again").ending() == end

    def test_a_run_that_died_with_its_supervisor_is_lost(
        self, remote: Remote, follower: Follower, tmp_path: Path
    ) -> None:
        answer = remote.start(shell("r1", "echo before; exec sleep 60"))
        watching = Watching(follower, "r1", tmp_path)
        watching.until(lambda event: isinstance(event, Output))
        psutil.Process(answer.pid).suspend()
        kill_supervisor(answer.pid)
        os.kill(answer.pid or 0, signal.SIGKILL)
        end = watching.ending()
        assert end == Lost("the supervisor died before it recorded the end")
        assert watching.copied("out") == b"before\n"

    def test_many_runs_share_the_channel(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        size = 1_000_000
        for number in range(6):
            remote.start(python(f"r{number}", noise(size, number)))
        watchings = [Watching(follower, f"r{number}", tmp_path) for number in range(6)]
        for number, watching in enumerate(watchings):
            assert isinstance(watching.ending(), Exited)
            assert (watching.copied("out"), watching.copied("err")) == expected_noise(size, number, b"")

    def test_a_second_controller_goes_on_where_the_first_died(self, remote: Remote, tmp_path: Path) -> None:
        remote.start(python("r1", noise(3_000_000, 5)))
        first = Follower(remote)
        watching = Watching(first, "r1", tmp_path)
        watching.until(lambda event: isinstance(event, Output))
        first.close()
        watching.copy.close()
        before = watching.copied("out")
        second = Follower(remote)
        again = Watching(second, "r1", tmp_path)
        assert b"".join(event.data for event in again.copy.replay() if event.stream == "out").startswith(before)
        assert isinstance(again.ending(), Exited)
        second.close()
        assert (again.copied("out"), again.copied("err")) == expected_noise(3_000_000, 5, b"")

    def test_after_unwatch_nothing_is_told(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        remote.start(shell("r1", "while :; do echo x; sleep 0.01; done"))
        watching = Watching(follower, "r1", tmp_path)
        watching.until(lambda event: isinstance(event, Output))
        follower.unwatch("r1")
        told = watching.events.qsize()
        time.sleep(0.5)
        assert watching.events.qsize() == told
        again = Watching(follower, "r1", tmp_path)
        follower.cancel("r1")
        assert isinstance(again.ending(), Killed)
        watching.copy.close()

    def test_the_key_is_masked_in_our_copy(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        remote.start(python("r1", noise(500_000, 1), secret=True), [KEY])
        watching = Watching(follower, "r1", tmp_path, (KEY,))
        watching.ending()
        mask = b"*" * len(KEY)
        expected = tuple(stream.replace(KEY, mask) for stream in expected_noise(500_000, 1, KEY))
        assert mask in expected[0]
        assert (watching.copied("out"), watching.copied("err")) == expected
        assert watching.bytes_told("out") == expected[0]

    def test_the_link_is_told_with_its_failure(self, remote: Remote) -> None:
        states: queue.Queue[LinkState] = queue.Queue()
        follower = Follower(remote, states.put)
        assert states.get(timeout=10).up
        remote.host.drop()
        down = states.get(timeout=10)
        assert down.failure is not None
        assert down.failure.kind == "host-unreachable"
        assert states.get(timeout=10).up
        follower.close()


@pytest.mark.full
def test_a_mute_connection_is_given_up_and_dialled_afresh(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.follow.SILENCE_S", 6.0)
    states: queue.Queue[LinkState] = queue.Queue()
    follower = Follower(remote, states.put)
    assert states.get(timeout=10).up
    remote.start(shell("r1", "echo first; sleep 8; echo last"))
    watching = Watching(follower, "r1", tmp_path)
    watching.until(lambda event: isinstance(event, Output))
    (far,) = [p for p in psutil.process_iter(["cmdline", "cwd"]) if is_follower(p, tmp_path)]
    far.suspend()
    down = states.get(timeout=10)
    assert down.failure is not None
    assert "nothing was heard for 6 s" in str(down.failure)
    assert states.get(timeout=10).up
    assert isinstance(watching.ending(), Exited)
    assert watching.copied("out") == b"first\nlast\n"
    far.kill()
    follower.close()


def is_follower(process: psutil.Process, home: Path) -> bool:
    return bool(process.info["cwd"] == str(home) and (process.info["cmdline"] or [""])[-1] == "follow")


class Cut:
    """A channel that breaks after some bytes."""

    def __init__(self, channel: Channel, budget: int) -> None:
        self._channel, self._left = channel, budget
        self.send, self.close_input, self.close = channel.send, channel.close_input, channel.close
        self.errors, self.exit_code = channel.errors, channel.exit_code

    def recv(self, limit: int, timeout_s: float | None) -> bytes:
        if self._left <= 0:
            self.close()
        data = self._channel.recv(min(limit, max(1, self._left)), timeout_s)
        self._left -= len(data)
        return data


class CuttingHost:
    """The local host over a bad wire. Breaks only once the supervisor is installed."""

    def __init__(self, host: Host, budget: Callable[[], int]) -> None:
        self._host, self._budget = host, budget
        self.name, self.connect, self.drop, self.close = host.name, host.connect, host.drop, host.close
        self.forward = host.forward
        self.channels = 0

    def open(self, command: str, timeout_s: float = 20.0) -> Channel:
        channel = self._host.open(command, timeout_s)
        if not command.endswith("follow"):
            return channel
        self.channels += 1
        return Cut(channel, self._budget())


@pytest.mark.parametrize("seed", range(2))
def test_cut_at_any_byte_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    host = CuttingHost(LocalHost(home=tmp_path), lambda: chance.randrange(1, 300_000))
    remote = Remote(host, python=sys.executable)
    follower = Follower(remote)
    size = 700_000
    remote.start(python("r1", noise(size, seed), secret=True), [KEY])
    watching = Watching(follower, "r1", tmp_path, (KEY,))
    end = watching.ending(60)
    follower.close()
    remote.close()
    expected = [stream.replace(KEY, b"*" * len(KEY)) for stream in expected_noise(size, seed, KEY)]
    assert isinstance(end, Exited)
    assert [watching.bytes_told("out"), watching.bytes_told("err")] == expected
    assert [watching.copied("out"), watching.copied("err")] == expected
    assert host.channels > 1


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2))
def test_cut_ssh_connections_lose_and_repeat_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    size = 3_000_000
    with serving(tmp_path) as sshd:
        relay = Relay(sshd.port, lambda: chance.randrange(20_000, 900_000))
        direct = Remote(SshHost(sshd.address()), root=str(tmp_path / "root"), python=sys.executable)
        address = replace(sshd.address(), port=relay.port)
        remote = Remote(SshHost(address), root=str(tmp_path / "root"), python=sys.executable)
        direct.start(python("r1", noise(size, seed)))
        follower = Follower(remote)
        watching = Watching(follower, "r1", tmp_path / "copies")
        assert isinstance(watching.ending(), Exited)
        follower.close()
        for each in (remote, direct):
            each.close()
        relay.close()
        assert relay.connections > 2
    digests = [hashlib.sha256(watching.copied(stream)).hexdigest() for stream in ("out", "err")]
    assert digests == [hashlib.sha256(stream).hexdigest() for stream in expected_noise(size, seed, b"")]
    assert [watching.bytes_told("out"), watching.bytes_told("err")] == [watching.copied("out"), watching.copied("err")]


@pytest.mark.full
def test_over_ssh_a_run_is_started_followed_and_cancelled(tmp_path: Path) -> None:
    with serving(tmp_path) as sshd:
        remote = Remote(SshHost(sshd.address()), root=str(tmp_path / "root"), python=sys.executable)
        order = python("r1", "import os, time; print(os.environ['A_KEY'], flush=True); time.sleep(60)", secret=True)
        assert remote.start(order, [KEY]).answer == "started"
        follower = Follower(remote)
        watching = Watching(follower, "r1", tmp_path / "copies", (KEY,))
        watching.until(lambda event: isinstance(event, Output))
        for process in psutil.process_iter(["cmdline"]):
            assert KEY.decode() not in " ".join(process.info["cmdline"] or [])
        follower.cancel("r1")
        end = watching.ending()
        assert isinstance(end, Killed)
        assert end.by == "request"
        assert watching.copied("out") == b"*" * len(KEY) + b"\n"
        done = remote.execute(["/bin/sh", "-c", "kill -TERM $$"])
        assert done.code == -signal.SIGTERM
        follower.close()
        remote.close()
        assert KEY not in sshd.log.read_bytes()

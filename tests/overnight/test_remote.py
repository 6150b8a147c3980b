"""Remote and Follower through the local host; through a real sshd where the wire itself is under test."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from overnight.events import Ending, Exited, Heartbeat, Killed, Lost, Output, RunEvent, Started
from overnight.failures import HostError
from overnight.follow import Follower, LinkState, RunCopy
from overnight.hosts.local import LocalHost
from overnight.hosts.protocol import Channel, Host
from overnight.hosts.ssh import SshHost
from overnight.remote import Remote, RunBounds, SecretSlot, StartOrder
from tests.sshd import Relay, serving, wait_until

KEY = b"sk-fake-key-0123456789"
BOUNDS = RunBounds(total_s=60, grace_s=0.5, max_log_bytes=100_000_000, max_processes=200)
BLOCK = bytes(range(256)) * 1000


def noise(total_bytes: int, seed: int) -> str:
    """A program that writes that many reproducible bytes, NUL and invalid UTF-8 among them, with the key in between."""
    return (
        f"import os, random; r = random.Random({seed}); left = {total_bytes}\n"
        "while left > 0:\n"
        "    part = (r.randbytes(r.randrange(1, 70000)) + os.environ.get('A_KEY', '').encode())[:left]\n"
        "    os.write(1 + (r.random() < 0.2), part); left -= len(part)\n"
    )


def expected_noise(total_bytes: int, seed: int, key: bytes) -> tuple[bytes, bytes]:
    r, left = random.Random(seed), total_bytes
    streams = (bytearray(), bytearray())
    while left > 0:
        part = (r.randbytes(r.randrange(1, 70000)) + key)[:left]
        streams[r.random() < 0.2].extend(part)
        left -= len(part)
    return bytes(streams[0]), bytes(streams[1])


def order(run_id: str, argv: tuple[str, ...], *, secret: bool = False) -> StartOrder:
    slots = (SecretSlot("A_KEY", "zai"),) if secret else ()
    return StartOrder(run_id, "d1", argv, BOUNDS, env={"PATH": "/usr/bin:/bin", "HOME": "{home}"}, secrets=slots)


def shell(run_id: str, script: str) -> StartOrder:
    return order(run_id, ("/bin/sh", "-c", script))


def python(run_id: str, program: str, *, secret: bool = False) -> StartOrder:
    return order(run_id, (sys.executable, "-I", "-S", "-c", program), secret=secret)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(LocalHost(home=tmp_path), python=sys.executable)
    yield remote
    remote.close()
    end_all(tmp_path)


def end_all(folder: Path) -> None:
    for process in psutil.process_iter(["environ"]):  # whatever a failed test left
        if str(folder) in (process.info["environ"] or {}).get("HOME", ""):
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture
def follower(remote: Remote) -> Iterator[Follower]:
    follower = Follower(remote)
    yield follower
    follower.close()


class Watching:
    """A run being watched, and what was told of it."""

    def __init__(self, follower: Follower, run_id: str, folder: Path, secrets: tuple[bytes, ...] = ()) -> None:
        self.events: queue.Queue[RunEvent] = queue.Queue()
        self.copy = RunCopy(folder / run_id, secrets)
        self.told: list[RunEvent] = []
        follower.watch(run_id, self.copy, self.events.put)

    def until(self, true: Callable[[RunEvent], bool], seconds: float = 30) -> RunEvent:
        while True:
            event = self.events.get(timeout=seconds)
            self.told.append(event)
            if true(event):
                return event

    def ending(self, seconds: float = 30) -> Ending:
        event = self.until(lambda event: isinstance(event, Exited | Killed | Lost), seconds)
        assert isinstance(event, Exited | Killed | Lost)
        self.copy.close()
        return event

    def bytes_told(self, stream: str) -> bytes:
        outputs = [event for event in self.told if isinstance(event, Output) and event.stream == stream]
        joined = b"".join(event.data for event in outputs)
        assert [event.offset for event in outputs] == [
            sum(len(before.data) for before in outputs[:n]) for n in range(len(outputs))
        ]
        return joined

    def copied(self, stream: str) -> bytes:
        return (self.copy.directory / stream).read_bytes()


class TestInstall:
    def test_installs_once_and_tells_facts(self, remote: Remote, tmp_path: Path) -> None:
        facts = remote.install()
        assert facts.root == str(tmp_path / ".overnight")
        assert facts.uid == os.getuid()
        assert facts.disk_free_bytes > 0
        assert remote.install() is facts
        assert len(list((tmp_path / ".overnight" / "lib").iterdir())) == 1

    def test_a_damaged_upload_is_replaced(self, remote: Remote, tmp_path: Path) -> None:
        remote.install()
        (path,) = (tmp_path / ".overnight" / "lib").iterdir()
        good = path.read_bytes()
        path.write_bytes(b"half of")
        Remote(LocalHost(home=tmp_path), python=sys.executable).install()
        assert path.read_bytes() == good

    def test_a_supervisor_that_was_cleaned_away_comes_back(self, remote: Remote, tmp_path: Path) -> None:
        remote.install()
        (path,) = (tmp_path / ".overnight" / "lib").iterdir()
        path.unlink()
        with pytest.raises(HostError, match="did not run our supervisor"):
            remote.execute(["/bin/true"])
        assert remote.execute(["/bin/true"]).code == 0

    def test_login_files_may_print_what_they_like(self, tmp_path: Path) -> None:
        noisy = tmp_path / "noisy"
        noisy.write_text(f'#!/bin/sh\necho Welcome!\nprintf "no newline"\nexec {sys.executable} "$@"\n')
        noisy.chmod(0o755)
        remote = Remote(LocalHost(home=tmp_path), python=str(noisy))
        assert remote.execute(["/bin/echo", "clean"]).out == b"clean\n"
        remote.close()

    def test_a_host_without_python_is_unfit(self, tmp_path: Path) -> None:
        with pytest.raises(HostError) as raised:
            Remote(LocalHost(home=tmp_path), python="python-none").install()
        assert raised.value.failure.kind == "host-unfit"
        assert "exit code 127" in str(raised.value)
        assert "python-none" in str(raised.value)

    def test_a_root_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(HostError, match="supervisor could not be written"):
            Remote(LocalHost(home=tmp_path), root="file", python=sys.executable).install()

    def test_finds_commands_by_absolute_path(self, remote: Remote, tmp_path: Path) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\n")
        (tmp_path / "tool").chmod(0o755)
        found = remote.find(["tool", "sh", "no-such"], [str(tmp_path), "/bin"])
        assert found == {"tool": str(tmp_path / "tool"), "sh": "/bin/sh", "no-such": None}


class TestExecute:
    def test_code_output_and_errors(self, remote: Remote) -> None:
        done = remote.execute(["/bin/sh", "-c", "cat; echo bad >&2; exit 3"], input=BLOCK)
        assert (done.code, done.out, done.err, done.cannot_run) == (3, BLOCK, b"bad\n", None)

    def test_input_and_output_larger_than_any_buffer(self, remote: Remote) -> None:
        assert remote.execute(["/bin/cat"], input=BLOCK * 20).out == BLOCK * 20

    def test_output_beyond_the_limit_is_dropped_and_said(self, remote: Remote) -> None:
        done = remote.execute(["/bin/cat"], input=BLOCK, max_output_bytes=1000)
        assert (done.code, done.out, done.truncated) == (0, BLOCK[:1000], True)

    def test_the_environment_is_exact(self, remote: Remote, tmp_path: Path) -> None:
        done = remote.execute(["/bin/cat", "/proc/self/environ"], env={"ONLY": "this"}, cwd=str(tmp_path))
        assert done.out == b"ONLY=this\0"
        assert remote.execute(["/bin/pwd"], cwd=str(tmp_path)).out.decode() == f"{tmp_path}\n"

    def test_a_command_that_cannot_start_is_told_from_exit_127(self, remote: Remote) -> None:
        assert remote.execute(["/bin/sh", "-c", "exit 127"]).cannot_run is None
        done = remote.execute(["/no/such"])
        assert done.code == 127
        assert done.cannot_run == "exec: No such file or directory: /no/such"

    def test_time_runs_out_here_and_on_the_host(self, remote: Remote) -> None:
        argv = ["/bin/sleep", "61.25"]
        remote.install()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            remote.execute(argv, timeout_s=0.5)
        assert time.monotonic() - began < 3
        wait_until(lambda: not any(process.info["cmdline"] == argv for process in psutil.process_iter(["cmdline"])))

    def test_a_pipe_is_the_command_itself(self, remote: Remote) -> None:
        channel = remote.pipe(["/bin/cat"])
        channel.send(BLOCK)
        received = b""
        while len(received) < len(BLOCK):
            received += channel.recv(65536, 5)
        assert received == BLOCK
        channel.close_input()
        assert channel.recv(1, 5) == b""
        assert channel.exit_code(5) == 0
        channel.close()


class TestFollower:
    def test_a_run_is_told_from_start_to_end(self, remote: Remote, follower: Follower, tmp_path: Path) -> None:
        remote.start(shell("r1", "echo out; echo err >&2; exit 3"))
        watching = Watching(follower, "r1", tmp_path)
        end = watching.ending()
        assert isinstance(end, Exited)
        assert (end.code, end.signal, end.exec_error) == (3, None, None)
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
        assert 0 <= beat.age_s < 5
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


def marked(process: psutil.Process, run_id: str) -> bool:
    living = process.status() != psutil.STATUS_ZOMBIE
    return living and (process.info["environ"] or {}).get("OVERNIGHT_RUN_ID") == run_id


def kill_supervisor(pid: int | None) -> None:
    """The supervisor is the parent of the main process."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    parent.kill()

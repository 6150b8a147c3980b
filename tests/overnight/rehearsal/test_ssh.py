from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from overnight.rehearsal.ssh import LoopbackHost, make_key

pytestmark = pytest.mark.full  # many real processes: too slow for the fast tier

ALL_BYTES = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("host")
    (made / "home").mkdir()
    (made / "id.pub").write_text(make_key(made / "id"))
    return made


@pytest.fixture
def host(folder: Path) -> Iterator[LoopbackHost]:
    with LoopbackHost("dev", [(folder / "id.pub").read_text()], home=folder / "home", max_sessions=3) as up:
        yield up


@pytest.fixture
def client(host: LoopbackHost, folder: Path) -> Iterator[paramiko.Transport]:
    with connect(host, folder) as transport:
        yield transport


def connect(host: LoopbackHost, folder: Path, user: str = "dev", key: str = "id") -> paramiko.Transport:
    transport = paramiko.Transport(socket.create_connection((host.address, host.port), timeout=5))
    transport.start_client(timeout=5)
    transport.auth_publickey(user, paramiko.Ed25519Key.from_private_key_file(str(folder / key)))
    return transport


def start(transport: paramiko.Transport, command: str) -> paramiko.Channel:
    channel = transport.open_session(timeout=5)
    channel.settimeout(5)
    channel.exec_command(command)
    return channel


def output(channel: paramiko.Channel) -> bytes:
    return b"".join(iter(lambda: channel.recv(1 << 18), b""))


def run(transport: paramiko.Transport, command: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
    channel = start(transport, command)

    def feed() -> None:
        channel.sendall(given)
        channel.shutdown_write()

    feeding = threading.Thread(target=feed)
    feeding.start()
    out = output(channel)
    feeding.join(timeout=5)
    return channel.recv_exit_status(), out, channel.recv_stderr(1 << 18)


def test_a_command_gets_an_environment_like_sshds_and_nothing_else(
    client: paramiko.Transport, host: LoopbackHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAK", "from the test")
    code, out, _ = run(client, "env; pwd")
    *env, where = out.decode().splitlines()
    bound = dict(line.split("=", 1) for line in env)
    home = str(folder / "home")
    assert code == 0
    assert where == home
    assert bound.pop("SSH_CONNECTION").startswith("127.0.0.1 ")
    bound.pop("PWD")  # sh sets it
    path = "/usr/local/bin:/usr/bin:/bin"
    assert bound == {"HOME": home, "USER": "dev", "LOGNAME": "dev", "SHELL": "/bin/sh", "PATH": path}


def test_streams_are_apart_and_the_exit_code_is_the_commands(client: paramiko.Transport) -> None:
    assert run(client, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_bytes_pass_unchanged_both_ways(client: paramiko.Transport) -> None:
    assert run(client, "cat", ALL_BYTES) == (0, ALL_BYTES, b"")


def test_a_command_that_reads_no_input_ends_all_the_same(client: paramiko.Transport) -> None:
    assert run(client, "exec 0<&-; sleep 0.2; echo done", ALL_BYTES)[:2] == (0, b"done\n")


@pytest.mark.full  # takes a second or more
def test_two_hundred_megabytes_pass(client: paramiko.Transport) -> None:
    channel = start(client, "head -c 200000000 /dev/zero")
    size = sum(len(chunk) for chunk in iter(lambda: channel.recv(1 << 18), b""))
    assert size == 200_000_000


@pytest.mark.full  # takes a second or more
def test_a_reader_that_waits_holds_the_writer_back(client: paramiko.Transport, folder: Path) -> None:
    progress = folder / "progress"
    channel = start(client, f"head -c 100000000 /dev/zero | tee /dev/fd/3 3>&1 >/dev/null; echo > {progress}")
    time.sleep(0.5)
    assert not progress.exists()
    assert len(output(channel)) == 100_000_000
    assert progress.exists()


@pytest.mark.parametrize(("command", "code"), [("cat; exit 3", 3), ("cat; kill -9 $$", 255)])
def test_the_openssh_client_pins_the_host_key_and_agrees(
    host: LoopbackHost, folder: Path, program: Callable[[str], str], command: str, code: int
) -> None:
    known = folder / "known_hosts"
    known.write_text(f"[{host.address}]:{host.port} {host.host_key}\n")
    argv = [program("ssh"), "-F", "none", "-i", str(folder / "id"), "-p", str(host.port)]
    argv += [f"-o{o}" for o in ("BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}")]
    env = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*argv, f"dev@{host.address}", command], input=ALL_BYTES, capture_output=True, env=env, timeout=20
    )
    assert (done.returncode, done.stdout) == (code, ALL_BYTES)


def test_a_signal_is_reported(client: paramiko.Transport) -> None:
    channel = start(client, "kill -TERM $$")
    assert output(channel) == b""
    assert channel.recv_exit_status() == -1  # paramiko's word for an exit signal


def test_the_host_shows_the_key_it_names(client: paramiko.Transport, host: LoopbackHost) -> None:
    shown = client.get_remote_server_key()
    assert host.host_key == f"{shown.get_name()} {shown.get_base64()}"


@pytest.mark.parametrize(("user", "key"), [("root", "id"), ("dev", "stranger")])
def test_a_stranger_is_refused(host: LoopbackHost, folder: Path, user: str, key: str) -> None:
    make_key(folder / "stranger")
    with pytest.raises(paramiko.AuthenticationException):
        connect(host, folder, user, key)


def test_a_key_file_is_private(folder: Path) -> None:
    assert stat.S_IMODE((folder / "id").stat().st_mode) == 0o600


def test_only_commands_run(client: paramiko.Transport) -> None:
    for ask in (paramiko.Channel.invoke_shell, paramiko.Channel.get_pty):
        with pytest.raises(paramiko.SSHException):
            ask(client.open_session(timeout=5))
    with pytest.raises(paramiko.SSHException):
        client.open_session(timeout=5).invoke_subsystem("sftp")


def test_a_slot_is_taken_until_its_command_ends(client: paramiko.Transport) -> None:
    waiting = [start(client, "cat") for _ in range(2)]
    deaf = start(client, "exec sleep 1")
    with pytest.raises(paramiko.ChannelException, match="Connect failed"):
        client.open_session(timeout=5)
    deaf.close()
    with pytest.raises(paramiko.ChannelException, match="Connect failed"):
        client.open_session(timeout=5)
    waiting[0].shutdown_write()
    assert waiting[0].recv_exit_status() == 0
    assert run(client, "echo free")[1] == b"free\n"


def test_a_channel_that_never_ran_gives_its_slot_back(client: paramiko.Transport) -> None:
    for _ in range(9):
        client.open_session(timeout=5).close()
        time.sleep(0.02)
    assert run(client, "echo free")[1] == b"free\n"


def test_a_daemon_outlives_connection_and_host(folder: Path) -> None:
    mark = folder / "daemon-was-here"
    with LoopbackHost("dev", [(folder / "id.pub").read_text()], home=folder / "home") as host:
        transport = connect(host, folder)
        daemon = f"setsid sh -c 'sleep 0.7; echo alive > {mark}' </dev/null >/dev/null 2>&1 &"
        assert run(transport, daemon)[0] == 0
        transport.close()
    assert not mark.exists()
    wait_for(mark.exists)


def test_a_lost_client_ends_input_and_breaks_pipes(
    client: paramiko.Transport, host: LoopbackHost, folder: Path
) -> None:
    ended, broken = folder / "input-ended", folder / "pipe-broken"
    start(client, f"cat >/dev/null; echo > {ended}")
    start(client, f"trap '' PIPE; while echo tick 2>/dev/null; do sleep 0.05; done; echo > {broken}")
    time.sleep(0.2)
    host.link.cut()
    wait_for(ended.exists)
    wait_for(broken.exists)
    wait_for(lambda: not client.is_active())
    with connect(host, folder) as again:
        assert run(again, "echo back")[1] == b"back\n"


def test_a_frozen_host_says_nothing_and_loses_nothing(
    client: paramiko.Transport, host: LoopbackHost, folder: Path
) -> None:
    channel = start(client, "cat")
    host.link.freeze()
    channel.sendall(b"into the ice")
    channel.settimeout(0.3)
    with pytest.raises(TimeoutError):
        channel.recv(100)
    with socket.create_connection((host.address, host.port), timeout=0.3) as mute, pytest.raises(TimeoutError):
        mute.recv(100)
    host.link.thaw()
    channel.settimeout(5)
    assert channel.recv(100) == b"into the ice"


def test_stopping_kills_commands_and_leaves_no_thread(folder: Path) -> None:
    before = set(threading.enumerate())
    with LoopbackHost("dev", [(folder / "id.pub").read_text()], home=folder / "home") as host:
        transport = connect(host, folder)
        channel = start(transport, "echo $$; trap '' PIPE HUP TERM; while :; do sleep 0.1; done")
        pid = int(channel.recv(20))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    transport.close()
    assert set(threading.enumerate()) <= before


def test_a_host_comes_back_on_its_port_with_its_key(folder: Path) -> None:
    make_key(folder / "host")
    public = [(folder / "id.pub").read_text()]
    with LoopbackHost("dev", public, home=folder / "home", host_key=folder / "host") as first:
        port, key = first.port, first.host_key
        connect(first, folder).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with LoopbackHost("dev", public, home=folder / "home", host_key=folder / "host", port=port) as again:
        assert (again.port, again.host_key) == (port, key)
        connect(again, folder).close()


def wait_for(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_a_port_in_use_leaves_no_thread(folder: Path) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = LoopbackHost("dev", [(folder / "id.pub").read_text()], port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            host.__enter__()
    assert set(threading.enumerate()) <= before

"""The SSH host against a real sshd."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import paramiko
import pytest

from overnight.failures import HostError
from overnight.hosts.ssh import SshAddress, SshHost
from overnight.rehearsal.ssh import LoopbackHost, make_key
from tests.contracts.host import FullConnectionContract, HostContract, echo, read_all
from tests.sshd import Relay, Sshd, free_port, serving, wait_until

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def host(sshd: Sshd) -> Iterator[SshHost]:
    host = SshHost(sshd.address())
    yield host
    host.close()


def refused(host: SshHost) -> str:
    """The kind and evidence with which a connection fails."""
    with pytest.raises(HostError) as raised:
        host.connect()
    host.close()
    return f"{raised.value.failure.kind} {raised.value.failure.evidence[0].seen}"


class TestSshHost(HostContract, FullConnectionContract):
    def test_30_logins_at_once_all_get_in(self, sshd: Sshd) -> None:
        hosts = [SshHost(sshd.address(), patience_s=30) for _ in range(30)]
        threads = [threading.Thread(target=host.connect) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
        outputs = []
        for host in hosts:
            channel = host.open("exec echo in")
            outputs.append(read_all(channel))
            host.close()
        assert outputs == [b"in\n"] * 30

    def test_a_link_cut_by_the_network_is_an_error(self, sshd: Sshd) -> None:
        relay = Relay(sshd.port, lambda: 100_000)
        host = SshHost(dataclasses.replace(sshd.address(), port=relay.port))
        channel = host.open("exec yes")
        with pytest.raises(HostError) as raised:
            read_all(channel, 10)
        assert raised.value.failure.kind == "host-unreachable"
        host.close()
        relay.close()

    def test_a_byte_altered_on_the_way_is_an_error(self, sshd: Sshd) -> None:
        relay = Relay(sshd.port, lambda: 1_000_000)
        host = SshHost(dataclasses.replace(sshd.address(), port=relay.port), patience_s=0)
        assert read_all(host.open("exec echo in")) == b"in\n"
        relay.spoils = True
        with pytest.raises(HostError) as raised:
            read_all(host.open("exec echo in"), 10)
        assert raised.value.failure.kind == "host-unreachable"
        host.close()
        relay.close()


class TestCiphers:
    @pytest.mark.parametrize(
        ("offered", "taken"),
        [
            (None, "aes128-gcm@openssh.com"),
            ("chacha20-poly1305@openssh.com,aes256-ctr,aes256-gcm@openssh.com", "aes256-gcm@openssh.com"),
            ("chacha20-poly1305@openssh.com,aes192-ctr,aes128-ctr", "aes128-ctr"),
            ("aes256-cbc", "aes256-cbc"),
        ],
    )
    def test_gcm_is_taken_where_it_is_and_a_server_without_it_serves(
        self, tmp_path: Path, offered: str | None, taken: str
    ) -> None:
        options = ["LogLevel DEBUG1", *([f"Ciphers {offered}"] if offered else [])]
        with serving(tmp_path, *options) as server:
            host = SshHost(server.address())
            assert read_all(host.open("exec echo in")) == b"in\n"
            host.close()
            for way in ("client->server", "server->client"):
                assert f"kex: {way} cipher: {taken} " in server.log.read_text()


class TestForward:
    def test_nobody_listens_before_and_after(self, host: SshHost) -> None:
        there = free_port()
        with echo() as port:
            with host.forward(there, port):
                assert listens(there)
            wait_until(lambda: not listens(there))

    def test_it_is_dialled_again_when_the_link_breaks(self, tmp_path: Path) -> None:
        there = free_port()
        with LoopbackHost("dev", [make_key(tmp_path / "key")]) as server, echo() as port:
            host = SshHost(SshAddress("box", server.address, server.port, "dev", tmp_path / "key", server.host_key))
            with host.forward(there, port):
                server.link.refuse()
                server.link.cut()
                wait_until(lambda: not listens(there))
                server.link.accept()
                wait_until(lambda: said_back(there, b"again") == b"again", 60)
            host.close()

    def test_a_connection_there_ends_where_nobody_listens_here(self, host: SshHost) -> None:
        there = free_port()
        with host.forward(there, free_port()):
            assert said_back(there, b"hello") == b""

    def test_a_host_that_forbids_it_is_named_with_the_option(self, tmp_path: Path) -> None:
        with serving(tmp_path, "AllowTcpForwarding no") as server:
            self.refused(SshHost(server.address()), free_port())

    def test_a_port_that_is_taken_there_is_refused(self, host: SshHost) -> None:
        with echo() as taken:
            self.refused(host, taken)

    def refused(self, host: SshHost, port: int) -> None:
        with pytest.raises(HostError) as raised, host.forward(port, 1):
            pass
        host.close()
        assert raised.value.failure.kind == "host-unfit"
        assert f"127.0.0.1:{port}" in str(raised.value)
        assert "AllowTcpForwarding" in raised.value.failure.remedy


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def said_back(port: int, words: bytes) -> bytes:
    """What comes back from a port, b"" when it hangs up or nobody is there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            link.sendall(words)
            return link.recv(100)
    except OSError:
        return b""


class TestRefusals:
    def test_an_unknown_host_key_shows_the_line_to_pin(self, sshd: Sshd) -> None:
        seen = refused(SshHost(dataclasses.replace(sshd.address(), host_key=None)))
        assert seen.startswith("host-key-unknown")
        assert f"host_key: {sshd.host_key}" in seen
        assert "SHA256:" in seen

    def test_another_host_key_is_a_mismatch(self, sshd: Sshd) -> None:
        other = f"ssh-ed25519 {paramiko.ECDSAKey.generate().get_base64()}"
        seen = refused(SshHost(dataclasses.replace(sshd.address(), host_key=other)))
        assert seen.startswith("host-key-mismatch")
        assert seen.count("SHA256:") == 2

    def test_a_known_hosts_file_with_lines_we_cannot_use_still_serves(self, sshd: Sshd, tmp_path: Path) -> None:
        known = tmp_path / "known_hosts"
        known.write_text(
            "# comment\n\n@cert-authority *.example.com ssh-ed25519 AAAA\nbroken\n|1|bad|bad ssh-rsa AAAA\n"
            f"[127.0.0.1]:{sshd.port} {sshd.host_key} a comment\n"
        )
        host = SshHost(dataclasses.replace(sshd.address(), host_key=None, known_hosts=known))
        host.connect()
        host.close()

    def test_a_hashed_known_hosts_line_serves(self, sshd: Sshd, tmp_path: Path) -> None:
        hashed = paramiko.HostKeys.hash_host(f"[127.0.0.1]:{sshd.port}")
        known = tmp_path / "known_hosts"
        known.write_text(f"{hashed} {sshd.host_key}\n")
        host = SshHost(dataclasses.replace(sshd.address(), host_key=None, known_hosts=known))
        host.connect()
        host.close()

    def test_a_negated_known_hosts_line_does_not(self, sshd: Sshd, tmp_path: Path) -> None:
        known = tmp_path / "known_hosts"
        known.write_text(f"*,![127.0.0.1]:{sshd.port} {sshd.host_key}\n")
        host = SshHost(dataclasses.replace(sshd.address(), host_key=None, known_hosts=known))
        assert refused(host).startswith("host-key-unknown")

    def test_a_wrong_key_is_refused(self, sshd: Sshd, tmp_path: Path) -> None:
        other = tmp_path / "other"
        paramiko.ECDSAKey.generate().write_private_key_file(str(other))
        seen = refused(SshHost(dataclasses.replace(sshd.address(), key_file=other)))
        assert seen.startswith("host-auth")

    def test_a_missing_key_file_is_named(self, sshd: Sshd, tmp_path: Path) -> None:
        seen = refused(SshHost(dataclasses.replace(sshd.address(), key_file=tmp_path / "none")))
        assert seen.startswith("host-auth")
        assert str(tmp_path / "none") in seen

    def test_a_locked_key_file_is_named(self, sshd: Sshd, tmp_path: Path) -> None:
        locked = tmp_path / "locked"
        paramiko.ECDSAKey.generate().write_private_key_file(str(locked), password="secret")
        assert "passphrase" in refused(SshHost(dataclasses.replace(sshd.address(), key_file=locked)))

    def test_a_file_that_is_no_key_is_named(self, sshd: Sshd, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("hello")
        seen = refused(SshHost(dataclasses.replace(sshd.address(), key_file=tmp_path / "text")))
        assert seen.startswith("host-auth")

    def test_a_connection_that_ends_during_the_login_is_no_refused_key(self, sshd: Sshd) -> None:
        said, budget = set(), 1200
        while True:
            relay = Relay(sshd.port, partial(int, budget))
            host = SshHost(dataclasses.replace(sshd.address(), port=relay.port), patience_s=0)
            try:
                host.connect()
            except HostError as error:
                said.add(f"{error.failure.kind} {error.failure.evidence[0].seen}")
            else:
                break
            finally:
                host.close()
                relay.close()
            budget += 60
        assert not [words for words in said if not words.startswith("host-unreachable")]
        assert [words for words in said if "answered our key" in words]

    def test_nobody_there_is_given_up_after_our_patience(self, sshd: Sshd) -> None:
        host = SshHost(dataclasses.replace(sshd.address(), port=free_port()), patience_s=1)
        assert refused(host).startswith("host-unreachable")


def test_nothing_of_the_library_reaches_standard_error(sshd: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    host = SshHost(dataclasses.replace(sshd.address(), port=free_port()), patience_s=0.2)
    refused(host)
    relay = Relay(sshd.port, lambda: 10)
    refused(SshHost(dataclasses.replace(sshd.address(), port=relay.port), patience_s=0.2))
    relay.close()
    assert capfd.readouterr() == ("", "")
    assert os.path.exists(sshd.log)

"""Every error class of the library has a failure; one that is new to us fails here."""

from __future__ import annotations

import inspect
import socket
from pathlib import Path

import paramiko
import pytest
from paramiko import ssh_exception
from paramiko.pkey import UnknownKeyType

from overnight.hosts.translate import SshAddress, translate

ADDRESS = SshAddress("box", "10.0.0.5", 22, "dev", Path("/keys/id"))
KEY = paramiko.ECDSAKey.generate()

CASES: list[tuple[Exception, str, str]] = [
    (ssh_exception.SSHException("Error reading SSH protocol banner"), "host-unreachable", "banner"),
    (ssh_exception.SSHException("No existing session"), "host-unreachable", "No existing session"),
    (ssh_exception.AuthenticationException("Authentication failed."), "host-auth", "/keys/id"),
    (ssh_exception.AuthenticationException("Authentication timeout."), "host-unreachable", "before the host had"),
    (ssh_exception.PasswordRequiredException("encrypted"), "host-auth", "passphrase"),
    (ssh_exception.BadAuthenticationType("no", ["password"]), "host-auth", "only password"),
    (ssh_exception.PartialAuthentication(["password"]), "host-auth", "/keys/id"),
    (ssh_exception.UnableToAuthenticate("no"), "host-auth", "/keys/id"),
    (ssh_exception.ChannelException(2, "Connect failed"), "host-unreachable", "MaxSessions"),
    (ssh_exception.BadHostKeyException("box", KEY, KEY), "host-key-mismatch", "SHA256:"),
    (ssh_exception.IncompatiblePeer("no kex"), "host-unfit", "no common algorithm"),
    (ssh_exception.ProxyCommandFailure("nc", "gone"), "host-unreachable", "nc"),
    (ssh_exception.NoValidConnectionsError({("10.0.0.5", 22): OSError()}), "host-unreachable", "Unable to connect"),
    (ssh_exception.CouldNotCanonicalize("box"), "host-unfit", "configuration"),
    (ssh_exception.ConfigParseError("line 3"), "host-unfit", "configuration"),
    (ssh_exception.MessageOrderError("order"), "host-unreachable", "order"),
    (UnknownKeyType("ssh-x", b""), "host-auth", "no key we can read"),
    (socket.gaierror(-2, "Name or service not known"), "host-unreachable", "10.0.0.5 does not resolve"),
    (ConnectionRefusedError(111, "Connection refused"), "host-unreachable", "refused"),
    (ConnectionResetError(104, "reset"), "host-unreachable", "reset"),
    (TimeoutError("timed out"), "host-unreachable", "timed out"),
    (FileNotFoundError(2, "No such file", "/keys/id"), "host-auth", "/keys/id"),
    (PermissionError(13, "Permission denied", "/keys/id"), "host-auth", "/keys/id"),
    (PermissionError(1, "Operation not permitted"), "host-unreachable", "not permitted"),  # a firewall, no file
    (EOFError(), "host-unreachable", "no more was said"),
]


@pytest.mark.parametrize(("error", "kind", "seen"), CASES, ids=lambda value: type(value).__name__)
def test_an_error_is_named(error: Exception, kind: str, seen: str) -> None:
    failure = translate(error, ADDRESS).failure
    assert failure.kind == kind
    assert seen in failure.evidence[0].seen
    assert type(error).__name__ in failure.evidence[0].seen
    assert failure.evidence[0].where == "dev@10.0.0.5:22"


def test_every_class_the_library_raises_is_in_the_table() -> None:
    raised = {cls for _, cls in inspect.getmembers(ssh_exception, inspect.isclass) if issubclass(cls, Exception)}
    assert raised - {type(error) for error, _, _ in CASES} == set()

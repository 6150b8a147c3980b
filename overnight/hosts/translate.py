"""Where an SSH host is, and what the library's errors on the way there mean."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from overnight.failures import Evidence, FailureKind, HostError, fail

_K = FailureKind
# paramiko 5.1.0 calls it a failed login when the connection ends, or says nothing for 30 s, before the key was answered
_UNANSWERED = ("Authentication failed: transport shut down or saw EOF", "Authentication timeout.")
BROKEN = (paramiko.SSHException, OSError, EOFError)  # what paramiko raises when a connection breaks, wherever it is


@dataclass(frozen=True)
class SshAddress:
    """Where a host is and how to be sure of it.

    `host_key` is the pinned key as known_hosts has it, `TYPE BASE64`. Without
    it the key must stand in `known_hosts`. A host in neither is refused.
    """

    name: str
    address: str
    port: int
    user: str
    key_file: Path
    host_key: str | None = None
    known_hosts: Path | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.address}:{self.port}"


def seen(text: str, address: SshAddress) -> Evidence:
    return Evidence(source="host", seen=text, where=str(address))


def translate(error: Exception, address: SshAddress) -> HostError:
    """The failure an error of paramiko or the socket stands for.

    Order matters: paramiko raises its plain SSHException for both a full host
    and a silent one, and a missing key file is an OSError like a refused
    connection.
    """
    kind, text = _named(error, address)
    return HostError(fail(kind, seen(f"{text} ({type(error).__name__})", address), names={"host": address.name}))


def _named(error: Exception, address: SshAddress) -> tuple[FailureKind, str]:
    said = str(error) or "no more was said"
    match error:
        case paramiko.BadHostKeyException():
            return _K.HOST_KEY_MISMATCH, f"the host shows {error.key.fingerprint}"
        case paramiko.PasswordRequiredException():
            return _K.HOST_AUTH, f"the key file {address.key_file} is locked with a passphrase"
        case paramiko.BadAuthenticationType():
            return _K.HOST_AUTH, f"the host takes no public key, only {', '.join(error.allowed_types)}"
        case paramiko.AuthenticationException() if said in _UNANSWERED:
            return _K.HOST_UNREACHABLE, f"the connection ended before the host had answered our key: {said}"
        case paramiko.AuthenticationException():
            return _K.HOST_AUTH, f"the host refused the key {address.key_file}"
        case paramiko.ChannelException():
            return _K.HOST_UNREACHABLE, f"the host opens no further channel: {error.text}; see MaxSessions of its sshd"
        case paramiko.ssh_exception.IncompatiblePeer():
            return _K.HOST_UNFIT, f"no common algorithm: {said}"
        case paramiko.ssh_exception.ConfigParseError() | paramiko.ssh_exception.CouldNotCanonicalize():
            return _K.HOST_UNFIT, f"SSH configuration cannot be used: {said}"
        case UnknownKeyType():
            return _K.HOST_AUTH, f"the key file {address.key_file} holds no key we can read"
        case OSError() if error.filename is not None:  # a refused connection names no file
            return _K.HOST_AUTH, f"the key file {address.key_file} cannot be read: {error.strerror}"
        case socket.gaierror():
            return _K.HOST_UNREACHABLE, f"the name {address.address} does not resolve: {error.strerror}"
        case _:
            return _K.HOST_UNREACHABLE, said

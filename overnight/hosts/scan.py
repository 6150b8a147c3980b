"""Which keys a host shows to whoever dials, asked without logging in."""

from __future__ import annotations

from pathlib import Path

import paramiko

from overnight.failures import HostError
from overnight.hosts.ssh import negotiate, open_socket
from overnight.hosts.translate import BROKEN, SshAddress, translate

# the best first; one handshake for each, as ssh-keyscan does it, since a host shows one key a handshake
_KINDS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)


def scan(name: str, address: str, port: int) -> tuple[str, ...]:
    """The host's public keys as `TYPE BASE64`, the best first; at least one.

    Nothing proves that they are the right host's: whoever answers at that
    address shows keys. Blocks, 20 s at most for each of three connections.

    Raises:
        HostError: nobody answers there, or nobody who speaks SSH with a key of a known kind.
    """
    where = SshAddress(name, address, port, "nobody", Path())
    found: list[str] = []
    refused: HostError | None = None
    for kinds in _KINDS:
        try:
            key = _shown(where, kinds)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            refused = translate(error, where)
        except BROKEN as error:
            raise translate(error, where) from error
        else:
            found.append(f"{key.get_name()} {key.get_base64()}")
    if not found and refused is not None:
        raise refused
    return tuple(found)


def _shown(where: SshAddress, kinds: tuple[str, ...]) -> paramiko.PKey:
    transport = paramiko.Transport(open_socket(where))
    try:
        transport.get_security_options().key_types = kinds
        negotiate(transport)
        return transport.get_remote_server_key()
    finally:
        transport.close()

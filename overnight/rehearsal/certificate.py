"""A certificate that nobody has signed but itself, for servers on loopback."""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFE = timedelta(days=1)
_HOUR = timedelta(hours=1)
_ELSEWHERE = "elsewhere.invalid"


class Flaw(StrEnum):
    """What is wrong with a certificate whoever signed it. A client tells it only when it trusts the certificate."""

    EXPIRED = "expired"
    """An hour ago."""
    OTHER_NAME = "other-name"
    """It is for another host."""


@contextmanager
def self_signed(flaw: Flaw | None = None) -> Iterator[Path]:
    """A file with a key and its certificate for a server on 127.0.0.1, gone at the end of the block."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    ours = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    names = x509.SubjectAlternativeName([x509.DNSName(_ELSEWHERE)] if flaw is Flaw.OTHER_NAME else ours)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now - _HOUR if flaw is Flaw.EXPIRED else now + _LIFE)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.TemporaryDirectory(prefix="overnight-tls-") as directory:
        path = Path(directory, "chain.pem")
        path.touch(mode=0o600)
        path.write_bytes(private + pem)
        yield path


def certificates_in(path: Path) -> str:
    """The PEM of the certificate in such a file, without the key: what a client is given to trust."""
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.PEM).decode()

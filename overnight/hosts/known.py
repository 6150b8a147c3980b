"""Reads known_hosts, so that a host the user has met by `ssh` is known to us too."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path


def accepted(host_key: str | None, known_hosts: Path | None, address: str, port: int) -> frozenset[str]:
    """Keys a host may show, as `TYPE BASE64`: the pinned one alone, or those known_hosts lists for it."""
    if host_key is not None:
        return frozenset({" ".join(host_key.split()[:2])})
    if known_hosts is None or not known_hosts.exists():
        return frozenset()
    return frozenset(_listed(known_hosts.read_text(encoding="utf-8", errors="replace"), address, port))


def _listed(text: str, address: str, port: int) -> Iterator[str]:
    """Line by line: one line we cannot use must not hide the others.

    Marked lines (@cert-authority, @revoked) are skipped: paramiko knows no host certificates.
    """
    wanted = address if port == 22 else f"[{address}]:{port}"
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0][0] in "#@":
            continue
        names = fields[0].split(",")
        refused = any(_names(name[1:], wanted) for name in names if name.startswith("!"))
        if not refused and any(_names(name, wanted) for name in names):
            yield f"{fields[1]} {fields[2]}"


def _names(pattern: str, wanted: str) -> bool:
    if not pattern.startswith("|1|"):
        return fnmatch.fnmatchcase(wanted, pattern.replace("[", "[[]"))  # a bracket here is no character class
    try:
        salt, proof = (base64.b64decode(part) for part in pattern.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, wanted.encode(), hashlib.sha1).digest(), proof)


def fingerprint(pin: str) -> str:
    """Kind and SHA256 of a key, as ssh-keygen prints it."""
    kind, _, body = pin.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(body)).digest()
    except binascii.Error:
        return f"{kind} (not a key)"
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

"""Keeps keys out of our copies: every key is masked, byte for byte, before a log touches our disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

_TELLING_BYTES = 8  # a cut-off key shorter than this tells nothing, and may as well be an innocent "s"


def fingerprint(key: str, salt: str) -> str:
    """Tells keys apart under one salt, on whatever machine it is made. Takes 50 ms, so that guessing does not pay."""
    return hashlib.scrypt(key.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=6).hex()


class Mask:
    """A stream in which every occurrence of a secret becomes as many asterisks.

    Lengths never change, so offsets here equal offsets at the source. Bytes
    that may yet turn out to be the beginning of a secret are held back until
    the next `feed` or `flush`.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._any = re.compile(b"|".join(map(re.escape, self._secrets)) or rb"(?!)")
        self._longest = max(map(len, self._secrets), default=0)
        self._begun_by = frozenset(b"".join(secret[:-1] for secret in self._secrets))
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes taken in and not given out."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        if not self._secrets:
            return data
        data = self._held + data if self._held else data
        parts, done = list[bytes](), 0
        there = any(secret in data for secret in self._secrets)  # 20 times as fast as the expression
        while True:
            hold = self._hold_from(data, done)
            match = self._any.search(data, done) if there else None
            if match is None or match.start() >= hold:
                break
            parts += [data[done : match.start()], b"*" * len(match[0])]
            done = match.end()
        self._held = data[hold:]
        return b"".join([*parts, data[done:hold]]) if parts or hold < len(data) else data

    def flush(self) -> bytes:
        """What is held, at the end of the stream. The beginning of a secret that was cut off is masked too."""
        held, self._held = self._held, b""
        if len(held) >= _TELLING_BYTES:
            return b"*" * len(held)
        return self._any.sub(lambda match: b"*" * len(match[0]), held)

    def _hold_from(self, data: bytes, start: int) -> int:
        """The first place from `start` on whose rest is the beginning of a longer secret; the end if there is none."""
        if not data or data[-1] not in self._begun_by:
            return len(data)
        begin = max(start, len(data) - self._longest + 1)
        tail = data[begin:]
        return begin + min((_beginning(tail, secret) for secret in self._secrets), default=len(tail))


def _beginning(tail: bytes, secret: bytes) -> int:
    """Where the beginning of a longer secret ends `tail`; its length if nowhere. Every event comes by here."""
    at = tail.find(secret[:1])
    while at >= 0 and not (len(tail) - at < len(secret) and secret.startswith(tail[at:])):
        at = tail.find(secret[:1], at + 1)
    return at if at >= 0 else len(tail)

"""What our processes on a host say: frames, each a line of JSON and as many bytes as it announces."""

from __future__ import annotations

from typing import Any

import orjson

from overnight.failures import Evidence, FailureKind, HostError, fail
from overnight.hosts.protocol import Channel

RECV_BYTES = 2_097_152
"""All that a channel holds unread. paramiko moves what a smaller read leaves to the front: a GB took half as long
again (paramiko 5.1, reads of 256 kB, 2 cores, 2026-11-30)."""


class Frames:
    """Frames out of a channel.

    Args:
        silence_s: How long nothing may be heard.

    Raises:
        TimeoutError: from `next`, when it was that long.
        HostError: from `next`, when the channel ended or what came is no frame.
    """

    def __init__(self, channel: Channel, silence_s: float) -> None:
        self._channel = channel
        self._silence_s = silence_s
        self._pending, self._at = b"", 0

    def next(self) -> tuple[dict[str, Any], bytes]:
        """A frame and the bytes that came with it; blocks until it is there."""
        while (end := self._pending.find(b"\n", self._at)) < 0:
            self._more()
        frame = self._read(self._take(end + 1 - self._at))
        return frame, self._data(frame.get("n", 0))

    def _data(self, size: int) -> bytes:
        """So many bytes, joined once: joining all there is at every arrival would copy each byte many times."""
        parts = [self._take(size)]
        size -= len(parts[0])
        while size > 0:
            self._more()
            parts.append(self._take(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            frame: dict[str, Any] = orjson.loads(line)
        except ValueError as error:
            raise self._broken(f"a frame cannot be read: {line[:80]!r}") from error
        return frame

    def _more(self) -> None:
        data = self._channel.recv(RECV_BYTES, self._silence_s)
        if not data:
            words = self._channel.errors().decode("utf-8", "replace").strip()[-300:]
            raise self._broken(f"our process on the host ended: {words or 'no words'}")
        self._pending, self._at = self._pending[self._at :] + data, 0

    def _broken(self, seen: str) -> HostError:
        return HostError(fail(FailureKind.HOST_UNREACHABLE, Evidence(source="host", seen=seen)))

    def _take(self, size: int) -> bytes:
        taken = self._pending[self._at : self._at + size]
        self._at += len(taken)
        return taken

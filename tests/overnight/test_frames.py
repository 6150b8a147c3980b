"""Frames, however a connection cuts what a host said."""

from __future__ import annotations

import json

import pytest

from overnight.failures import HostError
from overnight.frames import Frames

SAID = [({"k": "out", "n": 300_000}, b"\n{}\n" * 75_000), ({"k": "h"}, b""), ({"k": "err", "n": 1}, b"\n")]
WIRE = b"".join(json.dumps(frame).encode() + b"\n" + data for frame, data in SAID)


class Pieces:
    """A channel that gives what was said in pieces of one size, and then ends."""

    def __init__(self, said: bytes, size: int) -> None:
        self._pieces = iter([said[at : at + size] for at in range(0, len(said), size)])

    def recv(self, limit: int, timeout_s: float | None) -> bytes:
        piece = next(self._pieces, b"")
        assert len(piece) <= limit
        return piece

    def errors(self) -> bytes:
        return b"its last words"

    def send(self, data: bytes) -> None: ...

    def close_input(self) -> None: ...

    def exit_code(self, timeout_s: float) -> int:
        return 1

    def close(self) -> None: ...


@pytest.mark.parametrize("size", [1, 7, 31, 32, 33, 32_768, 200_000])
def test_frames_come_whole_wherever_they_are_cut(size: int) -> None:
    frames = Frames(Pieces(WIRE * 2, size), 1)
    assert [frames.next() for _ in range(6)] == SAID * 2
    with pytest.raises(HostError, match="its last words"):
        frames.next()


def test_a_frame_that_lacks_its_end_is_an_error() -> None:
    with pytest.raises(HostError, match="its last words"):
        Frames(Pieces(WIRE[:200_000], 32_768), 1).next()

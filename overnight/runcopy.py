"""Our own append-only copy of what a run prints, with its keys masked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from overnight.events import Output
from overnight.frames import CHUNK_BYTES
from overnight.redact import Mask

Stream = Literal["out", "err"]
STREAMS: tuple[Stream, Stream] = ("out", "err")


class RunCopy:
    """Our own append-only copy of one run's output: the files `out` and `err` in a directory.

    Secrets are masked before they are written, byte for byte, so that sizes
    here are offsets there. One writer at a time; close it when no longer watched.
    """

    def __init__(self, directory: Path, secrets: Sequence[bytes] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._secrets = tuple(secrets)
        self._files = {stream: open(directory / stream, "ab", buffering=0) for stream in STREAMS}  # noqa: SIM115  # `close`
        self._masks: dict[Stream, Mask] = {}
        self.rewind()

    def rewind(self) -> None:
        """Forget what is held back: the host will send it again from `offset`."""
        self._masks = {stream: Mask(self._secrets) for stream in STREAMS}

    def replay(self) -> Iterator[Output]:
        """What the copy holds already, `out` first."""
        for stream in STREAMS:
            at = 0
            with open(self.directory / stream, "rb") as file:
                while data := file.read(CHUNK_BYTES):
                    yield Output(stream, at, data)
                    at += len(data)

    def offset(self, stream: Stream) -> int:
        return os.fstat(self._files[stream].fileno()).st_size

    def expects(self, stream: Stream) -> int:
        """The offset the next bytes must have: all that is written and all that is held."""
        return self.offset(stream) + self._masks[stream].held

    def append(self, stream: Stream, data: bytes) -> Output | None:
        """Take bytes in; what was written, or None while all of it is held back."""
        return self._write(stream, self._masks[stream].feed(data))

    def flush(self, stream: Stream) -> Output | None:
        """Write what is held, at the end of the run."""
        return self._write(stream, self._masks[stream].flush())

    def masked(self, record: Any) -> Any:
        """Plain data of the same run, each text in it masked. Any of them may have been cut off within a secret."""
        if isinstance(record, str):
            mask = Mask(self._secrets)
            return (mask.feed(record.encode(errors="replace")) + mask.flush()).decode(errors="replace")
        if isinstance(record, list):
            return [self.masked(each) for each in record]
        return {name: self.masked(each) for name, each in record.items()} if isinstance(record, dict) else record

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _write(self, stream: Stream, data: bytes) -> Output | None:
        if not data:
            return None
        file, at = self._files[stream], self.offset(stream)
        try:
            if file.write(data) < len(data):
                raise OSError("the disk took only a part of it")
        except OSError:
            file.truncate(at)  # all or nothing: what the sink was not told must not count
            raise
        return Output(stream, at, data)

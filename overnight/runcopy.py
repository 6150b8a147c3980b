"""Our own append-only copy of what a run prints, with its keys masked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from overnight.events import Output
from overnight.redact import Mask

Stream = Literal["out", "err"]
STREAMS: tuple[Stream, Stream] = ("out", "err")

TOLD_BYTES = 4_194_304
REPLAY_BYTES = 262_144
_GAPS = "gaps.jsonl"


class Gap(NamedTuple):
    """A range that the host had given back, on another controller's word, before we read it."""

    stream: Stream
    begin: int
    end: int

    def __str__(self) -> str:
        lost = f"{self.end - self.begin} bytes of {self.stream}, from {self.begin} on"
        return f"{lost}, are missing: the host gave them back when another controller had them"


def gaps(directory: Path) -> list[Gap]:
    """What is missing in the copy that lies there."""
    try:
        lines = (directory / _GAPS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Gap(**json.loads(line)) for line in lines]


class RunCopy:
    """Our own append-only copy of one run's output: the files `out` and `err` in a directory.

    Secrets are masked before they are written, byte for byte, so that sizes
    here are offsets there. One writer at a time; close it when no longer watched.
    It needs no cap of its own: the host ends a run whose output outgrows `max_log_bytes`.

    Args:
        owns: Whether it is the one copy that counts: the host may give back the room of what is safe here.
    """

    def __init__(self, directory: Path, secrets: Sequence[bytes] = (), *, owns: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._owns = owns
        self._safe: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        self._secrets = tuple(secrets)
        self._files = {stream: open(directory / stream, "ab", buffering=0) for stream in STREAMS}  # noqa: SIM115  # `close`
        self._sizes: dict[Stream, int] = {}
        self._masks: dict[Stream, Mask] = {}
        self.rewind()

    def rewind(self) -> None:
        """Forget what is held back: the host will send it again from `offset`."""
        self._sizes = {stream: os.fstat(file.fileno()).st_size for stream, file in self._files.items()}
        self._masks = {stream: Mask(self._secrets) for stream in STREAMS}

    def replay(self) -> Iterator[Output]:
        """What the copy holds already, `out` first."""
        for stream in STREAMS:
            holes = [gap for gap in gaps(self.directory) if gap.stream == stream]
            at = 0
            with open(self.directory / stream, "rb") as file:
                for begin, end in [(gap.begin, gap.end) for gap in holes] + [(None, 0)]:
                    while data := file.read(REPLAY_BYTES if begin is None else min(REPLAY_BYTES, begin - at)):
                        yield Output(stream, at, data)
                        at += len(data)
                    at = file.seek(end) if begin is not None else at

    def offset(self, stream: Stream) -> int:
        return self._sizes[stream]

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

    def skip(self, stream: Stream, until: int) -> None:
        """Go on at `until`: what lies before it is on no disk of the host any more. Noted beside the copy."""
        begin = self.expects(stream)
        self.flush(stream)
        with (self.directory / _GAPS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stream": stream, "begin": begin, "end": until}) + "\n")
        self._files[stream].truncate(until)
        self._sizes[stream] = until

    def safe(self) -> dict[Stream, int] | None:
        """How much of each stream is on our disk for good, once that has grown enough to be worth telling."""
        sizes: dict[Stream, int] = {stream: self.offset(stream) for stream in STREAMS}
        if not self._owns or all(sizes[stream] - self._safe[stream] < TOLD_BYTES for stream in STREAMS):
            return None
        for stream in STREAMS:
            os.fsync(self._files[stream].fileno())
        self._safe = sizes
        return sizes

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
        self._sizes[stream] = at + len(data)
        return Output(stream, at, data)

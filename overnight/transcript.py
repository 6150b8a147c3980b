"""What one run said, kept small: the events that matter, and head and tail of the bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from overnight.events import Act, AgentEvent, Ending

HEAD_BYTES = 4096
TAIL_BYTES = 8192


@dataclass(frozen=True)
class Said:
    """One agent event and when it came, in seconds since the run started."""

    at_s: float
    event: AgentEvent


@dataclass
class Transcript:
    """Grows while a run is followed; `diagnose` reads it at the end.

    `said` keeps every event except plain signs of life, at most `limit` of the
    newest; the first INIT is kept apart so that a long run cannot push it out.
    """

    limit: int = 2000
    init: Said | None = None
    said: deque[Said] = field(default_factory=deque)
    out_head: bytearray = field(default_factory=bytearray)
    out_tail: bytearray = field(default_factory=bytearray)
    err_tail: bytearray = field(default_factory=bytearray)
    out_bytes: int = 0
    err_bytes: int = 0
    ending: Ending | None = None

    def add_bytes(self, stream: str, data: bytes) -> None:
        if stream == "err":
            self.err_bytes += len(data)
            _keep_tail(self.err_tail, data)
            return
        self.out_bytes += len(data)
        self.out_head += data[: max(0, HEAD_BYTES - len(self.out_head))]
        _keep_tail(self.out_tail, data)

    def add_events(self, at_s: float, events: Iterable[AgentEvent]) -> None:
        for event in events:
            if event.act is Act.INIT and self.init is None:
                self.init = Said(at_s, event)
            if event.act is Act.OTHER:
                continue
            self.said.append(Said(at_s, event))
            if len(self.said) > self.limit:
                self.said.popleft()

    def last(self, *acts: Act) -> Said | None:
        """The newest event of one of these acts."""
        return next((s for s in reversed(self.said) if s.event.act in acts), None)

    def first(self, *acts: Act) -> Said | None:
        return next((s for s in self.said if s.event.act in acts), None)


def _keep_tail(tail: bytearray, data: bytes) -> None:
    tail += data[-TAIL_BYTES:]
    del tail[:-TAIL_BYTES]

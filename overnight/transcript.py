"""What one run said, kept small: the events that matter, and head and tail of the bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from overnight.events import Act, AgentEvent, Ending
from overnight.session import session_id

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
    `session` is the last id of its session that it told.
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
    session: str | None = None
    _newest: dict[Act, tuple[int, Said]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _count: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for said in self.said:
            self._note(said)

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
            self.session = session_id(event.session) or self.session
            if event.act is Act.OTHER:
                continue
            said = Said(at_s, event)
            self.said.append(said)
            self._note(said)
            if len(self.said) > self.limit:
                gone = self.said.popleft()
                if self._newest[gone.event.act][1] is gone:
                    del self._newest[gone.event.act]

    def _note(self, said: Said) -> None:
        self._count += 1
        self._newest[said.event.act] = self._count, said

    def last(self, *acts: Act) -> Said | None:
        """The newest event of one of these acts. Asked after every event: it costs the same however long the run."""
        found = [self._newest[act] for act in acts if act in self._newest]
        return max(found, key=lambda numbered: numbered[0])[1] if found else None

    def first(self, *acts: Act) -> Said | None:
        return next((s for s in self.said if s.event.act in acts), None)


def _keep_tail(tail: bytearray, data: bytes) -> None:
    tail += data[-TAIL_BYTES:]
    del tail[:-TAIL_BYTES]

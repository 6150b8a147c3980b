"""An answer as moves on the wire, and what a fault does to it.

A move is bytes, the head of the answer, a pause, or the cut of the connection.
Moves are data: what will be sent can be read and tested without a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat

from overnight.rehearsal import messages
from overnight.rehearsal.dialects import Shape
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Reply
from overnight.rehearsal.refusals import JSON, Refusal, error_event

STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Head:
    status: int
    media_type: str
    retry_after_s: int | None = None


@dataclass(frozen=True)
class Pause:
    """Send nothing for so long; None is until the client leaves."""

    seconds: float | None


@dataclass(frozen=True)
class Cut:
    """End the connection with the answer unfinished."""


Move = Head | bytes | Pause | Cut
Answer = Iterator[Move]


def refuse(refused: Refusal) -> Answer:
    return iter((Head(refused.status, refused.media_type, refused.retry_after_s), refused.body))


def speak(
    reply: Reply, model: str, turn: int, *, stream: bool, fault: Fault | None = None, shape: Shape = "anthropic"
) -> Answer:
    """A turn of the model, spoiled by `fault` if there is one; an error in the middle is in the words of `shape`."""
    parts = messages.turn_events(reply, model, turn) if stream else _halves(messages.turn_body(reply, model, turn))
    head = Head(200, STREAM if stream else JSON)
    return chain((Pause(reply.wait_s),), _spoil(head, parts, fault, stream=stream, shape=shape))


def _spoil(head: Head, parts: tuple[bytes, ...], fault: Fault | None, *, stream: bool, shape: Shape) -> Answer:
    partial = parts[: len(parts) // 2]
    match fault.kind if fault else None:
        case FaultKind.HANG:
            return iter((Pause(None),))
        case FaultKind.HEADERS_ONLY:
            return iter((head, Pause(None)))
        case FaultKind.STALL:
            return iter((head, *partial, Pause(None)))
        case FaultKind.CUT:
            return iter((head, *partial, Cut()))
        case FaultKind.STREAM_ERROR if fault and stream:
            return iter((head, *(() if fault.at_once else partial), error_event(fault, shape)))
        case FaultKind.DRIP if fault:
            alive = messages.PING if stream else b" "
            return chain((head, *partial), chain.from_iterable(repeat((Pause(fault.every_s), alive))))
    return iter((head, *parts))


def _halves(body: bytes) -> tuple[bytes, ...]:
    return body[: len(body) // 2], body[len(body) // 2 :]

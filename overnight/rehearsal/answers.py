"""An answer as moves on the wire, and what a fault does to it.

A move is bytes, the head of the answer, a pause, or the cut of the connection.
Moves are data: what will be sent can be read and tested without a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Protocol

from overnight.rehearsal import messages
from overnight.rehearsal.dialects import Shape, Words
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Reply, Request
from overnight.rehearsal.refusals import JSON, Refusal, said_in_stream

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


class Api(Protocol):
    """How one API is spoken. A module that has these names is one."""

    PING: bytes
    """An event that says nothing but that the peer lives."""
    WORDS_AT: int
    """So many events come before the first words of a turn that has any."""
    ENDING: int
    """So many events end a turn whose usage was not asked for."""

    def read(self, body: Request) -> Request:
        """The request as a Messages API request."""
        ...

    def turn_body(self, reply: Reply, model: str, turn: int) -> bytes: ...

    def turn_events(self, reply: Reply, model: str, turn: int, *, usage: bool) -> tuple[bytes, ...]:
        """`usage` is whether the request asked for the count of tokens."""
        ...

    def error_event(self, spoken: Shape, words: Words) -> bytes: ...

    def framed(self, refused: Refusal) -> Refusal:
        """The refusal with the body that this API's clients get."""
        ...


Move = Head | bytes | Pause | Cut
Answer = Iterator[Move]


def refuse(refused: Refusal, wait_s: float = 0) -> Answer:
    return iter((Pause(wait_s), Head(refused.status, refused.media_type, refused.retry_after_s), refused.body))


def speak(
    reply: Reply,
    model: str,
    turn: int,
    *,
    stream: bool,
    usage: bool = True,
    fault: Fault | None = None,
    shape: Shape = "anthropic",
    api: Api = messages,
) -> Answer:
    """A turn of the model, spoiled by `fault` if there is one; an error in the middle is in the words of `shape`.

    `usage` is whether a stream's request asked for the count of tokens; only chat completions leave it out.
    """
    kind = fault.kind if fault else None
    wait_s = reply.wait_s + (fault.wait_s if fault else 0)
    if kind is FaultKind.EMPTY_ANSWER:
        reply = Reply("")
    if kind is FaultKind.TRUNCATED or not stream:
        moves = _spoil(Head(200, JSON), _halves(api.turn_body(reply, model, turn)), fault, b" ")
    elif fault and kind is FaultKind.DRIP and fault.drips == "text":
        words = api.turn_events(Reply("Thinking. " * 2), model, turn, usage=False)
        moves = _drip((Head(200, STREAM), *words[: api.WORDS_AT]), fault, words[api.WORDS_AT])
    else:
        parts = api.turn_events(reply, model, turn, usage=usage)
        if fault and kind is FaultKind.STREAM_ERROR:
            before = () if fault.at_once else parts[: len(parts) // 2]
            parts = (*before, api.error_event(*said_in_stream(fault, shape, model)))
        elif kind is FaultKind.EMPTY_STREAM:
            parts = ()
        elif kind is FaultKind.NO_STOP:
            parts = api.turn_events(reply, model, turn, usage=False)[: -api.ENDING]
        moves = _spoil(Head(200, STREAM), parts, fault, api.PING)
    return chain((Pause(wait_s),), moves)


def _spoil(head: Head, parts: tuple[bytes, ...], fault: Fault | None, alive: bytes) -> Answer:
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
        case FaultKind.TRUNCATED:
            return iter((head, *partial))
        case FaultKind.DRIP if fault:
            return _drip((head, *partial), fault, alive)
    return iter((head, *parts))


def _drip(before: tuple[Move, ...], fault: Fault, drop: bytes) -> Answer:
    return chain(before, chain.from_iterable(repeat((Pause(fault.every_s), drop))))


def _halves(body: bytes) -> tuple[bytes, ...]:
    return body[: len(body) // 2], body[len(body) // 2 :]

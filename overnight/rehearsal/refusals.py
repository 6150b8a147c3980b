"""A refusal as the complete answer a client gets, in the shape of its site."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from overnight.rehearsal.dialects import Shape, Why, Words, body_in_ok, body_of, words_of
from overnight.rehearsal.faults import SAYABLE, Fault, FaultKind

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"
_WINDOW = timedelta(hours=5)


@dataclass(frozen=True)
class Refusal:
    """A complete answer that is not a turn of the model."""

    status: int
    body: bytes
    media_type: str = JSON
    retry_after_s: int | None = None


def refuse(shape: Shape, why: Why, retry_after_s: int | None = None, **holes: object) -> Refusal:
    """Say no in the words of `shape`. `holes` fill the message: `wanted`, `model`, `problem`, `resets_at`."""
    spoken, words = _filled(shape, why, holes)
    if words.plain:
        return Refusal(words.status, words.message.encode(), TEXT, retry_after_s)
    return Refusal(words.status, _json(body_of(spoken, words)), retry_after_s=retry_after_s)


def refuse_in_ok(shape: Shape, why: Why, **holes: object) -> Refusal:
    """The same no inside HTTP 200."""
    return Refusal(200, _json(body_in_ok(*_filled(shape, why, holes))))


def refusal(fault: Fault, shape: Shape, now: datetime) -> Refusal | None:
    """The answer a fault puts in place of a turn; None for a fault that spoils a turn instead (`hang`, `cut` ...)."""
    match fault.kind:
        case FaultKind.BAD_GATEWAY:
            return Refusal(502, _PAGE, HTML)
        case FaultKind.HTML_PAGE:
            return Refusal(200, _PAGE, HTML)
        case FaultKind.EMPTY:
            return Refusal(200, b"")
        case FaultKind.ERROR_IN_OK if fault.says:
            return refuse_in_ok(_speaker(fault.says, shape), Why(fault.says), resets_at=_resets(fault, now))
        case FaultKind.ERROR_IN_OK if shape == "zhipu":
            return Refusal(200, _json({"code": 500, "msg": "404 NOT_FOUND", "success": False}))
        case FaultKind.ERROR_IN_OK:
            return refuse_in_ok("anthropic", Why.SERVER_ERROR)
        case kind if kind in SAYABLE:
            return refuse(_speaker(kind, shape), Why(kind), fault.retry_after_s, resets_at=_resets(fault, now))
    return None


def said_in_stream(fault: Fault, shape: Shape) -> tuple[Shape, Words]:
    """A fault's error inside a stream that began with HTTP 200, and the shape whose words it has."""
    says = fault.says
    if says is None:
        return words_of("anthropic", Why.OVERLOADED)
    return _filled(_speaker(says, shape), Why(says), {"resets_at": _resets(fault, datetime.now(UTC))})


def _speaker(kind: FaultKind, shape: Shape) -> Shape:
    """Anthropic has `credit-too-low` for the one and no words for the other: its sites say ZhiPu's."""
    only_zhipu = kind in (FaultKind.NO_BALANCE, FaultKind.WINDOW_USED_UP)
    return "zhipu" if shape == "anthropic" and only_zhipu else shape


def _resets(fault: Fault, now: datetime) -> datetime:
    return fault.resets_at or now + _WINDOW


def _filled(shape: Shape, why: Why, holes: dict[str, object]) -> tuple[Shape, Words]:
    spoken, words = words_of(shape, why)
    return spoken, words._replace(message=words.message.format(**holes))


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()

"""A refusal as the complete answer a client gets, in the shape of its site."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from overnight.rehearsal.codes import coded
from overnight.rehearsal.dialects import Shape, Why, Words, body_in_ok, body_of, words_of
from overnight.rehearsal.faults import SAYABLE, Fault, FaultKind

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"
_FIREWALL = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body><h1>Blocked</h1></body></html>"
_WINDOW = timedelta(hours=5)
_ZHIPU_LOST = {"code": 500, "msg": "404 NOT_FOUND", "success": False}

# the status that a kind stands for, and who has it where the site's shape has another
_AT: dict[FaultKind, tuple[int, Shape]] = {
    FaultKind.MODEL_NOT_FOUND: (404, "anthropic"),
    FaultKind.UNKNOWN_MODEL: (400, "zhipu"),
}


@dataclass(frozen=True)
class Refusal:
    """A complete answer that is not a turn of the model. `said` is None for a body that no table holds."""

    status: int
    body: bytes
    media_type: str = JSON
    retry_after_s: int | None = None
    said: tuple[Shape, Words] | None = None


def refuse(shape: Shape, why: Why, retry_after_s: int | None = None, **holes: object) -> Refusal:
    """Say no in the words of `shape`. `holes` fill the message: `wanted`, `model`, `problem`, `resets_at`."""
    return _refusal(_filled(words_of(shape, why), holes), retry_after_s)


def refuse_in_ok(shape: Shape, why: Why, **holes: object) -> Refusal:
    """The same no inside HTTP 200."""
    return _refusal_in_ok(_filled(words_of(shape, why), holes))


def refuse_path(shape: Shape, method: str, path: str) -> Refusal:
    """What is said at a path where nothing is: seen of ZhiPu, Moonshot, MiniMax, DashScope; Anthropic's for others."""
    match shape:
        case "zhipu":
            return Refusal(200, _json(_ZHIPU_LOST))
        case "moonshot":
            lost = {"code": 5, "error": "url.not_found", "message": "没找到对象", "method": method, "scode": "0x5"}
            return Refusal(404, _json({**lost, "status": False, "url": path}))
        case "minimax":
            return Refusal(404, b"404 page not found", TEXT)
        case "dashscope":
            return _refusal((shape, Words(400, "", "url error, please check url！", "InvalidParameter")))
    return _refusal(("anthropic", Words(404, "not_found_error", "Not Found")))


def refusal(fault: Fault, shape: Shape, now: datetime, model: str = "") -> Refusal | None:
    """The answer a fault puts in place of a turn; None for a fault that spoils a turn instead (`hang`, `cut` ...).

    `model` is what the request named.
    """
    match fault.kind:
        case FaultKind.BAD_GATEWAY:
            return Refusal(502, _PAGE, HTML)
        case FaultKind.FIREWALL_PAGE:
            return Refusal(403, _FIREWALL, HTML)
        case FaultKind.HTML_PAGE:
            return Refusal(200, _PAGE, HTML)
        case FaultKind.EMPTY:
            return Refusal(200, b"")
        case FaultKind.ERROR_IN_OK if fault.says or fault.code:
            return _refusal_in_ok(_said(fault, fault.says, shape, now, model))
        case FaultKind.ERROR_IN_OK if shape == "zhipu":
            return Refusal(200, _json(_ZHIPU_LOST))
        case FaultKind.ERROR_IN_OK:
            return refuse_in_ok("anthropic", Why.SERVER_ERROR)
        case kind if kind is FaultKind.CODED or kind in SAYABLE:
            return _refusal(_said(fault, kind, shape, now, model), fault.retry_after_s)
    return None


def said_in_stream(fault: Fault, shape: Shape, model: str) -> tuple[Shape, Words]:
    """A fault's error inside a stream that began with HTTP 200, and the shape whose words it has."""
    if fault.says is None and fault.code is None:
        return words_of("anthropic", Why.OVERLOADED)
    return _said(fault, fault.says, shape, datetime.now(UTC), model)


def _said(fault: Fault, kind: FaultKind | None, shape: Shape, now: datetime, model: str) -> tuple[Shape, Words]:
    """What `fault.code` says, else what `kind` does."""
    spoken = coded(shape, fault.code) if fault.code else _worded(kind or fault.kind, shape)
    holes = {"resets_at": fault.resets_at or now + _WINDOW, "model": model}
    return _filled(spoken, {**holes, "wanted": "Authorization", "problem": "The request is not understood."})


def _worded(kind: FaultKind, shape: Shape) -> tuple[Shape, Words]:
    """Anthropic has `credit-too-low` for the one and no words for the other: its sites say ZhiPu's."""
    if kind in _AT:
        status, other = _AT[kind]
        spoken = words_of(shape, Why.UNKNOWN_MODEL)
        return spoken if spoken[1].status == status else words_of(other, Why.UNKNOWN_MODEL)
    only_zhipu = kind in (FaultKind.NO_BALANCE, FaultKind.WINDOW_USED_UP)
    return words_of("zhipu" if shape == "anthropic" and only_zhipu else shape, Why(kind))


def _filled(spoken: tuple[Shape, Words], holes: dict[str, object]) -> tuple[Shape, Words]:
    shape, words = spoken
    return shape, words._replace(message=words.message.format(**holes))


def _refusal(said: tuple[Shape, Words], retry_after_s: int | None = None) -> Refusal:
    _, words = said
    if words.plain:
        return Refusal(words.status, words.message.encode(), TEXT, retry_after_s)
    return Refusal(words.status, _json(body_of(*said)), JSON, retry_after_s, said)


def _refusal_in_ok(said: tuple[Shape, Words]) -> Refusal:
    return Refusal(200, _json(body_in_ok(*said)), said=said)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()

"""What a provider says when it will not answer, in the two dialects that matter: Anthropic's and ZhiPu's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from overnight.rehearsal.faults import Fault, FaultKind

Shape = Literal["anthropic", "zhipu"]

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"

_REQUEST_ID = "req_rehearsal"
_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"
_WINDOW = timedelta(hours=5)


@dataclass(frozen=True)
class Refusal:
    """A complete answer that is not a turn of the model."""

    status: int
    body: bytes
    media_type: str = JSON
    retry_after_s: int | None = None


class _Words(NamedTuple):
    """One refusal. `code` is ZhiPu's; None when it has none and says it as Anthropic does."""

    status: int
    type: str
    code: str | None
    message: str
    only_zhipu: bool = False


_WORDS = {
    FaultKind.FORBIDDEN: _Words(
        403, "permission_error", None, "Your API key does not have permission to use the specified resource."
    ),
    FaultKind.CREDIT_TOO_LOW: _Words(
        400, "invalid_request_error", None, "Your credit balance is too low to access the Anthropic API."
    ),
    FaultKind.PAYMENT_REQUIRED: _Words(402, "billing_error", None, "Your account has insufficient balance."),
    FaultKind.RATE_LIMITED: _Words(429, "rate_limit_error", "1302", "Rate limit reached for requests"),
    FaultKind.NO_BALANCE: _Words(
        429, "rate_limit_error", "1113", "Insufficient balance or no resource package. Please recharge.", True
    ),
    FaultKind.WINDOW_USED_UP: _Words(
        429,
        "rate_limit_error",
        "1308",
        "Usage limit reached for 5 hour. Your limit will reset at {resets_at:%Y-%m-%d %H:%M:%S}",
        True,
    ),
    FaultKind.SERVER_ERROR: _Words(500, "api_error", None, "Internal server error"),
    FaultKind.UNAVAILABLE: _Words(503, "api_error", None, "Service unavailable"),
    FaultKind.OVERLOADED: _Words(529, "overloaded_error", "1305", "Overloaded"),
}


def no_key(shape: Shape, wanted: str) -> Refusal:
    """No key in the header that the site wants, `Authorization` or `x-api-key`."""
    message = f"Header中未收到{wanted}参数，无法进行身份验证。" if shape == "zhipu" else f"{wanted} header is required"
    return _refuse(shape, _Words(401, "authentication_error", "1001", message))


def unknown_key(shape: Shape) -> Refusal:
    message = "身份验证失败。" if shape == "zhipu" else "invalid x-api-key"
    return _refuse(shape, _Words(401, "authentication_error", "1000", message))


def unknown_model(shape: Shape, model: str) -> Refusal:
    if shape == "zhipu":
        return _refuse(
            shape, _Words(400, "invalid_request_error", "1211", "Unknown Model, please check the model code.")
        )
    return _refuse(shape, _Words(404, "not_found_error", None, f"model: {model}"))


def bad_request(shape: Shape, problem: str) -> Refusal:
    return _refuse(shape, _Words(400, "invalid_request_error", "1210", problem))


def refusal(fault: Fault, shape: Shape, now: datetime) -> Refusal | None:
    """The answer a fault puts in place of a turn; None for a fault that spoils a turn instead (`hang`, `cut` ...).

    What only ZhiPu says (1113, 1308) is said in its shape by every site.
    """
    if fault.kind is FaultKind.KEY_REFUSED:
        return unknown_key(shape)
    if fault.kind is FaultKind.BAD_GATEWAY:
        return Refusal(502, _PAGE, HTML)
    if fault.kind is FaultKind.HTML_PAGE:
        return Refusal(200, _PAGE, HTML)
    if fault.kind is FaultKind.EMPTY:
        return Refusal(200, b"")
    if fault.kind is FaultKind.ERROR_IN_OK:
        return _error_in_ok(shape)
    words = _WORDS.get(fault.kind)
    if words is None:
        return None
    message = words.message.format(resets_at=fault.resets_at or now + _WINDOW)
    return _refuse("zhipu" if words.only_zhipu else shape, words._replace(message=message), fault.retry_after_s)


def _error_in_ok(shape: Shape) -> Refusal:
    if shape == "zhipu":
        return Refusal(200, _json({"code": 500, "msg": "404 NOT_FOUND", "success": False}))
    return Refusal(200, _json({"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}))


def _refuse(shape: Shape, words: _Words, retry_after_s: int | None = None) -> Refusal:
    error: dict[str, Any] = {"type": words.type, "message": words.message}
    if shape == "zhipu" and words.code is not None:
        error = _zhipu_error(words, words.code)
    body = {"type": "error", "error": error, "request_id": _REQUEST_ID}
    return Refusal(words.status, _json(body), retry_after_s=retry_after_s)


def _zhipu_error(words: _Words, code: str) -> dict[str, Any]:
    """As seen in 2026: capacity and quota answers wear Anthropic's type and put the code into the message too."""
    if words.status in (429, 529):
        return {"type": words.type, "code": code, "message": f"[{code}][{words.message}][{_REQUEST_ID}]"}
    return {"code": code, "message": words.message}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()

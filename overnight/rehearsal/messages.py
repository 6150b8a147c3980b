"""The Anthropic Messages API on the wire: a turn of the model as JSON or as a stream, and refusals in each dialect."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Reply

Shape = Literal["anthropic", "zhipu"]

JSON = "application/json; charset=utf-8"
STREAM = "text/event-stream; charset=utf-8"
HTML = "text/html; charset=utf-8"

PING = b'event: ping\ndata: {"type": "ping"}\n\n'

_USAGE = {"input_tokens": 100, "output_tokens": 10}
_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"
_REQUEST_ID = "req_rehearsal"


@dataclass(frozen=True)
class Refusal:
    """A complete answer that is not a turn of the model."""

    status: int
    body: bytes
    media_type: str = JSON


def turn_body(reply: Reply, model: str, turn: int) -> bytes:
    """A turn of the model as one JSON body."""
    return json.dumps(_message(reply, model, turn), ensure_ascii=False).encode()


def turn_events(reply: Reply, model: str, turn: int) -> tuple[bytes, ...]:
    """A turn of the model as server-sent events; every text and every argument comes in two deltas."""
    message = _message(reply, model, turn)
    content, stop_reason = message["content"], message["stop_reason"]
    opened = {**message, "content": [], "stop_reason": None}
    events = [_event("message_start", message=opened)]
    for index, block in enumerate(content):
        empty, field, text = _unfilled(block)
        events.append(_event("content_block_start", index=index, content_block=empty))
        half = (len(text) + 1) // 2
        for part in (text[:half], text[half:]):
            delta = {"type": f"{'input_json' if field == 'partial_json' else 'text'}_delta", field: part}
            events.append(_event("content_block_delta", index=index, delta=delta))
        events.append(_event("content_block_stop", index=index))
    ending = {"stop_reason": stop_reason, "stop_sequence": None}
    events.append(_event("message_delta", delta=ending, usage=_USAGE))
    events.append(_event("message_stop"))
    return tuple(events)


def error_event() -> bytes:
    return _event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def unread_header(shape: Shape) -> Refusal:
    """No key in a header that this site reads."""
    if shape == "zhipu":
        return _zhipu(401, "1001", "Header中未收到Authorization参数，无法进行身份验证。")
    return _anthropic(401, "authentication_error", "x-api-key header is required")


def unknown_key(shape: Shape) -> Refusal:
    if shape == "zhipu":
        return _zhipu(401, "1000", "身份验证失败。")
    return _anthropic(401, "authentication_error", "invalid x-api-key")


def unknown_model(shape: Shape, model: str) -> Refusal:
    if shape == "zhipu":
        return _zhipu(400, "1211", "Unknown Model, please check the model code.")
    return _anthropic(404, "not_found_error", f"model: {model}")


def bad_request(shape: Shape, problem: str) -> Refusal:
    if shape == "zhipu":
        return _zhipu(400, "1210", problem)
    return _anthropic(400, "invalid_request_error", problem)


def refusal(fault: Fault, shape: Shape, now: datetime) -> Refusal | None:
    """The answer a fault gives in place of a turn; None when it spoils a turn instead (`hang`, `cut` ...).

    Codes that only ZhiPu has (1113, 1308) come in its shape from every site.
    """
    # fmt: off
    # one line a fault, so that it reads as a table
    match fault.kind:
        case FaultKind.KEY_REFUSED: return unknown_key(shape)
        case FaultKind.FORBIDDEN: return _plain(shape, 403, "permission_error", "1220", "Your API key does not have permission to use the specified resource.")  # noqa: E501
        case FaultKind.CREDIT_TOO_LOW: return _anthropic(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")  # noqa: E501
        case FaultKind.PAYMENT_REQUIRED: return _plain(shape, 402, "billing_error", "1113", "Your account has insufficient balance.")  # noqa: E501
        case FaultKind.RATE_LIMITED: return _plain(shape, 429, "rate_limit_error", "1302", "Rate limit reached for requests.")  # noqa: E501
        case FaultKind.SERVER_ERROR: return _plain(shape, 500, "api_error", "500", "Internal server error")
        case FaultKind.UNAVAILABLE: return _plain(shape, 503, "api_error", "1120", "Service temporarily unavailable")
        case FaultKind.OVERLOADED: return _plain(shape, 529, "overloaded_error", "1305", "Overloaded")
    # fmt: on
    return None

"""The Anthropic Messages API: a turn of the model as one JSON body, or as server-sent events."""

from __future__ import annotations

import json
from typing import Any

from overnight.rehearsal.dialects import Shape, Words, body_in_ok
from overnight.rehearsal.model import Reply, Request
from overnight.rehearsal.refusals import Refusal

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
WORDS_AT = 2
ENDING = 2

_ASKED_TOKENS = 100


def read(body: Request) -> Request:
    """The request as it is: this is the shape that the emulated model reads."""
    return body


def turn_body(reply: Reply, model: str, turn: int) -> bytes:
    """A turn of the model as one JSON body."""
    return json.dumps(_message(reply, model, turn), ensure_ascii=False).encode()


def turn_events(reply: Reply, model: str, turn: int, *, usage: bool) -> tuple[bytes, ...]:  # noqa: ARG001  # always told
    """A turn of the model as server-sent events; texts and arguments come in two deltas."""
    message = _message(reply, model, turn)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    blocks = [event for i, block in enumerate(message["content"]) for event in _block_events(i, block)]
    return (
        _event("message_start", message={**message, "content": [], "stop_reason": None}),
        *blocks,
        _event("message_delta", delta=ending, usage=message["usage"]),
        _event("message_stop"),
    )


def error_event(spoken: Shape, words: Words) -> bytes:
    """An error in a stream that began with HTTP 200. OpenRouter gives its events no name."""
    name = "" if spoken == "openrouter" else "event: error\n"
    return f"{name}data: {json.dumps(body_in_ok(spoken, words), ensure_ascii=False)}\n\n".encode()


def framed(refused: Refusal) -> Refusal:
    """The refusal as it is: the tables hold this API's bodies."""
    return refused


def _message(reply: Reply, model: str, turn: int) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    if reply.tool is not None:
        call = {"id": reply.tool.id, "name": reply.tool.name, "input": reply.tool.arguments}
        content.append({"type": "tool_use", **call})
    return {
        "id": f"msg_rehearsal_{turn}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if reply.tool else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": _ASKED_TOKENS, "output_tokens": reply.tokens},
    }


def _block_events(index: int, block: dict[str, Any]) -> list[bytes]:
    if block["type"] == "text":
        empty, kind, field, text = {**block, "text": ""}, "text_delta", "text", block["text"]
    else:
        empty, kind, field = {**block, "input": {}}, "input_json_delta", "partial_json"
        text = json.dumps(block["input"], ensure_ascii=False)
    half = (len(text) + 1) // 2
    parts = [part for part in (text[:half], text[half:]) if part]
    deltas = [_event("content_block_delta", index=index, delta={"type": kind, field: part}) for part in parts]
    opening = _event("content_block_start", index=index, content_block=empty)
    return [opening, *deltas, _event("content_block_stop", index=index)]


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()

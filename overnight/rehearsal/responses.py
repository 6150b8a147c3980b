"""The OpenAI Responses API: its requests in the shape of the Messages API, and a turn of the model in its own.

The emulated model reads one shape of request only. What stands before the
first answer is one message here, however many the client made of it: Codex puts
its own notes before what it was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from overnight.rehearsal.dialects import Shape, Words
from overnight.rehearsal.model import Reply, Request
from overnight.rehearsal.refusals import Refusal

PING = b'event: keepalive\ndata: {"type": "keepalive"}\n\n'
WORDS_AT = 2
ENDING = 1

_ASKED_TOKENS = 100
_CODES = {"overloaded_error": "server_is_overloaded", "rate_limit_error": "rate_limit_exceeded"}


def read(body: Request) -> Request:
    """The request as a Messages API request; without `input` it has no `messages` either."""
    asked = body.get("input")
    if isinstance(asked, str):
        asked = [{"type": "message", "role": "user", "content": asked}]
    if not isinstance(asked, list):
        return {name: value for name, value in body.items() if name != "messages"}
    said = [turn for item in asked if isinstance(item, Mapping) for turn in _turns(item)]
    messages = [
        {"role": role, "content": [block for _, blocks in turns for block in blocks]}
        for role, turns in groupby(said, key=lambda turn: turn[0])
    ]
    return {**body, "messages": messages}


def _turns(item: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    kind = str(item.get("type", "message"))
    if kind == "message":
        content = item.get("content")
        parts = [{"text": content}] if isinstance(content, str) else content if isinstance(content, list) else []
        blocks = [{"type": "text", "text": str(part.get("text", ""))} for part in parts if isinstance(part, Mapping)]
        yield str(item.get("role", "user")), blocks
    elif kind.endswith("_call_output"):
        yield "user", [{"type": "tool_result"}]
    else:
        yield "assistant", [{"type": "tool_use" if kind.endswith("_call") else kind}]


def turn_body(reply: Reply, model: str, turn: int) -> bytes:
    """A turn of the model as one JSON body."""
    return json.dumps(_response(reply, model, turn), ensure_ascii=False).encode()


def turn_events(reply: Reply, model: str, turn: int, *, usage: bool) -> tuple[bytes, ...]:  # noqa: ARG001  # always told
    """A turn of the model as server-sent events; texts and arguments come in two deltas."""
    response = _response(reply, model, turn)
    opening = {**response, "status": "in_progress", "output": [], "usage": None}
    items = [event for i, item in enumerate(response["output"]) for event in _item_events(i, item)]
    return (
        _event("response.created", response=opening),
        *items,
        _event("response.completed", response=response),
    )


def error_event(spoken: Shape, words: Words) -> bytes:  # noqa: ARG001  # what every shape's error becomes here
    """A failure in the middle of a stream: the vendor's words under its own code, else under OpenAI's."""
    code = words.code or _CODES.get(words.type) or words.type
    failed = {"id": "resp_rehearsal", "object": "response", "status": "failed", "output": []}
    return _event("response.failed", response={**failed, "error": {"code": code, "message": words.message}})


def framed(refused: Refusal) -> Refusal:
    """The refusal as it is: no vendor has been seen to have other words for this API."""
    return refused


def _response(reply: Reply, model: str, turn: int) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        output.append({"id": f"msg_rehearsal_{turn}", "type": "message", "role": "assistant", "content": content})
    if reply.tool is not None:
        arguments = json.dumps(reply.tool.arguments, ensure_ascii=False)
        call = {"call_id": reply.tool.id, "name": reply.tool.name, "arguments": arguments}
        output.append({"id": f"fc_rehearsal_{turn}", "type": "function_call", **call})
    return {
        "id": f"resp_rehearsal_{turn}",
        "object": "response",
        "status": "completed",
        "model": model,
        "output": [{**item, "status": "completed"} for item in output],
        "usage": {
            "input_tokens": _ASKED_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": _ASKED_TOKENS + reply.tokens,
        },
    }


def _item_events(index: int, item: dict[str, Any]) -> list[bytes]:
    empty: dict[str, Any]
    if item["type"] == "message":
        empty, kind, text = {"content": []}, "response.output_text", item["content"][0]["text"]
    else:
        empty, kind, text = {"arguments": ""}, "response.function_call_arguments", item["arguments"]
    half = (len(text) + 1) // 2
    at = {"item_id": item["id"], "output_index": index}
    parts = [part for part in (text[:half], text[half:]) if part]
    deltas = [_event(f"{kind}.delta", **at, content_index=0, delta=part) for part in parts]
    opening = _event("response.output_item.added", output_index=index, item={**item, **empty, "status": "in_progress"})
    return [opening, *deltas, _event("response.output_item.done", output_index=index, item=item)]


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()

"""OpenAI's chat completions: its requests in the shape of the Messages API, and a turn of the model in its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from overnight.rehearsal.dialects import REQUEST_ID, Shape, Words, body_of
from overnight.rehearsal.model import Reply, Request, ToolUse
from overnight.rehearsal.refusals import Refusal

PING = b": keep-alive\n\n"
WORDS_AT = 1
ENDING = 2

_ASKED_TOKENS = 100
_CREATED_AT = 1_790_000_000
_AS_ON_MESSAGES = ("moonshot", "openrouter", "minimax")


def read(body: Request) -> Request:
    """The request as a Messages API request; without `messages` it has none either."""
    tools = [_tool(tool) for tool in body.get("tools") or () if isinstance(tool, Mapping)]
    said = body.get("messages")
    if not isinstance(said, list):
        return {**body, "tools": tools}
    return {**body, "tools": tools, "messages": [_message(each) for each in said if isinstance(each, Mapping)]}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    known = function if isinstance(function, Mapping) else {}
    return {"name": known.get("name", ""), "input_schema": known.get("parameters")}


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a tool said is the user's; what holds no words of a user is not read by anybody."""
    if message.get("role") == "tool":
        return {"role": "user", "content": [{"type": "tool_result"}]}
    return message


def turn_body(reply: Reply, model: str, turn: int) -> bytes:
    """A turn of the model as one JSON body."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.tool is not None:
        message["tool_calls"] = [_call(reply.tool, _arguments(reply.tool))]
    choice = {"index": 0, "message": message, "finish_reason": _ending(reply)}
    return json.dumps(
        {**_frame("chat.completion", model, turn), "choices": [choice], "usage": _usage(reply)}, ensure_ascii=False
    ).encode()


def _usage(reply: Reply) -> dict[str, int]:
    total = _ASKED_TOKENS + reply.tokens
    return {"prompt_tokens": _ASKED_TOKENS, "completion_tokens": reply.tokens, "total_tokens": total}


def turn_events(reply: Reply, model: str, turn: int, *, usage: bool) -> tuple[bytes, ...]:
    """A turn of the model as server-sent events; texts and arguments come in two deltas."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": part} for part in _halves(reply.text)]
    if reply.tool is not None:
        deltas.append({"tool_calls": [{"index": 0, **_call(reply.tool, "")}]})
        parts = _halves(_arguments(reply.tool))
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
    frame = _frame("chat.completion.chunk", model, turn)
    chunks = [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": _ending(reply)}]})
    if usage:
        chunks.append({**frame, "choices": [], "usage": _usage(reply)})
    return (*(_event(chunk) for chunk in chunks), b"data: [DONE]\n\n")


def error_event(spoken: Shape, words: Words) -> bytes:
    """An error in a stream that began with HTTP 200, after which no `[DONE]` comes."""
    return _event(_refused(spoken, words))


def framed(refused: Refusal) -> Refusal:
    """The refusal in OpenAI's frame, where the vendor has another on this route than on its Messages API."""
    if refused.said is None or refused.said[0] in _AS_ON_MESSAGES:
        return refused
    return replace(refused, body=json.dumps(_refused(*refused.said), ensure_ascii=False).encode())


def _refused(spoken: Shape, words: Words) -> dict[str, Any]:
    if spoken in _AS_ON_MESSAGES:
        return body_of(spoken, words)
    if spoken == "zhipu":
        return {"error": {"code": words.code, "message": words.message}}
    error = {"message": words.message, "type": words.type or None, "param": None, "code": words.code or None}
    return {"error": error, **({"request_id": REQUEST_ID} if spoken == "dashscope" else {})}


def _frame(kind: str, model: str, turn: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-rehearsal-{turn}", "object": kind, "created": _CREATED_AT, "model": model}


def _call(tool: ToolUse, arguments: str) -> dict[str, Any]:
    return {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": arguments}}


def _arguments(tool: ToolUse) -> str:
    return json.dumps(tool.arguments, ensure_ascii=False)


def _ending(reply: Reply) -> str:
    return "tool_calls" if reply.tool else "stop"


def _halves(text: str) -> list[str]:
    half = (len(text) + 1) // 2
    return [part for part in (text[:half], text[half:]) if part]


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()

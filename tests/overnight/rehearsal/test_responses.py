from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.lockfile import Header
from overnight.probe import ask
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import probe_nonce, turn_of
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.responses import read
from tests.overnight.rehearsal.conftest import KEY

K, F = FailureKind, FaultKind
CHAT = "/v1/responses"
MODEL = "rehearsal-large"
RULES = lockfile.load().providers["rehearsal"].errors
TOOLS = [{"type": "function", "name": "exec_command"}, {"type": "web_search"}]


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def asking(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": list(items), "tools": TOOLS, **more}


def events(stream: str) -> list[dict[str, Any]]:
    parsed = [block.split("\n", 1) for block in stream.strip().split("\n\n")]
    bodies = [json.loads(data.removeprefix("data: ")) for _, data in parsed]
    assert [name for name, _ in parsed] == [f"event: {body['type']}" for body in bodies]
    return bodies


def test_what_stands_before_the_first_answer_is_one_message() -> None:
    notes = {"type": "message", "role": "developer", "content": "be good"}
    body = read(asking(notes, user("<environment_context>"), user("Reply with the single word pony.")))
    assert [message["role"] for message in body["messages"]] == ["developer", "user"]
    assert probe_nonce(body) == "pony"


def test_every_output_of_a_tool_is_a_turn() -> None:
    calls = ("function_call", "function_call_output", "reasoning", "custom_tool_call", "custom_tool_call_output")
    body = read(asking(user("go"), *({"type": kind} for kind in calls)))
    assert turn_of(body) == 3


@pytest.mark.parametrize("body", [{"model": MODEL}, {"model": MODEL, "messages": []}, {"input": "hello"}, []])
def test_a_body_that_is_no_request_is_refused(provider: EmulatedProvider, http: httpx.Client, body: Any) -> None:
    assert http.post(provider.url("bearer") + CHAT, json=body).status_code == 400


def test_words_alone_are_a_request(provider: EmulatedProvider, http: httpx.Client) -> None:
    answer = http.post(provider.url("bearer") + CHAT, json={"model": MODEL, "input": "hello"}).json()
    assert answer["output"][0]["content"][0]["text"] == "Nothing to do."


def test_a_stream_and_a_body_say_the_same(provider: EmulatedProvider, http: httpx.Client) -> None:
    body = asking(user("make the greeting"))
    whole = http.post(provider.url("bearer") + CHAT, json=body).json()
    stream = events(http.post(provider.url("bearer") + CHAT, json={**body, "stream": True}).text)
    assert stream[-1]["response"] == whole
    [call] = whole["output"]
    assert (call["type"], call["name"]) == ("function_call", "exec_command")
    assert "base64 -d" in json.loads(call["arguments"])["cmd"]
    assert "".join(e["delta"] for e in stream if e["type"].endswith(".delta")) == call["arguments"]
    assert [e["item"] for e in stream if e["type"] == "response.output_item.done"] == whole["output"]


def test_a_key_and_a_model_are_checked_as_in_any_chat(provider: EmulatedProvider, bare: httpx.Client) -> None:
    url = provider.url("bearer") + CHAT
    assert bare.post(url, json=asking(user("x")), headers=Header.X_API_KEY.carry(KEY)).status_code == 401
    wrong = bare.post(url, json=asking(user("x"), model="other"), headers=Header.BEARER.carry(KEY))
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "1211")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (None, None),
        (Fault(F.KEY_REFUSED), K.AUTH_REJECTED),
        (Fault(F.NO_BALANCE), K.BILLING),
        (Fault(F.PAYMENT_REQUIRED), K.BILLING),
        (Fault(F.WINDOW_USED_UP), K.QUOTA_WINDOW),
        (Fault(F.RATE_LIMITED), K.RATE_LIMITED),
        (Fault(F.OVERLOADED), K.OVERLOADED),
        (Fault(F.SERVER_ERROR), K.PROVIDER_ERROR),
        (Fault(F.BAD_GATEWAY), K.PROVIDER_ERROR),
        (Fault(F.HTML_PAGE), K.NOT_THE_API),
        (Fault(F.ERROR_IN_OK), K.NOT_THE_API),
        (Fault(F.EMPTY), K.NOT_THE_API),
        (Fault(F.HANG), K.PROVIDER_MUTE),
        (Fault(F.HEADERS_ONLY), K.PROVIDER_MUTE),
        (Fault(F.STREAM_ERROR, at_once=True), K.OVERLOADED),
        (Fault(F.STREAM_ERROR, at_once=True, says=F.NO_BALANCE), K.BILLING),
        (Fault(F.STREAM_ERROR, says=F.RATE_LIMITED, at_once=True), K.RATE_LIMITED),
    ],
    ids=str,
)
def test_the_direct_probe_asks_and_reads_this_api_too(
    provider: EmulatedProvider, fault: Fault | None, kind: FailureKind | None
) -> None:
    provider.set_fault("bearer", fault)
    silent = fault is not None and fault.kind in (F.HANG, F.HEADERS_ONLY)
    try:
        url, sent = provider.url("bearer"), Header.BEARER.carry(KEY)
        found = ask(url, sent, KEY, MODEL, RULES, 1 if silent else 15, "openai-responses")
    finally:
        provider.set_fault("bearer", None)
    assert found.kind is kind, found.evidence
    assert (provider.calls[-1].path, provider.calls[-1].stream) == (CHAT, True)
    assert found.model == (MODEL if kind is None else None)

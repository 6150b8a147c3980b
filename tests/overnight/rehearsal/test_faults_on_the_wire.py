"""Faults that each API shows in its own way: the bytes that a client gets, streaming and not."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx
import pytest

from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider

F = FaultKind
SAID = "Nothing to do."


class Spoken(NamedTuple):
    """How one API asks, and what its answers hold: of words, of why they end, of the end, of nothing at all."""

    path: str
    asked: dict[str, Any]
    words: bytes
    finish: bytes
    end: bytes
    empty: bytes
    ping: bytes
    error: bytes


_HELLO = [{"role": "user", "content": "hello"}]
APIS = {
    "messages": Spoken(
        "/v1/messages",
        {"messages": _HELLO, "max_tokens": 10},
        b"text_delta",
        b'"stop_reason": "end_turn"',
        b"message_stop",
        b'"content": []',
        b"event: ping",
        b'event: error\ndata: {"type": "error", "error": {"type": "rate_limit_error", "code": "1308", ',
    ),
    "responses": Spoken(
        "/v1/responses",
        {"input": "hello"},
        b"output_text.delta",
        b'"status": "completed", "model"',
        b"response.completed",
        b'"output": []',
        b"event: keepalive",
        b'event: response.failed\ndata: {"type": "response.failed", ',
    ),
    "chat": Spoken(
        "/v1/chat/completions",
        {"messages": _HELLO},
        b'"delta": {"content": ',
        b'"finish_reason": "stop"',
        b"[DONE]",
        b'"content": ""',
        b": keep-alive",
        b'data: {"error": {"code": "1308", ',
    ),
}


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Spoken:
    return APIS[request.param]


def body_of(api: Spoken, stream: bool) -> dict[str, Any]:
    return {"model": "rehearsal-large", "stream": stream, **api.asked}


def ask(provider: EmulatedProvider, http: httpx.Client, api: Spoken, fault: Fault, *, stream: bool) -> httpx.Response:
    provider.set_fault("bearer", fault)
    return http.post(provider.url("bearer") + api.path, json=body_of(api, stream))


@pytest.mark.parametrize("stream", [False, True])
def test_a_truncated_answer_is_half_of_a_body(
    provider: EmulatedProvider, http: httpx.Client, api: Spoken, stream: bool
) -> None:
    answer = ask(provider, http, api, Fault(F.TRUNCATED), stream=stream)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert answer.text.startswith("{")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_an_empty_stream_ends_well(provider: EmulatedProvider, http: httpx.Client, api: Spoken) -> None:
    answer = ask(provider, http, api, Fault(F.EMPTY_STREAM), stream=True)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.content == b""
    assert SAID in ask(provider, http, api, Fault(F.EMPTY_STREAM), stream=False).text


def test_a_stream_without_its_end_says_it_all(provider: EmulatedProvider, http: httpx.Client, api: Spoken) -> None:
    whole = ask(provider, http, api, Fault(F.SLOW, wait_s=0.01), stream=True).content
    answer = ask(provider, http, api, Fault(F.NO_STOP), stream=True)
    assert whole.startswith(answer.content)
    assert (answer.content.count(api.words), api.end in answer.content) == (whole.count(api.words), False)
    assert (api.finish in whole, api.finish in answer.content) == (True, False)
    assert SAID in ask(provider, http, api, Fault(F.NO_STOP), stream=False).text


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_answer_is_well_made_and_says_nothing(
    provider: EmulatedProvider, http: httpx.Client, api: Spoken, stream: bool
) -> None:
    answer = ask(provider, http, api, Fault(F.EMPTY_ANSWER), stream=stream)
    assert answer.status_code == 200
    assert api.empty in answer.content
    assert api.words not in answer.content
    assert not stream or api.end in answer.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_answer_is_a_good_one(provider: EmulatedProvider, http: httpx.Client, api: Spoken, stream: bool) -> None:
    provider.set_fault("bearer", Fault(F.SLOW, wait_s=0.5))
    url, body = provider.url("bearer") + api.path, body_of(api, stream)
    with pytest.raises(httpx.ReadTimeout):
        http.post(url, json=body, timeout=0.1)
    answer = http.post(url, json=body)
    assert answer.status_code == 200
    assert (api.end if stream else SAID.encode()) in answer.content


def test_any_answer_can_be_late(provider: EmulatedProvider, http: httpx.Client, api: Spoken) -> None:
    provider.set_fault("bearer", Fault(F.OVERLOADED, wait_s=0.5))
    url, body = provider.url("bearer") + api.path, body_of(api, stream=True)
    with pytest.raises(httpx.ReadTimeout):
        http.post(url, json=body, timeout=0.1)
    assert http.post(url, json=body).status_code == 529


def dripped(provider: EmulatedProvider, http: httpx.Client, api: Spoken, drop: bytes, *, stream: bool = True) -> bytes:
    """What has come when a drop came for the fifth time; it must within so many pieces."""
    got = b""
    with http.stream("POST", provider.url("bearer") + api.path, json=body_of(api, stream)) as answer:
        for chunk, _ in zip(answer.iter_raw(), range(100), strict=False):
            got += chunk
            if got.count(drop) >= 5:
                return got
    pytest.fail(f"{drop!r} does not drip: {got!r}")


def test_a_drip_is_of_signs_of_life_or_of_words(provider: EmulatedProvider, http: httpx.Client, api: Spoken) -> None:
    provider.set_fault("bearer", Fault(F.DRIP, every_s=0.02))
    assert api.end not in dripped(provider, http, api, api.ping)
    provider.set_fault("bearer", Fault(F.DRIP, every_s=0.02, drips="text"))
    got = dripped(provider, http, api, b"Thinking. ")
    assert (api.words in got, api.ping in got, api.end in got) == (True, False, False)


def test_a_body_drips_white_space(provider: EmulatedProvider, http: httpx.Client, api: Spoken) -> None:
    provider.set_fault("bearer", Fault(F.DRIP, every_s=0.02, drips="text"))
    whole = http.post(provider.url("either") + api.path, json=body_of(api, stream=False)).content
    half = dripped(provider, http, api, b"  ", stream=False).rstrip()
    assert 0 < len(half) < len(whole)
    assert half.startswith(b"{")


def test_a_code_is_said_in_the_middle_of_a_stream(provider: EmulatedProvider, http: httpx.Client, api: Spoken) -> None:
    answer = ask(provider, http, api, Fault(F.STREAM_ERROR, code="1308"), stream=True)
    last = answer.content.strip().split(b"\n\n")[-1]
    assert last.startswith(api.error)
    assert b"1308" in last
    assert b"Your limit will reset at" in last
    assert api.end not in answer.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_firewall_and_the_vendors_codes_answer_every_api(
    provider: EmulatedProvider, http: httpx.Client, api: Spoken, stream: bool
) -> None:
    expected = {"1002": 401, "1113": 429, "1211": 400, "1303": 429, "1309": 429}
    for code, status in expected.items():
        answer = ask(provider, http, api, Fault(F.CODED, code=code, retry_after_s=7), stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["retry-after"] == "7"
    page = ask(provider, http, api, Fault(F.FIREWALL_PAGE), stream=stream)
    assert (page.status_code, page.headers["content-type"]) == (403, "text/html; charset=utf-8")

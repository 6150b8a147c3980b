from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from overnight.lockfile import Header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import PROBE_SENTENCE
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site, fingerprint
from tests.overnight.rehearsal.conftest import GREETING, KEY, SITES

CHAT = "/v1/messages?beta=true"


def asking(words: str = "hello", model: str = "rehearsal-large", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": words}], **more}


def events(stream: str) -> list[dict[str, Any]]:
    blocks = [block.splitlines() for block in stream.strip().split("\n\n")]
    parsed = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [event.removeprefix("event: ") for event, _ in blocks] == [body["type"] for body in parsed]
    return parsed


def texts(answer: str) -> str:
    """The words of an answer, streamed or not."""
    if answer.startswith("event: "):
        return "".join(e["delta"]["text"] for e in events(answer) if e["type"] == "content_block_delta")
    return "".join(block["text"] for block in json.loads(answer)["content"])


@pytest.mark.parametrize(
    ("site", "headers", "status", "said"),
    [
        ("bearer", Header.BEARER.carry(KEY), 200, "Nothing to do."),
        ("bearer", Header.X_API_KEY.carry(KEY), 401, '"1001"'),
        ("bearer", {}, 401, '"1001"'),
        ("bearer", {"Authorization": KEY}, 401, '"1001"'),
        ("bearer", Header.BEARER.carry("other"), 401, '"1000"'),
        ("bearer", {**Header.BEARER.carry(KEY), **Header.X_API_KEY.carry("other")}, 200, "Nothing to do."),
        ("header", Header.X_API_KEY.carry(KEY), 200, "Nothing to do."),
        ("header", Header.BEARER.carry(KEY), 401, '"authentication_error"'),
        ("header", Header.X_API_KEY.carry("other"), 401, "invalid x-api-key"),
        ("either", Header.X_API_KEY.carry(KEY), 200, "another-model"),
        ("either", Header.BEARER.carry(KEY), 200, "another-model"),
    ],
)
def test_a_site_takes_its_key_in_its_header_alone(
    provider: EmulatedProvider, site: str, headers: Mapping[str, str], status: int, said: str, bare: httpx.Client
) -> None:
    answer = bare.post(provider.url(site) + CHAT, json=asking(), headers=headers)
    assert answer.status_code == status
    assert said in answer.text


@pytest.mark.parametrize(
    ("site", "header", "status", "error"),
    [
        ("bearer", Header.BEARER, 400, {"code": "1211", "message": "Unknown Model, please check the model code."}),
        ("header", Header.X_API_KEY, 404, {"type": "not_found_error", "message": "model: Rehearsal-Large"}),
    ],
)
def test_a_model_spelled_wrongly_is_refused_in_the_dialect_of_the_site(
    provider: EmulatedProvider, site: str, header: Header, status: int, error: dict[str, str], bare: httpx.Client
) -> None:
    body = asking(model="Rehearsal-Large")
    answer = bare.post(provider.url(site) + CHAT, json=body, headers=header.carry(KEY))
    assert answer.status_code == status
    assert answer.json()["error"] == error


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'{"model": "rehearsal-large"}'])
def test_a_body_that_is_no_chat_is_refused(provider: EmulatedProvider, http: httpx.Client, body: bytes) -> None:
    answer = http.post(provider.url("bearer") + CHAT, content=body)
    assert answer.status_code == 400


def test_a_stream_and_a_body_say_the_same(provider: EmulatedProvider, http: httpx.Client) -> None:
    body = asking("make the greeting", tools=[{"name": "write"}, {"name": "shell"}])
    whole = http.post(provider.url("bearer") + CHAT, json=body).json()
    stream = events(http.post(provider.url("bearer") + CHAT, json={**body, "stream": True}).text)
    opened = stream[0]["message"]
    argument = "".join(e["delta"]["partial_json"] for e in stream if e["type"] == "content_block_delta")
    block = next(e["content_block"] for e in stream if e["type"] == "content_block_start")
    ending = next(e["delta"] for e in stream if e["type"] == "message_delta")
    assert [{**block, "input": json.loads(argument)}] == whole["content"]
    assert {**opened, "content": whole["content"], **ending} == whole
    assert whole["stop_reason"] == "tool_use"
    assert whole["usage"]["output_tokens"] > 0


def test_a_probe_comes_back(provider: EmulatedProvider, http: httpx.Client) -> None:
    answer = http.post(provider.url("bearer") + CHAT, json=asking(PROBE_SENTENCE.format(nonce="pony")))
    assert answer.json()["content"] == [{"type": "text", "text": "pony"}]
    assert answer.json()["model"] == "rehearsal-large"
    assert provider.calls[-1].is_probe


def test_the_other_paths_answer(provider: EmulatedProvider, http: httpx.Client) -> None:
    base = provider.url("bearer")
    assert http.head(base + "/").status_code == 200
    assert http.get(base + "/api/hello").status_code == 200
    assert http.post(base + "/v1/messages/count_tokens", json=asking()).json()["input_tokens"] > 0
    assert [m["id"] for m in http.get(base + "/v1/models").json()["data"]] == ["rehearsal-large", "rehearsal-small"]
    assert http.get(base + "/v1/models", headers=Header.BEARER.carry("other")).status_code == 401
    assert http.post(base + "/v1/v1/messages", json=asking()).json()["msg"] == "404 NOT_FOUND"
    assert http.post(base.replace("bearer", "nobody") + "/v1/messages", json=asking()).text == "no such site"
    assert [(c.method, c.path, c.status) for c in provider.calls][-1] == ("POST", "/v1/v1/messages", 200)


def test_a_call_is_recorded_without_its_key(provider: EmulatedProvider, http: httpx.Client) -> None:
    tools = [{"name": "Bash"}]
    http.post(provider.url("bearer") + CHAT, json=asking(tools=tools, stream=True), headers=Header.X_API_KEY.carry("b"))
    call = provider.calls[-1]
    assert (call.site, call.path, call.status, call.model) == ("bearer", "/v1/messages", 200, "rehearsal-large")
    assert (call.tools, call.stream, call.is_probe, call.turn, call.faulty) == (("Bash",), True, False, 1, False)
    assert call.keys == {Header.BEARER: fingerprint(KEY), Header.X_API_KEY: fingerprint("b")}
    assert call.at.tzinfo is not None
    assert KEY not in repr(call)
    assert KEY not in repr(SITES)


def test_a_broken_chat_still_lists_models(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(FaultKind.FORBIDDEN))
    assert http.get(provider.url("bearer") + "/v1/models").status_code == 200
    assert http.post(provider.url("bearer") + CHAT, json=asking()).status_code == 403
    assert http.post(provider.url("either") + CHAT, json=asking()).status_code == 200


def test_a_site_that_does_not_exist_has_no_url(provider: EmulatedProvider) -> None:
    with pytest.raises(KeyError):
        provider.url("elsewhere")


def test_many_clients_at_once_get_their_own_turns(provider: EmulatedProvider, bare: httpx.Client) -> None:
    def probe(i: int) -> str:
        body = asking(PROBE_SENTENCE.format(nonce=f"n{i}"), stream=i % 2 == 0)
        headers = Header.BEARER.carry(KEY)
        return bare.post(provider.url("bearer") + CHAT, json=body, headers=headers).text

    before = len(provider.calls)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(probe, range(40)))
    assert [texts(answer) for answer in answers] == [f"n{i}" for i in range(40)]
    assert len(provider.calls) == before + 40


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.HEADERS_ONLY, FaultKind.STALL, FaultKind.DRIP])
def test_stopping_ends_every_fault_and_leaves_no_thread(kind: FaultKind) -> None:
    before = set(threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        with EmulatedProvider([Site("s", KEY, fault=Fault(kind))], [GREETING]) as provider:
            url, headers = provider.url("s") + CHAT, Header.BEARER.carry(KEY)
            waiting = pool.submit(httpx.post, url, json=asking(stream=True), headers=headers, trust_env=False)
            while not provider.calls:
                time.sleep(0.01)
        with pytest.raises(httpx.TransportError):
            waiting.result(timeout=5)
    assert set(threading.enumerate()) <= before


def test_a_client_that_leaves_ends_its_hang(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(FaultKind.HANG))
    with pytest.raises(httpx.ReadTimeout):
        http.post(provider.url("bearer") + CHAT, json=asking(), timeout=0.2)
    provider.set_fault("bearer", None)
    assert http.post(provider.url("bearer") + CHAT, json=asking()).status_code == 200


def test_the_same_port_serves_again_after_a_stop(bare: httpx.Client) -> None:
    for _ in range(2):
        with EmulatedProvider(SITES) as first:
            port = httpx.URL(first.url("bearer")).port
            assert bare.get(first.url("bearer") + "/api/hello").status_code == 200
        with EmulatedProvider(SITES, port=port or 0) as again:
            assert bare.get(again.url("bearer") + "/api/hello").status_code == 200


def test_one_server_holds_a_site_for_every_case_and_takes_more(http: httpx.Client) -> None:
    with EmulatedProvider([Site(f"s{number}", KEY) for number in range(600)]) as running:
        running.set_fault("s599", Fault(FaultKind.OVERLOADED))
        added = running.add_site(Site("late", KEY, wait_s=0))
        assert [http.post(running.url(name) + CHAT, json=asking()).status_code for name in ("s0", "s599")] == [200, 529]
        assert http.post(added + CHAT, json=asking()).status_code == 200
        assert [call.site for call in running.calls] == ["s0", "s599", "late"]
        assert [(call.site, call.status) for call in running.calls_of("s599")] == [("s599", 529)]
        assert running.calls_of("s1") == []
        with pytest.raises(KeyError):
            running.calls_of("nobody")
        running.add_site(Site("late", KEY, answers_as="another-model"))
        assert http.post(added + CHAT, json=asking()).json()["model"] == "another-model"

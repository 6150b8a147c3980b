"""What the probe makes of a stream, of headers of one's own, and of calls that cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.lockfile import FreeProbe, Header
from overnight.probe import Reply, ask, direct, free
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.nights import KEY, MODEL
from tests.overnight.test_probe import answering, http

K, F = FailureKind, FaultKind
LOCK = lockfile.load()
RULES = LOCK.providers["rehearsal"].errors
SSE = "Content-Type: text/event-stream"
START = b'event: message_start\ndata: {"type": "message_start", "message": {"model": "m-1"}}\n\n'
END = b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}\n\n'


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [
        Site("bearer", KEY),
        Site("either", KEY, accepts=frozenset(Header), answers_as="another-model"),
        Site("anthropic", KEY, shape="anthropic"),
        Site("minimax", KEY, shape="minimax"),
        Site("openrouter", KEY, shape="openrouter"),
    ]
    with EmulatedProvider(sites) as running:
        yield running


def asked(url: str, headers: Mapping[str, str] | None = None, provider: str = "rehearsal", wait_s: float = 5) -> Reply:
    sent = Header.BEARER.carry(KEY) if headers is None else headers
    return ask(url, sent, KEY, MODEL, LOCK.providers[provider].errors, wait_s)


@pytest.mark.parametrize(
    ("headers", "kind", "where"),
    [
        (Header.BEARER.carry(KEY), None, "Authorization: Bearer"),
        (Header.X_API_KEY.carry(KEY), None, "x-api-key"),
        ({**Header.BEARER.carry(KEY), **Header.X_API_KEY.carry(KEY)}, None, "Authorization: Bearer and x-api-key"),
        ({}, K.AUTH_REJECTED, "no key"),
        ({"Authorization": KEY}, K.AUTH_REJECTED, "Authorization"),
        ({"X-Api-Key": KEY, "User-Agent": "mine"}, None, "x-api-key"),
    ],
)
def test_headers_of_ones_own(
    provider: EmulatedProvider, headers: Mapping[str, str], kind: FailureKind | None, where: str
) -> None:
    found = asked(provider.url("either"), headers)
    assert (found.kind, found.evidence.where) == (kind, f"direct probe, {where}")
    assert KEY not in repr(found)


def test_a_stream_is_asked_for_and_its_model_is_kept(provider: EmulatedProvider) -> None:
    found = direct(provider.url("either"), Header.BEARER, KEY, MODEL, RULES)
    assert (found.sent.ok, found.sent.model, found.sent.header) == (True, "another-model", Header.BEARER)
    call = provider.calls[-1]
    assert (call.stream, call.model, call.path) == (True, MODEL, "/v1/messages")


@pytest.mark.parametrize(
    ("site", "rules", "fault", "kind", "seen"),
    [
        (
            "bearer",
            "rehearsal",
            Fault(F.STREAM_ERROR, says=F.WINDOW_USED_UP, at_once=True),
            K.QUOTA_WINDOW,
            "code 1308",
        ),
        ("bearer", "rehearsal", Fault(F.ERROR_IN_OK, says=F.WINDOW_USED_UP), K.QUOTA_WINDOW, "code 1308"),
        ("bearer", "rehearsal", Fault(F.STREAM_ERROR, says=F.NO_BALANCE), K.BILLING, "code 1113"),
        ("anthropic", "anthropic", Fault(F.STREAM_ERROR, at_once=True), K.OVERLOADED, "code overloaded_error"),
        ("minimax", "minimax", Fault(F.STREAM_ERROR, says=F.NO_BALANCE, at_once=True), K.BILLING, "code 1008"),
        ("minimax", "minimax", Fault(F.ERROR_IN_OK, says=F.WINDOW_USED_UP), K.QUOTA_WINDOW, "code 2056"),
        ("openrouter", "openrouter", Fault(F.STREAM_ERROR, says=F.NO_BALANCE, at_once=True), K.BILLING, "code 402"),
    ],
    ids=str,
)
def test_an_error_inside_200_is_read_by_its_own_code(
    provider: EmulatedProvider, site: str, rules: str, fault: Fault, kind: FailureKind, seen: str
) -> None:
    provider.set_fault(site, fault)
    try:
        found = asked(provider.url(site), provider=rules)
    finally:
        provider.set_fault(site, None)
    assert (found.kind, found.status) == (kind, 200)
    assert seen in found.evidence.seen


def test_a_body_is_an_answer_too_though_a_stream_was_asked_for() -> None:
    with answering(http("200 OK", b'{"type": "message", "model": "m-2"}', "Content-Type: application/json")) as url:
        assert asked(url).model == "m-2"


def test_nothing_is_read_after_the_end_of_the_turn() -> None:
    endless = [b"HTTP/1.1 200 OK\r\n" + SSE.encode() + b"\r\nContent-Length: 99999\r\n\r\n", START, END]
    with answering(*endless) as url:  # never sends the rest that it promised
        found = asked(url, wait_s=60)
    assert (found.kind, found.model) == (None, "m-1")
    delta = b'data: {"type": "content_block_delta", "delta": {"text": "word"}}\n\n'
    with answering(*endless[:2], delta * 5) as url:  # a model that does not care how much was asked for
        assert asked(url, wait_s=60).ok


def test_a_key_that_is_not_ascii_is_not_shown_by_the_complaint(provider: EmulatedProvider) -> None:
    found = direct(provider.url("bearer"), Header.BEARER, f"\u201c{KEY}\u201d", MODEL, RULES)
    assert found.sent.kind is K.REQUEST_REJECTED
    assert KEY not in repr(found)


def test_a_key_that_a_stream_echoes_is_masked() -> None:
    said = b'event: error\ndata: {"type": "error", "error": {"type": "x", "message": "no ' + KEY.encode() + b'"}}\n\n'
    with answering(http("200 OK", said, SSE)) as url:
        found = asked(url)
    assert (found.kind, "***" in found.evidence.seen, KEY in repr(found)) == (K.PROVIDER_ERROR, True, False)


def probe(url: str, **more: object) -> FreeProbe:
    provenance = {"source": "a test", "date": "2026-11-22", "confidence": "measured"}
    fields = {"url": url, "key_as": "bearer", "proves": ["auth"], "provenance": provenance, **more}
    return FreeProbe.model_validate(fields)


def test_a_free_probe_that_leads_nowhere_proves_nothing() -> None:
    refused = free(probe("http://127.0.0.1:1/v1/models"), KEY, RULES)
    assert (refused.kind, refused.status, refused.ok) == (K.NETWORK, None, False)
    assert free(probe("http://{host}:1/v1/models"), KEY, RULES).kind in (K.NETWORK, K.NOT_THE_API)
    with answering(http("200 OK", b"<html>sign in</html>", "Content-Type: text/html")) as url:
        page = free(probe(url), KEY, RULES)
    assert (page.kind, page.evidence.where) == (K.NOT_THE_API, "free probe, Authorization: Bearer")


def test_a_free_probe_carries_the_key_as_the_lock_says(provider: EmulatedProvider) -> None:
    url = provider.url("either") + "/v1/models"
    for key_as, where in (("bearer", "Authorization: Bearer"), ("x-api-key", "x-api-key")):
        found = free(probe(url, key_as=key_as), KEY, RULES)
        assert (found.ok, found.proves, found.evidence.where) == (True, ("auth",), f"free probe, {where}")
    assert free(probe(url, key_as="raw"), KEY, RULES).evidence.where == "free probe, Authorization"
    without = free(probe(url, key_as="none"), KEY, RULES)
    assert (without.kind, without.proves, without.evidence.where) == (K.AUTH_REJECTED, (), "free probe, no key")

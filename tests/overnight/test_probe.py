"""The direct probe against emulated providers and against peers that are none."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.lockfile import Header
from overnight.probe import _TRANSPORT, Direct, _transport, direct, wrong_header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.nights import KEY, MODEL

K = FailureKind
RULES = lockfile.load().providers["rehearsal"].errors


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [Site("bearer", KEY), Site("header", KEY, accepts=frozenset({Header.X_API_KEY}), shape="anthropic")]
    with EmulatedProvider(sites) as running:
        yield running


@pytest.fixture
def faulty(provider: EmulatedProvider) -> Iterator[Callable[[Fault], None]]:
    yield lambda fault: provider.set_fault("bearer", fault)
    provider.set_fault("bearer", None)


def ask(url: str, *, key: str = KEY, header: Header = Header.BEARER, model: str = MODEL, wait_s: float = 5) -> Direct:
    return direct(url, header, key, model, RULES, timeout_s=wait_s)


@contextmanager
def answering(*said: bytes) -> Iterator[str]:
    """A peer that says these bytes to every request and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client, suppress(OSError):  # who asked may leave before the end
                    client.recv(65536)
                    client.sendall(b"".join(said))
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):  # closing on unread bytes would reset the connection
                        pass

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"))
    return head.encode() + b"\r\n" + body


def test_the_right_key_in_the_right_header(provider: EmulatedProvider) -> None:
    found = ask(provider.url("bearer"))
    assert (found.sent.ok, found.sent.status, found.other, found.wrong_header) == (True, 200, None, False)


@pytest.mark.parametrize(("site", "header"), [("bearer", Header.X_API_KEY), ("header", Header.BEARER)])
def test_the_right_key_in_the_wrong_header(provider: EmulatedProvider, site: str, header: Header) -> None:
    found = ask(provider.url(site), header=header)
    assert (found.sent.kind, found.sent.status, found.wrong_header) == (K.AUTH_REJECTED, 401, True)
    assert found.other is not None
    assert found.other.ok


def test_a_wrong_key_is_wrong_in_both_headers(provider: EmulatedProvider) -> None:
    found = ask(provider.url("bearer"), key="sk-another-key-altogether")
    assert (found.sent.kind, found.wrong_header) == (K.AUTH_REJECTED, False)
    assert found.other is not None
    assert found.other.kind is K.AUTH_REJECTED
    assert "1000" in found.sent.evidence.seen


def test_a_wrong_url_and_a_wrong_model_are_told_apart(provider: EmulatedProvider) -> None:
    unknown = ask(provider.url("bearer"), model="rehearsal-Large")
    assert (unknown.sent.kind, unknown.other) == (K.MODEL_UNKNOWN, None)
    assert "code 1211" in unknown.sent.evidence.seen
    elsewhere = ask(provider.url("bearer") + "/v1")
    assert (elsewhere.sent.status, elsewhere.sent.kind) == (200, K.NOT_THE_API)
    assert "404 NOT_FOUND" in elsewhere.sent.evidence.seen
    assert not elsewhere.sent.ok


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(FaultKind.HTML_PAGE), K.NOT_THE_API, "HTTP 200: <!DOCTYPE html>"),
        (Fault(FaultKind.EMPTY), K.NOT_THE_API, "HTTP 200: an empty body"),
        (Fault(FaultKind.ERROR_IN_OK), K.NOT_THE_API, "404 NOT_FOUND"),
        (Fault(FaultKind.NO_BALANCE), K.BILLING, "HTTP 429, code 1113"),
        (Fault(FaultKind.RATE_LIMITED), K.RATE_LIMITED, "HTTP 429, code 1302"),
        (Fault(FaultKind.WINDOW_USED_UP), K.QUOTA_WINDOW, "HTTP 429, code 1308"),
        (Fault(FaultKind.PAYMENT_REQUIRED), K.BILLING, "HTTP 402"),
        (Fault(FaultKind.OVERLOADED), K.OVERLOADED, "HTTP 529, code 1305"),
        (Fault(FaultKind.BAD_GATEWAY), K.PROVIDER_ERROR, "HTTP 502"),
        (Fault(FaultKind.SERVER_ERROR), K.PROVIDER_ERROR, "HTTP 500"),
        (Fault(FaultKind.CUT), K.NETWORK, "the connection ended before the answer did"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Fault) else "",
)
def test_what_a_provider_does_instead_of_answering(
    provider: EmulatedProvider, faulty: Callable[[Fault], None], fault: Fault, kind: FailureKind, said: str
) -> None:
    faulty(fault)
    found = ask(provider.url("bearer"))
    assert (found.sent.kind, found.other) == (kind, None)
    assert said in found.sent.evidence.seen
    assert found.sent.evidence.where == "direct probe, Authorization: Bearer"


def test_retry_after_is_kept(provider: EmulatedProvider, faulty: Callable[[Fault], None]) -> None:
    faulty(Fault(FaultKind.RATE_LIMITED, retry_after_s=37))
    assert ask(provider.url("bearer")).sent.retry_after_s == 37
    with answering(http("429 No", b"{}", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT")) as url:
        assert ask(url).sent.retry_after_s is None
    for senseless in ("inf", "nan", "-1"):
        with answering(http("429 No", b"{}", f"Retry-After: {senseless}")) as url:
            assert ask(url).sent.retry_after_s is None


@pytest.mark.parametrize(
    "fault", [Fault(FaultKind.HANG), Fault(FaultKind.HEADERS_ONLY), Fault(FaultKind.DRIP, every_s=0.05)], ids=str
)
def test_a_provider_that_never_ends_is_mute(
    provider: EmulatedProvider, faulty: Callable[[Fault], None], fault: Fault
) -> None:
    faulty(fault)
    found = ask(provider.url("bearer"), wait_s=0.4)
    assert (found.sent.kind, found.sent.status) == (K.PROVIDER_MUTE, None)


def test_no_more_of_an_answer_is_read_than_is_needed() -> None:
    with answering(http("200 OK", b"x" * 8_000_000)) as url:
        found = ask(url)
    assert found.sent.kind is K.NOT_THE_API
    assert len(found.sent.evidence.seen) < 300


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (b"", K.NETWORK, "the connection ended"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf", K.NETWORK, "the connection ended"),
        (b"220 mail.invalid ESMTP\r\n\r\n", K.NOT_THE_API, "does not speak HTTP"),
        (http("200 OK", b"not gzip", "Content-Encoding: gzip"), K.NOT_THE_API, "not encoded as its headers say"),
        (http("200 OK", b"\xff\xfe", "Content-Type: text/html; charset=no-such"), K.NOT_THE_API, "HTTP 200"),
        (http("302 Found", b"", "Location: http://elsewhere.invalid/"), K.NOT_THE_API, "HTTP 302"),
        (http("204 No Content", b""), K.NOT_THE_API, "HTTP 204"),
    ],
)
def test_peers_that_are_no_provider(said: bytes, kind: FailureKind, words: str) -> None:
    with answering(said) as url:
        found = ask(url)
    assert found.sent.kind is kind
    assert words in found.sent.evidence.seen


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:1", K.NETWORK),
        ("http://no-such-host.invalid", K.NETWORK),
        ("ftp://127.0.0.1", K.NOT_THE_API),
        ("127.0.0.1:8000", K.NOT_THE_API),
        ("http://[::1", K.NOT_THE_API),
    ],
)
def test_urls_that_lead_nowhere(url: str, kind: FailureKind) -> None:
    assert ask(url).sent.kind is kind


def errors_of_httpx() -> list[type[Exception]]:
    found = [c for _, c in inspect.getmembers(httpx, inspect.isclass) if issubclass(c, httpx.RequestError)]
    return [c for c in found if not c.__subclasses__() and c is not httpx.TooManyRedirects]  # none is followed


@pytest.mark.parametrize("cls", errors_of_httpx(), ids=lambda c: c.__name__)
def test_every_error_of_the_library_is_mapped_on_purpose(cls: type[Exception]) -> None:
    by_itself = cls is httpx.LocalProtocolError
    assert by_itself or any(issubclass(cls, known) for known, _, _ in _TRANSPORT)
    expected: dict[type[Exception], FailureKind] = {
        httpx.ReadTimeout: K.PROVIDER_MUTE,
        httpx.RemoteProtocolError: K.NOT_THE_API,
        httpx.UnsupportedProtocol: K.NOT_THE_API,
        httpx.DecodingError: K.NOT_THE_API,
        httpx.LocalProtocolError: K.REQUEST_REJECTED,
    }
    kind, seen = _transport(cls("words of the library"))
    assert kind is expected.get(cls, K.NETWORK)
    assert by_itself or cls.__name__ in seen


@pytest.mark.parametrize(
    "body",
    [
        '{"error":{"type":"authentication_error","message":"bad key KEY, sorry"}}',
        '{"error":{"type":"authentication_error","message":"' + "x" * 280 + 'KEY"}}',
        '{"error":{"message":"sk\\u002drest KEY"}}',
        "<html>" + "y" * 170 + " KEY</html>",
        "KEY",
        '{"KEY": 1}',
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "401 No", "500 Oops"])
def test_an_echoed_key_never_gets_into_the_evidence(body: str, status: str) -> None:
    with answering(http(status, body.replace("KEY", KEY).encode(), "Content-Type: application/json")) as url:
        found = ask(url)
    told = repr(found)
    assert not any(KEY[: n + 8] in told for n in range(len(KEY) - 7) if KEY[: n + 8].startswith("sk-rehea"))


def test_a_key_that_is_escaped_on_the_way_is_masked_too() -> None:
    key = "sk/with/slashes/0123456789"
    escaped = key.replace("/", "\\/")
    with answering(http("401 No", f'{{"error": {{"message": "no {escaped}"}}}}'.encode())) as url:
        found = ask(url, key=key)
    assert "***" in found.sent.evidence.seen
    assert key not in repr(found)


@pytest.mark.parametrize("key", ["sk-with\nnewline-0123456789", "sk-with\0nul-0123456789"])
def test_a_key_no_header_can_carry_is_not_shown_by_the_complaint(provider: EmulatedProvider, key: str) -> None:
    found = ask(provider.url("bearer"), key=key)
    assert found.sent.kind is K.REQUEST_REJECTED
    assert "sk-with" not in repr(found)


def test_the_cause_of_the_incident_in_words(provider: EmulatedProvider) -> None:
    found = ask(provider.url("bearer"), header=Header.X_API_KEY)
    failure = wrong_header(found, "zai", "claude-code", "THE_WRONG", ["THE_RIGHT"])
    assert failure.kind is K.WRONG_HEADER
    assert failure.evidence[0].seen == (
        "provider rejects x-api-key, accepts the same key as Authorization: Bearer; "
        "harness claude-code sends Bearer from THE_RIGHT; the lock sets THE_WRONG"
    )
    assert failure.remedy == (
        "in the lock, providers.zai.harnesses.claude-code.set: put {key} into THE_RIGHT instead of THE_WRONG"
    )
    cannot = wrong_header(found, "zai", "goose", "THE_WRONG", [])
    assert "use another harness" in cannot.remedy
    with pytest.raises(ValueError, match="both headers"):
        wrong_header(ask(provider.url("bearer")), "zai", "goose", "THE_WRONG", [])

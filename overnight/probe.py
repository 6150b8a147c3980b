"""One cheap real call to a provider, with the header the harness will send.

When that header is refused the same key is tried in the other one: the only
way to tell a wrong key from a right key in the wrong variable.
"""

from __future__ import annotations

import json
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import httpx

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.lockfile import ErrorRule, Header
from overnight.wire import classify, read_body

_K = FailureKind
_ANSWER_BYTES = 1_000_000  # an answer of one token is smaller; a page that never ends is not read to its end


@dataclass(frozen=True)
class Reply:
    """What came back for one header. `kind` is None when the call succeeded."""

    header: Header
    status: int | None
    seconds: float
    kind: FailureKind | None
    evidence: Evidence
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.kind is None


@dataclass(frozen=True)
class Direct:
    """The direct probe of a route: the header the harness sends, and the other one if that was refused."""

    sent: Reply
    other: Reply | None = None

    @property
    def wrong_header(self) -> bool:
        return self.sent.kind is _K.AUTH_REJECTED and self.other is not None and self.other.ok


def direct(
    base_url: str, header: Header, key: str, model: str, rules: Sequence[ErrorRule], timeout_s: float = 15.0
) -> Direct:
    """Ask for one token; never raises for what the network or the provider does.

    Args:
        base_url: As the harness gets it; `/v1/messages` is appended.
        header: What the harness will send.
        key: Used on the wire only. A provider that echoes it back is masked in every evidence.
        timeout_s: For connecting, for each read, and for the whole answer, so that none can drip for ever.
    """
    with httpx.Client(timeout=timeout_s, trust_env=False, follow_redirects=False, verify=_trusted()) as client:
        sent = _call(client, base_url, header, key, model, rules, timeout_s)
        if sent.kind is not _K.AUTH_REJECTED:
            return Direct(sent)
        other = Header.X_API_KEY if header is Header.BEARER else Header.BEARER
        return Direct(sent, _call(client, base_url, other, key, model, rules, timeout_s))


@cache
def _trusted() -> ssl.SSLContext:
    """Whom to trust over TLS. Once, since reading the machine's certificates takes longer than a probe on loopback."""
    return httpx.create_ssl_context(trust_env=False)


def _call(
    client: httpx.Client,
    base_url: str,
    header: Header,
    key: str,
    model: str,
    rules: Sequence[ErrorRule],
    timeout_s: float,
) -> Reply:
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "ok"}]}
    headers = {"anthropic-version": "2023-06-01", **header.carry(key)}
    began = time.monotonic()
    where = f"direct probe, {header.wire}"
    status: int | None = None
    after: float | None = None
    kind: FailureKind | None
    try:
        with client.stream("POST", f"{base_url.rstrip('/')}/v1/messages", json=body, headers=headers) as response:
            text = _text(response, began + timeout_s)
        status, after = response.status_code, _retry_after(response.headers)
        kind, seen = _judge(response.status_code, _masked(text, key), rules)
    except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
        kind, seen = _transport(error)
    evidence = Evidence(source="probe", seen=_masked(seen, key), where=where)
    return Reply(header, status, time.monotonic() - began, kind, evidence, after)


def _text(response: httpx.Response, deadline: float) -> str:
    """The body, as far as it came; a read timeout too when each read was in time and their sum was not."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > _ANSWER_BYTES:
            break
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"still sending, {len(body)} bytes so far")
    return body.decode(response.encoding or "utf-8", "replace")


def _masked(text: str, key: str) -> str:
    return text.replace(key, "*" * len(key)) if key else text


def _judge(status: int, text: str, rules: Sequence[ErrorRule]) -> tuple[FailureKind | None, str]:
    """A 200 counts only when it is an answer of the Messages API: login pages and error bodies come as 200 too."""
    if status == 200 and _is_message(text):
        return None, "HTTP 200, a message"
    answer = read_body(status, text) if status != 200 else read_body(None, text)
    found = classify(answer, rules)
    if found is None:
        shown = " ".join(text.split())[:200] or "an empty body"
        return _K.NOT_THE_API, f"HTTP {status}: {shown}"
    return found[0], f"HTTP {status} ({found[1].seen})" if status == 200 else found[1].seen


def _is_message(text: str) -> bool:
    try:
        body = json.loads(text)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("type") == "message"


# httpx._exceptions, version 0.28: every error of a request by the first class that fits
_TRANSPORT: tuple[tuple[type[Exception], FailureKind, str], ...] = (
    (httpx.ReadTimeout, _K.PROVIDER_MUTE, "took the request and did not answer in time"),
    (httpx.ConnectTimeout, _K.NETWORK, "no connection in time"),
    (httpx.TimeoutException, _K.NETWORK, "timed out"),
    (httpx.ConnectError, _K.NETWORK, "no connection"),
    (httpx.NetworkError, _K.NETWORK, "the connection broke"),
    (httpx.RemoteProtocolError, _K.NOT_THE_API, "the peer does not speak HTTP as it should"),
    (httpx.ProxyError, _K.NETWORK, "the proxy refused"),
    (httpx.UnsupportedProtocol, _K.NOT_THE_API, "the URL has no http or https scheme"),
    (httpx.DecodingError, _K.NOT_THE_API, "the body is not encoded as its headers say"),
    (httpx.InvalidURL, _K.NOT_THE_API, "the URL is not valid"),
)


# httpcore 1.0 and h11 0.16: a connection that ended early comes as a RemoteProtocolError with one of these texts
_ENDED_EARLY = ("Server disconnected", "peer closed connection")


def _transport(error: Exception) -> tuple[FailureKind, str]:
    if isinstance(error, httpx.LocalProtocolError):  # its text shows the header, and with it the key
        return _K.REQUEST_REJECTED, "the request cannot be written: a header holds what HTTP does not allow"
    if isinstance(error, httpx.RemoteProtocolError) and str(error).startswith(_ENDED_EARLY):
        return _K.NETWORK, f"the connection ended before the answer did ({type(error).__name__}: {error})"
    for cls, kind, words in _TRANSPORT:
        if isinstance(error, cls):
            return kind, f"{words} ({type(error).__name__}: {error})"
    return _K.NETWORK, f"{type(error).__name__}: {error}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, where they are some: `nan`, `inf` and a date are none that anybody could wait."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def wrong_header(found: Direct, provider: str, harness: str, variable: str, right: Sequence[str]) -> Failure:
    """The incident's cause in words: which header is refused, which is taken, who sends it, what to write instead.

    Args:
        variable: The variable the lock sets for this harness.
        right: The harness's variables that produce the accepted header; empty when it has none.
    """
    if found.other is None:
        raise ValueError("needs a probe that tried both headers")
    refused, taken = found.sent.header.wire, found.other.header.wire
    sends = f"harness {harness} sends {taken.split()[-1]} from {' or '.join(right)}; " if right else ""
    words = f"provider rejects {refused}, accepts the same key as {taken}; {sends}the lock sets {variable}"
    if right:
        place = f"providers.{provider}.harnesses.{harness}.set"
        mend = f"in the lock, {place}: put {{key}} into {right[0]} instead of {variable}"
    else:
        mend = f"harness {harness} cannot send {taken}; use another harness for {provider}"
    return fail(
        _K.WRONG_HEADER,
        Evidence(source="probe", seen=words),
        found.sent.evidence,
        found.other.evidence,
        remedy=mend,
    )

"""One cheap real call to a provider, with the header the harness will send.

When that header is refused the same key is tried in the other one: the only
way to tell a wrong key from a right key in the wrong variable.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.lockfile import ErrorRule, Header
from overnight.wire import classify, read_body

_K = FailureKind


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
        key: Used on the wire only.
        timeout_s: For connecting and for each read.
    """
    with httpx.Client(timeout=timeout_s, trust_env=False, follow_redirects=False) as client:
        sent = _call(client, base_url, header, key, model, rules)
        if sent.kind is not _K.AUTH_REJECTED:
            return Direct(sent)
        other = Header.X_API_KEY if header is Header.BEARER else Header.BEARER
        return Direct(sent, _call(client, base_url, other, key, model, rules))


def _call(
    client: httpx.Client, base_url: str, header: Header, key: str, model: str, rules: Sequence[ErrorRule]
) -> Reply:
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "ok"}]}
    headers = {"anthropic-version": "2023-06-01", **header.carry(key)}
    began = time.monotonic()
    where = f"direct probe, {header.wire}"
    try:
        response = client.post(f"{base_url.rstrip('/')}/v1/messages", json=body, headers=headers)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        kind, seen = _transport(error)
        return Reply(header, None, time.monotonic() - began, kind, Evidence(source="probe", seen=seen, where=where))
    seconds = time.monotonic() - began
    kind_or_none, seen = _judge(response, rules)
    evidence = Evidence(source="probe", seen=seen, where=where)
    return Reply(header, response.status_code, seconds, kind_or_none, evidence, _retry_after(response.headers))


def _judge(response: httpx.Response, rules: Sequence[ErrorRule]) -> tuple[FailureKind | None, str]:
    """A 200 counts only when it is an answer of the Messages API: login pages and error bodies come as 200 too."""
    status, text = response.status_code, response.text
    if status == 200 and _is_message(response):
        return None, "HTTP 200, a message"
    answer = read_body(status, text) if status != 200 else read_body(None, text)
    found = classify(answer, rules)
    if found is None:
        shown = " ".join(text.split())[:200] or "an empty body"
        return _K.NOT_THE_API, f"HTTP {status}: {shown}"
    return found[0], f"HTTP {status} ({found[1].seen})" if status == 200 else found[1].seen


def _is_message(response: httpx.Response) -> bool:
    try:
        body = response.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("type") == "message"


# httpx._exceptions, version 0.28: every TransportError by the first class that fits
_TRANSPORT: tuple[tuple[type[Exception], FailureKind, str], ...] = (
    (httpx.ReadTimeout, _K.PROVIDER_MUTE, "took the request and did not answer in time"),
    (httpx.ConnectTimeout, _K.NETWORK, "no connection in time"),
    (httpx.TimeoutException, _K.NETWORK, "timed out"),
    (httpx.ConnectError, _K.NETWORK, "no connection"),
    (httpx.NetworkError, _K.NETWORK, "the connection broke"),
    (httpx.RemoteProtocolError, _K.NOT_THE_API, "the peer does not speak HTTP as it should"),
    (httpx.ProxyError, _K.NETWORK, "the proxy refused"),
    (httpx.UnsupportedProtocol, _K.NOT_THE_API, "the URL has no http or https scheme"),
    (httpx.InvalidURL, _K.NOT_THE_API, "the URL is not valid"),
)


def _transport(error: Exception) -> tuple[FailureKind, str]:
    for cls, kind, words in _TRANSPORT:
        if isinstance(error, cls):
            return kind, f"{words} ({type(error).__name__}: {error})"
    return _K.NETWORK, f"{type(error).__name__}: {error}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return None


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

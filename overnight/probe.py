"""One cheap real call to a provider, with the header the harness will send.

When that header is refused the same key is tried in the other one: the only
way to tell a wrong key from a right key in the wrong variable.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, TypedDict

import httpx

from overnight.facts import CHATS
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.lockfile import ErrorRule, FreeProbe, Header, Speaks
from overnight.wire import STREAM_TYPE, Judged, Stream, parsed, read_free
from overnight.wire import judge as judge  # as: who asks by other means reads the answer by it

_K = FailureKind
_HEADERS = {"anthropic-version": "2023-06-01"}
_QUESTION = [{"role": "user", "content": "ok"}]
_ANSWER_SIZE = 1_000_000  # characters; an answer of one token is smaller, and a page may never end


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back for one call. `kind` is None when it succeeded, `model` the one that the answer names."""

    status: int | None
    seconds: float
    kind: FailureKind | None
    evidence: Evidence
    retry_after_s: float | None = None
    model: str | None = None

    @property
    def ok(self) -> bool:
        return self.kind is None


@dataclass(frozen=True, kw_only=True)
class HeaderReply(Reply):
    """What came back for one header."""

    header: Header


@dataclass(frozen=True, kw_only=True)
class FreeReply(Reply):
    """What came back for a free probe. `proves` is what one that is ok proves of the key: nothing by a call without."""

    proves: tuple[str, ...]


@dataclass(frozen=True)
class Direct:
    """The direct probe of a route: the header the harness sends, and the other one if that was refused."""

    sent: HeaderReply
    other: HeaderReply | None = None

    @property
    def wrong_header(self) -> bool:
        return self.sent.kind is _K.AUTH_REJECTED and self.other is not None and self.other.ok


def direct(
    base_url: str,
    header: Header,
    key: str,
    model: str,
    rules: Sequence[ErrorRule],
    timeout_s: float = 15.0,
    speaks: Speaks = "anthropic",
) -> Direct:
    """Ask for a few tokens at most; never raises for what the network or the provider does.

    Args:
        base_url: As the harness gets it; `/v1/messages` is appended, or what `speaks` has for it.
        header: What the harness will send.
        key: Used on the wire only. A provider that echoes it back is masked in every evidence.
        timeout_s: For connecting, for each read, and for the whole answer, so that none can drip for ever.
    """
    with _client(timeout_s) as client:

        def reply(carried: Header) -> HeaderReply:
            chat = _chat(base_url, carried.carry(key), model, speaks)
            return HeaderReply(header=carried, **_send(client, chat, key, partial(judge, rules=rules), timeout_s))

        sent = reply(header)
        if sent.kind is not _K.AUTH_REJECTED:
            return Direct(sent)
        return Direct(sent, reply(Header.X_API_KEY if header is Header.BEARER else Header.BEARER))


def ask(
    base_url: str,
    headers: Mapping[str, str],
    key: str,
    model: str,
    rules: Sequence[ErrorRule],
    timeout_s: float = 15.0,
    speaks: Speaks = "anthropic",
) -> Reply:
    """The same call with headers of your own: the key in one, in both, or in none. Never raises as `direct` does not.

    Args:
        headers: As `Header.carry` makes them; other headers are sent too and not shown.
        key: Only to mask it in the evidence.
    """
    with _client(timeout_s) as client:
        chat = _chat(base_url, headers, model, speaks)
        return Reply(**_send(client, chat, key, partial(judge, rules=rules), timeout_s))


def free(probe: FreeProbe, key: str, rules: Sequence[ErrorRule], timeout_s: float = 15.0, model: str = "") -> FreeReply:
    """Make a call of the lock that costs nothing. Never raises for what the network or the provider does.

    Args:
        model: What a probe that proves a model asks about.

    Raises:
        ValueError: the probe proves a model, and none was given.
    """
    return measured(probe, key, rules, timeout_s, model)[0]


def measured(
    probe: FreeProbe, key: str, rules: Sequence[ErrorRule], timeout_s: float = 15.0, model: str = ""
) -> tuple[FreeReply, object]:
    """As `free`, with the JSON object that came; empty where none did."""
    if "model" in probe.proves and not model:
        raise ValueError(f"{probe.url} needs a model")
    body = {"model": model, "messages": _QUESTION} if "model" in probe.proves else None
    came: dict[str, Any] = {}

    def read(status: int, _media_type: str, text: str) -> Judged:
        came.update(parsed(text))
        return read_free(probe, status, text, rules)

    with _client(timeout_s) as client:
        call = _Call(probe.method, probe.url, _free_headers(probe, key), body, "free probe")
        got = _send(client, call, key, read, timeout_s)
    return FreeReply(proves=() if probe.key_as == "none" else probe.proves, **got), came


def _free_headers(probe: FreeProbe, key: str) -> dict[str, str]:
    if probe.key_as == "none":
        return dict(_HEADERS)
    carried = {"Authorization": key} if probe.key_as == "raw" else Header(probe.key_as).carry(key)
    return {**_HEADERS, **carried}


def _client(timeout_s: float) -> httpx.Client:
    return httpx.Client(timeout=timeout_s, trust_env=False, follow_redirects=False, verify=_trusted())


@cache
def _trusted() -> ssl.SSLContext:
    """Whom to trust over TLS. Once, since reading the machine's certificates takes longer than a probe on loopback."""
    return httpx.create_ssl_context(trust_env=False)


class _Call(NamedTuple):
    """One request. `headers` carry the key, or do not."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None
    what: str

    @property
    def where(self) -> str:
        """What is asked and how the key travels, for the evidence."""
        sent = {name.lower(): value for name, value in self.headers.items()}
        bearer = sent.get("authorization", "").lower().startswith("bearer ")
        shown = {"authorization": Header.BEARER.wire if bearer else "Authorization", "x-api-key": "x-api-key"}
        return f"{self.what}, {' and '.join(shown[name] for name in shown if sent.get(name)) or 'no key'}"


def address(base_url: str, speaks: Speaks = "anthropic") -> str:
    """Where chats go, given the base URL as harnesses get it."""
    return base_url.rstrip("/") + CHATS[speaks]


def message(model: str, speaks: Speaks = "anthropic") -> tuple[dict[str, Any], dict[str, str]]:
    """The body of the question, streamed as agents ask for it, and its headers without the key.

    One token, or the 16 that the Responses API takes for the least.
    """
    if speaks == "anthropic":
        return {"model": model, "max_tokens": 1, "stream": True, "messages": _QUESTION}, dict(_HEADERS)
    asked = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "ok"}]}]
    return {"model": model, "max_output_tokens": 16, "stream": True, "store": False, "input": asked}, {}


def _chat(base_url: str, headers: Mapping[str, str], model: str, speaks: Speaks) -> _Call:
    body, plain = message(model, speaks)
    return _Call("POST", address(base_url, speaks), {**plain, **headers}, body, "direct probe")


class _Got(TypedDict):
    """The fields of Reply."""

    status: int | None
    seconds: float
    kind: FailureKind | None
    evidence: Evidence
    retry_after_s: float | None
    model: str | None


def _send(
    client: httpx.Client, call: _Call, key: str, read: Callable[[int, str, str], Judged], timeout_s: float
) -> _Got:
    began = time.monotonic()
    status: int | None = None
    after: float | None = None
    try:
        with client.stream(call.method, call.url, json=call.body, headers=call.headers) as response:
            text = _text(response, began + timeout_s)
        status, after = response.status_code, _retry_after(response.headers)
        media_type = response.headers.get("content-type", "")
        judged = read(response.status_code, media_type, _masked(text, key))
    except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
        judged = Judged(*_transport(error))
    except UnicodeEncodeError:  # its object holds the key
        judged = Judged(_K.REQUEST_REJECTED, "the request cannot be written: a header holds what is not ASCII")
    return _Got(
        status=status,
        seconds=time.monotonic() - began,
        kind=judged.kind,
        evidence=Evidence(source="probe", seen=_masked(judged.seen, key), where=call.where),
        retry_after_s=after,
        model=judged.model,
    )


def _text(response: httpx.Response, deadline: float) -> str:
    """The body as far as it is needed; a read timeout too when each read was in time and their sum was not."""
    streamed = response.headers.get("content-type", "").lower().startswith(STREAM_TYPE)
    stream, read = Stream(), []
    size = 0
    for part in response.iter_text():
        read.append(part)
        size += len(part)
        if streamed:
            stream.feed(part)
        if size > _ANSWER_SIZE or stream.over:
            break
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"still sending, {size} characters so far")
    return "".join(read)


def _masked(text: str, key: str) -> str:
    return text.replace(key, "*" * len(key)) if key else text


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

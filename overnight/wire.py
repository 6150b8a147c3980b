"""Reads a provider's answer: body code before status, status before words.

One function serves the direct probe and every harness that passes the
provider's error through. Another reads a whole answer, streamed or not,
wherever it was fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from overnight.failures import Evidence, FailureKind
from overnight.lockfile import ErrorRule, FreeProbe

_BRACKETED = re.compile(r"\[(\d{3,5})\]")
_K = FailureKind

# What a status means when the lock has no rule that says more. 429 and 403 are
# read here last because five different causes share them (facts: provider rules come first).
_STATUS: dict[int, FailureKind] = {
    401: _K.AUTH_REJECTED,
    403: _K.AUTH_REJECTED,
    402: _K.BILLING,
    404: _K.MODEL_UNKNOWN,
    413: _K.CONTEXT_OVERFLOW,
    429: _K.RATE_LIMITED,
    529: _K.OVERLOADED,
    503: _K.OVERLOADED,
}

# The error types of the Messages API, which every provider here speaks. They decide where the status cannot: inside
# HTTP 200, in an event of a stream. Below the lock's rules, since ZhiPu sends rate_limit_error for an empty account.
_TYPES: dict[str, FailureKind] = {
    "authentication_error": _K.AUTH_REJECTED,
    "permission_error": _K.AUTH_REJECTED,
    "billing_error": _K.BILLING,
    "not_found_error": _K.MODEL_UNKNOWN,
    "request_too_large": _K.REQUEST_REJECTED,
    "rate_limit_error": _K.RATE_LIMITED,
    "overloaded_error": _K.OVERLOADED,
    "api_error": _K.PROVIDER_ERROR,
    "timeout_error": _K.PROVIDER_ERROR,
    # the Responses API, in `response.failed`; Codex 0.169.0 knows these
    "server_is_overloaded": _K.OVERLOADED,
    "slow_down": _K.OVERLOADED,
    "rate_limit_exceeded": _K.RATE_LIMITED,
    "insufficient_quota": _K.BILLING,
    "context_length_exceeded": _K.CONTEXT_OVERFLOW,
}
_PAGE = ("<!doctype", "<html")

STREAM_TYPE = "text/event-stream"
_TALKS_ON = 4  # deltas: more than one token needs, less than a turn of any use
_ABOUT: dict[str, FailureKind] = {"billing": _K.BILLING, "quota": _K.QUOTA_WINDOW}  # what a free probe's "no" is about


class Answer(NamedTuple):
    """An error as the provider gave it. `codes` are every code field found in the body, strongest first."""

    status: int | None
    codes: tuple[str, ...] = ()
    message: str = ""


def read_body(status: int | None, body: str) -> Answer:
    """Find codes and message in any of the body shapes providers use; text that is not JSON is the message."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):  # the latter for brackets without end
        return read_message(status, body)
    if not isinstance(parsed, dict):
        return Answer(status, (), body[:500])
    inner = parsed.get("error")
    error = inner if isinstance(inner, dict) else {}
    base = parsed.get("base_resp")
    base = base if isinstance(base, dict) else {}
    candidates = [error.get("code"), error.get("type"), parsed.get("code"), base.get("status_code")]
    message = str(
        error.get("message") or parsed.get("message") or parsed.get("msg") or base.get("status_msg") or inner or ""
    )
    codes = [str(c) for c in candidates if c not in (None, "", 0, "0")]
    return Answer(status, tuple(dict.fromkeys([*codes, *_BRACKETED.findall(message)])), message)


def read_message(status: int | None, message: str) -> Answer:
    """An error line that a harness printed, which may carry the body or `[code]` inside it."""
    start = message.find("{")
    if start >= 0:
        try:
            parsed, _ = json.JSONDecoder().raw_decode(message[start:])
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, dict):
            found = read_body(status, json.dumps(parsed))
            return Answer(status, found.codes, found.message or message)
    return Answer(status, tuple(_BRACKETED.findall(message)), message)


def classify(answer: Answer, rules: Sequence[ErrorRule]) -> tuple[FailureKind, Evidence] | None:
    """The kind an answer proves, and the sighting that proves it; None when it proves nothing."""
    by_code = [r for r in rules if r.codes]
    by_words = [r for r in rules if not r.codes]
    for rule in [*by_code, *by_words]:
        if _matches(rule, answer):
            return rule.kind, _evidence(answer, "body" if rule.codes or rule.words else "http")
    typed = next((_TYPES[code] for code in answer.codes if code in _TYPES), None)
    if typed:
        return typed, _evidence(answer, "body")
    if answer.status is None:
        return None
    if answer.status < 500 and answer.message.lstrip().lower().startswith(_PAGE):
        return _K.NOT_THE_API, _evidence(answer, "body")
    kind = _STATUS.get(answer.status)
    if kind is None and answer.status >= 500:
        kind = _K.PROVIDER_ERROR
    if kind is None and answer.status >= 400:
        kind = _K.REQUEST_REJECTED
    return (kind, _evidence(answer, "http")) if kind else None


def _matches(rule: ErrorRule, answer: Answer) -> bool:
    if not (rule.http or rule.codes or rule.words):
        return False
    status_unknown_but_coded = answer.status is None and rule.codes  # a harness may keep the code and drop the status
    if rule.http and answer.status not in rule.http and not status_unknown_but_coded:
        return False
    if rule.codes and not set(rule.codes) & set(answer.codes):
        return False
    lowered = answer.message.lower()
    return not rule.words or any(word in lowered for word in rule.words)


def _evidence(answer: Answer, source: str) -> Evidence:
    status = f"HTTP {answer.status}" if answer.status is not None else "no HTTP status"
    code = f", code {answer.codes[0]}" if answer.codes else ""
    said = f": {' '.join(answer.message.split())[:300]}" if answer.message else ""
    return Evidence.model_validate({"source": source, "seen": f"{status}{code}{said}"})


class Judged(NamedTuple):
    """What a whole answer proves. `kind` is None for a turn of the model; `model` is the one the answer names."""

    kind: FailureKind | None
    seen: str
    model: str | None = None


def judge(status: int, media_type: str, text: str, rules: Sequence[ErrorRule]) -> Judged:
    """Read the answer to a chat request that asked for a stream.

    A 200 counts only when it is an answer of the Messages API or the Responses
    API, as a stream or as one body: login pages and error bodies come as 200 too. A stream must
    name its message and hold some content of it.

    Args:
        media_type: The Content-Type. A wrong or empty one is forgiven when the text itself shows a stream.
        text: As far as it was read; the last event in it must be whole.
    """
    stream = Stream()
    if media_type.lower().startswith(STREAM_TYPE) or text.lstrip().startswith(("event:", "data:")):
        stream.feed(text + "\n\n")
    if stream.error is not None:
        return _judge_error(status, stream, rules)
    if status == 200 and stream.is_message:
        if stream.speaks:
            return Judged(None, "HTTP 200, a message", stream.model)
        return Judged(_K.NETWORK, "HTTP 200; the stream ended before the answer did", stream.model)
    if status == 200:
        message = parsed(text)
        if message.get("type") == "message" or message.get("object") == "response":
            return Judged(None, "HTTP 200, a message", _named(message))
    found = classify(read_body(status if status != 200 else None, text), rules)
    if found is None:
        return Judged(_K.NOT_THE_API, f"HTTP {status}: {_shown(text)}")
    return Judged(found[0], f"HTTP {status} ({found[1].seen})" if status == 200 else found[1].seen)


def _judge_error(status: int, stream: Stream, rules: Sequence[ErrorRule]) -> Judged:
    error = stream.error or ""
    answer = read_body(status if status != 200 else None, error)
    found = classify(answer, rules)
    if found:
        return Judged(found[0], f"HTTP {status}, in the stream ({found[1].seen})", stream.model)
    # the API itself says no, in words that no rule knows
    kind = _K.REQUEST_REJECTED if "invalid_request_error" in answer.codes else _K.PROVIDER_ERROR
    return Judged(kind, f"HTTP {status}, in the stream: {_shown(error)}", stream.model)


class Stream:
    """Server-sent events of the Messages API or the Responses API, read as they come.

    An event counts when the empty line after it came. `is_message` once the
    message was named, `model` by what name. `error` is the data of the first
    event that is an error.
    """

    def __init__(self) -> None:
        self.is_message = False
        self.model: str | None = None
        self.error: str | None = None
        self._rest = ""
        self._name = ""
        self._data: list[str] = []
        self._deltas = 0
        self._ended = False

    @property
    def speaks(self) -> bool:
        """Whether the turn came so far that it has content, or ended without."""
        return self.is_message and (self._ended or self._deltas > 0)

    @property
    def over(self) -> bool:
        """Whether nothing that follows can change the verdict: an error came, the turn ended, or the model talks on
        although it was asked for one token.
        """
        return self.error is not None or (self.is_message and (self._ended or self._deltas >= _TALKS_ON))

    def feed(self, text: str) -> None:
        """Read on, from wherever the last piece ended."""
        if "\n" not in text:
            self._rest += text
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            name, _, value = line.rstrip("\r").partition(":")
            if name == "event":
                self._name = value.strip()
            elif name == "data":
                self._data.append(value.strip())
            elif not line.strip():
                if self._data and not self.over:
                    self._take("\n".join(self._data))
                self._name, self._data = "", []

    def _take(self, data: str) -> None:
        event = parsed(data)
        kind = event.get("type")
        coded = kind is None and read_body(None, data).codes  # an error without an envelope
        if "error" in (self._name, kind) or event.get("error") or coded:
            self.error = data
        elif kind == "response.failed":
            response = event.get("response")
            self.error = json.dumps({"error": response.get("error") if isinstance(response, dict) else None})
        elif kind in ("message_start", "response.created"):
            self.is_message = True
            self.model = _named(event.get("message") or event.get("response"))
        elif kind == "content_block_delta" or str(kind).endswith(".delta"):
            self._deltas += 1
        elif kind in ("message_delta", "message_stop", "response.completed", "response.incomplete"):
            self._ended = True


def read_free(probe: FreeProbe, status: int, text: str, rules: Sequence[ErrorRule]) -> Judged:
    """Read the answer to a free probe; `kind` is None when it proves what the lock says it does.

    Where the lock names what a good body says, nothing else is good. A field
    that is there and says otherwise, in a body without any error, is the
    provider's word on what the probe is about: no money, or a used-up quota.
    """
    body = parsed(text)
    said = {path: _at(body, path) for path in probe.good}
    shown = ", ".join(f"{path} is {json.dumps(value)}" for path, value in said.items() if value is not None)
    here = f"HTTP {status}, {shown}" if shown else f"HTTP {status}"
    # as text, since codes come as numbers and as strings
    if status == 200 and probe.good and all(str(said[path]) == str(wanted) for path, wanted in probe.good.items()):
        return Judged(None, here)
    if status == 404 and "model" not in probe.proves:
        return Judged(_K.NOT_THE_API, f"HTTP 404: {_shown(text)}")
    answer = read_body(status if status != 200 else None, text)
    found = classify(answer, rules)
    if found:
        return Judged(found[0], f"{here} ({found[1].seen})" if status == 200 else found[1].seen)
    if status != 200 or not body or (not shown and (probe.good or body.get("error"))):
        return Judged(_K.NOT_THE_API, f"HTTP {status}: {_shown(text)}")
    if not probe.good:
        return Judged(None, here)
    if answer.codes or None in said.values():
        return Judged(_K.UNKNOWN, f"{here}: {_shown(text)}")
    about = next((kind for what, kind in _ABOUT.items() if what in probe.proves), _K.UNKNOWN)
    return Judged(about, here)


def _at(body: object, path: str) -> object:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def parsed(text: str) -> dict[str, Any]:
    """The JSON object in a text, empty when it is none."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _named(message: object) -> str | None:
    model = message.get("model") if isinstance(message, dict) else None
    return model if isinstance(model, str) and model else None


def _shown(text: str) -> str:
    return " ".join(text.split())[:200] or "an empty body"

"""Reads a provider's answer: body code before status, status before words.

One function serves the direct probe and every harness that passes the
provider's error through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from overnight.failures import Evidence, FailureKind
from overnight.lockfile import ErrorRule

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
}
_PAGE = ("<!doctype", "<html")


class Answer(NamedTuple):
    """An error as the provider gave it. `codes` are every code field found in the body, strongest first."""

    status: int | None
    codes: tuple[str, ...] = ()
    message: str = ""


def read_body(status: int | None, body: str) -> Answer:
    """Find codes and message in any of the body shapes providers use; text that is not JSON is the message."""
    try:
        parsed = json.loads(body)
    except ValueError:
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
        except ValueError:
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

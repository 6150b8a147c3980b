"""What a provider, or the way to it, does wrong."""

from __future__ import annotations

from overnight.failures import FailureKind
from overnight.lockfile import Header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.matrix.case import COMMITTED, Case, Way, any_of
from overnight.rehearsal.model import Shell

_K, _F = FailureKind, FaultKind
_BEARER, _KEY = frozenset({Header.BEARER}), frozenset({Header.X_API_KEY})
_AUTH = any_of(_K.AUTH_REJECTED)
_HEADER = any_of(_K.WRONG_HEADER, _K.AUTH_REJECTED)
_RATE, _QUOTA, _BILLING = any_of(_K.RATE_LIMITED), any_of(_K.QUOTA_WINDOW), any_of(_K.BILLING)
_SERVER, _FULL = any_of(_K.PROVIDER_ERROR), any_of(_K.OVERLOADED)
_NO_API, _MUTE, _NET = any_of(_K.NOT_THE_API), any_of(_K.PROVIDER_MUTE), any_of(_K.NETWORK)
_ANTHROPIC = {"shape": "anthropic"}
_LOOK_FIRST = (Shell("ls"), *COMMITTED)
# OpenAI's own names for agents that take no other key than the one of their header
_TAKES_BEARER = ("claude-code", "codex", "copilot", "opencode", "pi")
_TAKES_KEY = ("goose", "qwen")


def _code(code: str) -> Fault:
    return Fault(_F.CODED, code=code)


def _fine() -> tuple[Case, ...]:
    slow = (Fault(_F.SLOW, wait_s=60, times=1),)
    return (
        Case("right", "all is well"),
        Case("slow", "the first answer takes 60 s and is good", fault=slow[0], own_waits=True),
        Case("mapped", "another model answers", any_of(_K.MODEL_MISMATCH), spared=True, site={"answers_as": "else-1"}),
        Case("flaky-429", "429 twice, then well", _RATE, spared=True, fault=Fault(_F.RATE_LIMITED, times=2)),
        Case("flaky-500", "500 twice, then well", _SERVER, spared=True, fault=Fault(_F.SERVER_ERROR, times=2)),
    )


def _keys() -> tuple[Case, ...]:
    return (
        Case(
            "bearer-only",
            "the key is read from Authorization alone",
            site={"accepts": _BEARER},
            instead=dict.fromkeys(_TAKES_KEY, _HEADER),
        ),
        Case(
            "x-api-key-only",
            "the key is read from x-api-key alone",
            site={"accepts": _KEY},
            instead=dict.fromkeys(_TAKES_BEARER, _HEADER),
        ),
        Case("401-anthropic", "401 as Anthropic says it", _AUTH, fault=Fault(_F.KEY_REFUSED), site=_ANTHROPIC),
        Case("401-zhipu-1000", "401 and code 1000", _AUTH, fault=Fault(_F.KEY_REFUSED)),
        Case("401-zhipu-1001", "401 and code 1001: no key came", _HEADER | any_of(_K.KEY_MISSING), fault=_code("1001")),
        Case("401-zhipu-1002", "401 and code 1002", _AUTH, fault=_code("1002")),
        Case("401-moonshot", "401 as Moonshot says it", _AUTH, fault=Fault(_F.KEY_REFUSED), site={"shape": "moonshot"}),
        Case("401-minimax", "401 as MiniMax says it", _AUTH, fault=Fault(_F.KEY_REFUSED), site={"shape": "minimax"}),
        Case("401-turn-2", "401 after the first tool", _AUTH, fault=Fault(_F.KEY_REFUSED, turn=2), steps=_LOOK_FIRST),
        Case("403-key", "403: the key may not", _AUTH, fault=Fault(_F.FORBIDDEN), site=_ANTHROPIC),
        Case(
            "403-region",
            "403: not from this place",
            any_of(_K.REQUEST_REJECTED, _K.NETWORK),
            fault=Fault(_F.REGION_REFUSED),
            site=_ANTHROPIC,
        ),
        Case("403-html", "403 and a firewall's page", _NO_API | _NET, fault=Fault(_F.FIREWALL_PAGE)),
    )


def _requests() -> tuple[Case, ...]:
    unknown = any_of(_K.MODEL_UNKNOWN)
    return (
        Case("404-model", "404 for the model", unknown, fault=Fault(_F.MODEL_NOT_FOUND), site=_ANTHROPIC),
        Case("400-model", "400 and code 1211: no such model", unknown, fault=Fault(_F.UNKNOWN_MODEL)),
        Case("wrong-path", "the base URL has a /v1 too many", _NO_API, way=Way.WRONG_PATH),
        Case(
            "413", "413", any_of(_K.REQUEST_REJECTED, _K.CONTEXT_OVERFLOW), fault=Fault(_F.TOO_LARGE), site=_ANTHROPIC
        ),
    )


def _money() -> tuple[Case, ...]:
    return (
        Case("400-credit", "400: the credit is too low", _BILLING, fault=Fault(_F.CREDIT_TOO_LOW), site=_ANTHROPIC),
        Case("402", "402", _BILLING, fault=Fault(_F.PAYMENT_REQUIRED), site=_ANTHROPIC),
        Case("429", "429", _RATE, fault=Fault(_F.RATE_LIMITED), site=_ANTHROPIC),
        Case(
            "429-after-2", "429, Retry-After 2", _RATE, fault=Fault(_F.RATE_LIMITED, retry_after_s=2), site=_ANTHROPIC
        ),
        Case(
            "429-after-3600",
            "429, Retry-After 3600",
            _RATE | _QUOTA,
            fault=Fault(_F.RATE_LIMITED, retry_after_s=3600),
            site=_ANTHROPIC,
        ),
        Case("429-1113", "429 and code 1113: no balance", _BILLING, fault=_code("1113")),
        Case("429-1302", "429 and code 1302: too many at once", _RATE, fault=_code("1302")),
        Case("429-1303", "429 and code 1303: too often", _RATE, fault=_code("1303")),
        Case("429-1308", "429 and code 1308: the window is used up", _QUOTA, fault=Fault(_F.WINDOW_USED_UP)),
        Case("429-1309", "429 and code 1309: the plan has ended", any_of(_K.PLAN_EXPIRED), fault=_code("1309")),
        Case("429-turn-2", "429 after the first tool", _RATE, fault=Fault(_F.RATE_LIMITED, turn=2), steps=_LOOK_FIRST),
    )


def _servers() -> tuple[Case, ...]:
    half = _SERVER | _NO_API | _NET
    return (
        Case("500", "500", _SERVER, fault=Fault(_F.SERVER_ERROR), site=_ANTHROPIC),
        Case("502-html", "502 and a page", _SERVER, fault=Fault(_F.BAD_GATEWAY)),
        Case("503", "503", _SERVER | _FULL, fault=Fault(_F.UNAVAILABLE), site=_ANTHROPIC),
        Case("529", "529", _FULL, fault=Fault(_F.OVERLOADED), site=_ANTHROPIC),
        Case("200-error", "200 and an error inside", _SERVER | _NO_API, fault=Fault(_F.ERROR_IN_OK), site=_ANTHROPIC),
        Case("200-1308", "200 and code 1308 inside", _QUOTA, fault=Fault(_F.ERROR_IN_OK, code="1308")),
        Case("200-html", "200 and a page", _NO_API, fault=Fault(_F.HTML_PAGE)),
        Case("200-empty", "200 and nothing", _NO_API, fault=Fault(_F.EMPTY)),
        Case("200-truncated", "200 and half an answer", half, fault=Fault(_F.TRUNCATED)),
        Case("empty-answer", "an answer without a word", _NO_API | _SERVER, fault=Fault(_F.EMPTY_ANSWER)),
        Case("sse-error", "an error inside the stream", _FULL, fault=Fault(_F.STREAM_ERROR), site=_ANTHROPIC),
        Case("sse-empty", "a stream without an event", _NO_API | _SERVER, fault=Fault(_F.EMPTY_STREAM)),
        Case("sse-no-stop", "a stream without its end", half, spared=True, fault=Fault(_F.NO_STOP)),
        Case("sse-cut", "the connection ends in the middle", _NET | _SERVER, fault=Fault(_F.CUT)),
    )


def _silences() -> tuple[Case, ...]:
    """Nothing comes. An agent that can be told how long to wait says so itself."""
    return (
        Case("hang", "no byte of an answer", _MUTE, silent=True, fault=Fault(_F.HANG)),
        Case("headers-only", "headers, then nothing", _MUTE, silent=True, fault=Fault(_F.HEADERS_ONLY)),
        Case("sse-stall", "half an answer, then nothing", _MUTE, silent=True, fault=Fault(_F.STALL)),
        Case(
            "stall-turn-2",
            "half an answer, then nothing, after the first tool",
            _MUTE,
            silent=True,
            fault=Fault(_F.STALL, turn=2),
            steps=_LOOK_FIRST,
        ),
        Case(
            "drip",
            "a sign of life every 2 s and no answer",
            _MUTE,
            silent=True,
            fault=Fault(_F.DRIP, every_s=2),
            limits={"turn_s": 45},
        ),
        Case(
            "drip-words",
            "a word every 2 s for ever",
            _MUTE,
            silent=True,
            fault=Fault(_F.DRIP, every_s=2, drips="text"),
            limits={"turn_s": 45},
        ),
        Case("blackhole", "the connection is never answered", _NET | _MUTE, silent=True, way=Way.BLACKHOLE),
    )


def _ways() -> tuple[Case, ...]:
    return (
        Case("refused", "the connection is refused", _NET, way=Way.REFUSED),
        Case("dns", "the name is not known", _NET, way=Way.UNRESOLVED),
        Case("tls-self-signed", "a certificate that nobody vouches for", _NET, way=Way.SELF_SIGNED),
        Case("tls-expired", "a certificate of yesterday", _NET, way=Way.EXPIRED),
        Case("tls-to-plain", "TLS is spoken to a port without", _NET | _NO_API, way=Way.TLS_TO_PLAIN),
        Case("proxy-dead", "the proxy is not there", _NET, spared=True, way=Way.DEAD_PROXY),
    )


CASES = (*_fine(), *_keys(), *_requests(), *_money(), *_servers(), *_silences(), *_ways())

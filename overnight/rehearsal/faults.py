"""Every way the emulated provider can fail, as data."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from overnight.failures import BadInput
from overnight.lockfile import suggest
from overnight.rehearsal.dialects import Why


class FaultKind(StrEnum):
    """What goes wrong with a request whose key, header and model are right."""

    KEY_REFUSED = "key-refused"
    """401, as after a key was revoked."""
    FORBIDDEN = "forbidden"
    CONTENT_REFUSED = "content-refused"
    CREDIT_TOO_LOW = "credit-too-low"
    """400 with Anthropic's words for an empty account."""
    PAYMENT_REQUIRED = "payment-required"
    RATE_LIMITED = "rate-limited"
    NO_BALANCE = "no-balance"
    """In the words of the site's shape; on Anthropic's ZhiPu's: 429 with code 1113, which is not a rate limit."""
    WINDOW_USED_UP = "window-used-up"
    """In the words of the site's shape; on Anthropic's ZhiPu's: 429 with code 1308 and the time of the reset."""
    PLAN_EXPIRED = "plan-expired"
    SERVER_ERROR = "server-error"
    BAD_GATEWAY = "bad-gateway"
    """502 and an HTML page."""
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    """529, or what the site's shape has for it."""
    HTML_PAGE = "html-page"
    """200 and an HTML page, as a captive portal gives."""
    ERROR_IN_OK = "error-in-ok"
    """200 and an error body: what `says` names, in the words of the site's shape."""
    EMPTY = "empty"
    """200 and nothing."""
    HANG = "hang"
    """The connection is taken, no byte ever comes."""
    HEADERS_ONLY = "headers-only"
    """200 and its headers, then silence."""
    STALL = "stall"
    """Half the answer, then silence."""
    CUT = "cut"
    """Half the answer, then the connection ends."""
    STREAM_ERROR = "stream-error"
    """Half the answer, or nothing of it (`at_once`), then an `error` event: what `says` names, in the words of the
    site's shape. A request that is not a stream is answered well."""
    DRIP = "drip"
    """Half the answer, then a sign of life each `every_s` seconds for ever."""


SAYABLE = frozenset(kind for kind in FaultKind if kind.value in {why.value for why in Why})
"""The kinds that are an error in words, which other kinds can wrap."""


@dataclass(frozen=True)
class Fault:
    """A kind, and which requests it hits.

    Args:
        after: So many chat requests are answered well first. Counts from the
            moment the fault is set, over all conversations of the site.
        times: Hits so many requests, then the site is well again; None for ever.
        turn: Spares requests for an earlier turn of their conversation; 2 hits
            an agent only after its first tool call. Does not count requests.
        retry_after_s: Sent as `Retry-After` with an answer that is an error.
        resets_at: The moment `window-used-up` names; None for five hours from the answer.
        every_s: Pace of `drip`.
        says: The error inside `error-in-ok` and `stream-error`, one of SAYABLE; None for an error of the
            provider's servers in the one, `overloaded` in the other.
        at_once: `stream-error` sends no part of the answer before it.

    Raises:
        ValueError: `says` is no error in words.
    """

    kind: FaultKind
    after: int = 0
    times: int | None = None
    turn: int = 1
    retry_after_s: int | None = None
    resets_at: datetime | None = None
    every_s: float = 20
    says: FaultKind | None = None
    at_once: bool = False

    def __post_init__(self) -> None:
        if self.says is not None and self.says not in SAYABLE:
            raise ValueError(f"{self.says} is no error in words")


_FAULT = TypeAdapter(Fault)
_SETTINGS = tuple(f.name for f in dataclass_fields(Fault) if f.name != "kind")


def parse_fault(text: str) -> Fault:
    """Read `kind[,name=value...]`, e.g. `rate-limited,times=2,retry_after_s=1`.

    Raises:
        BadInput: names what is wrong with it.
    """
    kind, *settings = text.split(",")
    if kind not in list(FaultKind):
        raise BadInput("--fault", text, f"unknown fault {kind!r}", suggest(kind, FaultKind))
    fields = dict(setting.partition("=")[::2] for setting in settings)
    for name in sorted(set(fields) - set(_SETTINGS)):
        raise BadInput("--fault", text, f"unknown setting {name!r}", suggest(name, _SETTINGS))
    try:
        return _FAULT.validate_python({**fields, "kind": kind})
    except ValidationError as error:
        first = error.errors()[0]
        setting = first["loc"][0] if first["loc"] else "says"
        mend = suggest(str(first["input"]), SAYABLE) if setting == "says" else "Give a number"
        raise BadInput("--fault", f"{text}: {setting}", first["msg"], mend) from error

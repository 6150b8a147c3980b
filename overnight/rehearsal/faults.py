"""Every way the emulated provider can fail, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from overnight.failures import BadInput
from overnight.lockfile import suggest
from overnight.rehearsal.codes import CODES
from overnight.rehearsal.dialects import Why


class FaultKind(StrEnum):
    """What goes wrong with a request whose key and header are right, whatever model it names."""

    KEY_REFUSED = "key-refused"
    """401, as after a key was revoked."""
    FORBIDDEN = "forbidden"
    """403: the key may not do this."""
    REGION_REFUSED = "region-refused"
    """403: this place is not served, in Anthropic's words; no other shape has any."""
    FIREWALL_PAGE = "firewall-page"
    """403 and an HTML page, as a firewall on the way gives."""
    MODEL_NOT_FOUND = "model-not-found"
    """404 for the model, in the words of the site's shape; in Anthropic's where that says 400."""
    UNKNOWN_MODEL = "unknown-model"
    """400 for the model, in the words of the site's shape; in ZhiPu's, code 1211, where that says 404."""
    TOO_LARGE = "too-large"
    """413."""
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
    CODED = "coded"
    """The vendor's own `code`, with the status, words and body that it has in the site's shape; where that does not
    know the code, in the first shape that does."""
    HTML_PAGE = "html-page"
    """200 and an HTML page, as a captive portal gives."""
    ERROR_IN_OK = "error-in-ok"
    """200 and an error body: what `says` names, in the words of the site's shape."""
    EMPTY = "empty"
    """200 and nothing."""
    TRUNCATED = "truncated"
    """200 and the first half of a JSON answer, complete as HTTP. So also for a request for a stream."""
    EMPTY_ANSWER = "empty-answer"
    """A turn of the model that is well made and holds no words and no call."""
    SLOW = "slow"
    """A good answer, `wait_s` late."""
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
    EMPTY_STREAM = "empty-stream"
    """200, a stream that ends well and holds no event. A request that is not a stream is answered well."""
    NO_STOP = "no-stop"
    """All of the answer but the events that end it; the connection ends well. A request that is not a stream is
    answered well."""
    DRIP = "drip"
    """A little each `every_s` seconds for ever: signs of life after half the answer, or words (`drips`)."""


SAYABLE = frozenset(
    kind for kind in FaultKind if kind.value in {why.value for why in Why} or kind is FaultKind.MODEL_NOT_FOUND
)
"""The kinds that are an error in words, which other kinds can wrap."""
_CODED = (FaultKind.CODED, FaultKind.ERROR_IN_OK, FaultKind.STREAM_ERROR)


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
        code: The vendor's code of `coded`, which must have one; inside `error-in-ok` and `stream-error` in
            place of `says`. One of CODES.
        drips: What `drip` sends: pings, which a client may hide from whoever reads it, or words of the model.
            A body that is not a stream drips white space.
        wait_s: Sends nothing for so long before the answer, whatever it is.
        lasting: Once it has hit a later turn, it hits every turn, as an empty account does.
        spares_probes: Spares our own probes, by the agent and direct: requests for one word, or without tools.

    Raises:
        ValueError: `says` is no error in words; `code` is missing, unknown or beside the point; `slow` has no `wait_s`.
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
    code: str | None = None
    drips: Literal["ping", "text"] = "ping"
    wait_s: float = 0
    lasting: bool = False
    spares_probes: bool = False

    def __post_init__(self) -> None:
        if self.says is not None and self.says not in SAYABLE:
            raise ValueError(f"{self.says} is no error in words")
        if self.kind is FaultKind.CODED and self.code is None:
            raise ValueError("coded needs a code")
        if self.code is not None and (self.says is not None or self.kind not in _CODED):
            raise ValueError("a code is for coded, error-in-ok and stream-error, without says")
        if self.code is not None and self.code not in CODES:
            raise ValueError(f"{self.code} is no code; known are {', '.join(sorted(CODES))}")
        if self.kind is FaultKind.SLOW and self.wait_s <= 0:
            raise ValueError("slow needs wait_s")


_FAULT = TypeAdapter(Fault)
_SETTINGS = tuple(f.name for f in dataclass_fields(Fault) if f.name != "kind")

FAULT_HELP = (
    f"make a site fail; kinds: {', '.join(FaultKind)}; settings: {', '.join(_SETTINGS)}; says is one of the kinds "
    f"{', '.join(sorted(SAYABLE))}; code is one of {', '.join(sorted(CODES))}"
)


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
        setting = str(first["loc"][0]) if first["loc"] else "as a whole"
        raise BadInput("--fault", f"{text}: {setting}", first["msg"], _mend(setting, fields)) from error


def _mend(setting: str, fields: Mapping[str, str]) -> str:
    """For one setting, or for a fault whose settings do not go together."""
    words = {"says": SAYABLE, "drips": ("ping", "text"), "code": CODES}
    wrong = setting if setting in words else next((name for name in ("code", "says") if name in fields), "")
    if wrong and fields[wrong] not in words[wrong]:
        return suggest(fields[wrong], words[wrong])
    return "Give a number" if setting in _SETTINGS else "See the settings of this kind"

"""Which layer is at fault, read from which of the answers disagree. A table, so that every row has a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from overnight.failures import FailureKind

_K = FailureKind


class Said(StrEnum):
    """An answer, as far as a layer can be told from it."""

    OK = "ok"
    AUTH = "auth"
    MODEL = "model"
    SWAPPED = "another-model"
    """A model answered, and not the one that was asked for."""
    URL = "url"
    """Something answered that is not the API, or a path it does not have."""
    ACCOUNT = "account"
    """Balance, plan or quota: the key is known."""
    BUSY = "busy"
    """Rate limit, overload, the provider's own fault."""
    REFUSED = "refused"
    """The request itself."""
    MUTE = "mute"
    NETWORK = "network"
    AGENT = "agent"
    """The agent's own command line, configuration or process: nobody was asked."""
    HOST = "host"
    SILENT = "silent"
    OTHER = "other"


class Layer(StrEnum):
    """Where a fault lies; the words say whose turn it is."""

    NONE = "none"
    HEADER = "header"
    KEY = "key"
    MODEL = "model"
    URL = "url"
    REQUEST = "request"
    ACCOUNT = "account"
    PROVIDER = "provider"
    HERE = "here"
    HOST_NETWORK = "host-network"
    NETWORK = "network"
    HOST = "host"
    WIRING = "wiring"
    AGENT = "agent"
    AGENT_NETWORK = "agent-network"
    ANOTHER_KEY = "another-key"
    ON_THE_WAY = "on-the-way"
    UNKNOWN = "unknown"


_SAID: Mapping[FailureKind | None, Said] = {
    None: Said.OK,
    _K.AUTH_REJECTED: Said.AUTH,
    _K.WRONG_HEADER: Said.AUTH,
    _K.MODEL_UNKNOWN: Said.MODEL,
    _K.MODEL_MISMATCH: Said.SWAPPED,
    _K.NOT_THE_API: Said.URL,
    _K.BILLING: Said.ACCOUNT,
    _K.QUOTA_WINDOW: Said.ACCOUNT,
    _K.PLAN_EXPIRED: Said.ACCOUNT,
    _K.RATE_LIMITED: Said.BUSY,
    _K.OVERLOADED: Said.BUSY,
    _K.PROVIDER_ERROR: Said.BUSY,
    _K.PROVIDER_MUTE: Said.MUTE,
    _K.REQUEST_REJECTED: Said.REFUSED,
    _K.CONTEXT_OVERFLOW: Said.REFUSED,
    _K.NETWORK: Said.NETWORK,
    _K.HARNESS_USAGE: Said.AGENT,
    _K.HARNESS_CRASHED: Said.AGENT,
    _K.HARNESS_MISSING: Said.AGENT,
    _K.SILENT_START: Said.SILENT,
    _K.WENT_QUIET: Said.SILENT,
    _K.TIME_LIMIT: Said.SILENT,
    _K.HOST_UNFIT: Said.HOST,
    _K.HOST_UNREACHABLE: Said.HOST,
}


def said(kind: FailureKind | None, status: int | None = None) -> Said:
    """What an answer comes to. A bare 404 may be a wrong model as well as a wrong path: callers try both."""
    found = _SAID.get(kind, Said.OTHER)
    return Said.URL if found is Said.MODEL and status == 404 else found


@dataclass(frozen=True)
class Answers:
    """What the same question brought three ways. `there` is None while the host was not asked directly.

    `other_header` is whether the same key was taken in the header that is not
    sent; `free` whether a call that costs nothing knew the key, None where
    there is none.
    """

    here: Said
    there: Said | None
    agent: Said
    other_header: bool = False
    free: bool | None = None

    @property
    def direct(self) -> Said:
        """The answer of a call without the agent, from the host where this machine has no way of its own."""
        return self.there if self.there is not None and self.here in (Said.NETWORK, Said.MUTE) else self.here


@dataclass(frozen=True)
class Row:
    """One line of the table. An empty set stands for any answer."""

    layer: Layer
    words: str
    here: frozenset[Said] = frozenset()
    there: frozenset[Said | None] = frozenset()
    agent: frozenset[Said] = frozenset()
    direct: frozenset[Said] = frozenset()
    other_header: bool | None = None
    free: frozenset[bool | None] = frozenset()

    def fits(self, answers: Answers) -> bool:
        return (
            (not self.here or answers.here in self.here)
            and (not self.there or answers.there in self.there)
            and (not self.agent or answers.agent in self.agent)
            and (not self.direct or answers.direct in self.direct)
            and (self.other_header is None or answers.other_header == self.other_header)
            and (not self.free or answers.free in self.free)
        )


def _row(
    layer: Layer,
    words: str,
    here: str = "",
    there: str = "",
    agent: str = "",
    direct: str = "",
    other_header: bool | None = None,
    free: frozenset[bool | None] = frozenset(),
) -> Row:
    """A row with its answers as words; `none` is a host that was not asked."""
    asked = frozenset(None if word == "none" else Said(word) for word in there.split())
    return Row(
        layer,
        words,
        frozenset(map(Said, here.split())),
        asked,
        frozenset(map(Said, agent.split())),
        frozenset(map(Said, direct.split())),
        other_header,
        free,
    )


# order matters: the first row that fits decides
TABLE: tuple[Row, ...] = (
    _row(Layer.NONE, "the agent got through on the host, and so did a direct call", here="ok", agent="ok"),
    _row(
        Layer.HERE,
        "the agent got through on the host; this machine has no way to the provider",
        here="network mute",
        agent="ok",
    ),
    _row(
        Layer.ANOTHER_KEY,
        "the agent got through where the same key by direct call did not: it may use another login",
        here="auth",
        agent="ok",
    ),
    _row(Layer.NONE, "the agent got through on the host", agent="ok"),
    _row(Layer.HOST, "the host itself is what failed", agent="host"),
    _row(Layer.HEADER, "the provider takes this key in the other header only", other_header=True),
    _row(Layer.ACCOUNT, "the provider knows the key and says the account cannot pay", here="account"),
    _row(Layer.ACCOUNT, "the provider knows the key and says the account cannot pay", there="account"),
    _row(
        Layer.HEADER,
        "a free call knew the key, a message with it was refused: not the key, but how it is sent",
        here="auth",
        agent="auth",
        free=frozenset({True}),
    ),
    _row(
        Layer.ON_THE_WAY,
        "the same call is taken from here and refused from the host: something on the way changes it",
        here="ok",
        there="auth url refused",
    ),
    _row(
        Layer.HOST_NETWORK,
        "the provider answers here, and not from the host",
        here="ok busy model auth refused",
        there="network mute",
    ),
    _row(
        Layer.KEY,
        "refused from here and from the host, by the agent and without it: the key itself",
        here="auth",
        there="auth none",
        agent="auth",
    ),
    _row(Layer.KEY, "refused by direct call: the key itself, whatever the agent makes of it", here="auth"),
    _row(Layer.URL, "no model API answers at this address, whoever asks", here="url"),
    _row(Layer.MODEL, "the provider knows the key and not the model", here="model"),
    _row(Layer.MODEL, "the provider answers as another model than it was asked for", here="another-model"),
    _row(Layer.PROVIDER, "the provider refuses for now, whoever asks", here="busy"),
    _row(
        Layer.PROVIDER, "the provider takes requests and does not answer, whoever asks", here="mute", there="mute none"
    ),
    _row(
        Layer.NETWORK,
        "no connection from here and none from the host: the address, DNS, TLS or the provider",
        here="network",
        there="network none",
    ),
    _row(
        Layer.WIRING,
        "a direct call is taken, the agent is refused: it sends another key, or in another header",
        direct="ok",
        agent="auth",
    ),
    _row(
        Layer.WIRING,
        "a direct call is taken, the agent asks at another address, or for another model",
        direct="ok",
        agent="url model another-model refused",
    ),
    _row(
        Layer.AGENT_NETWORK,
        "a direct call from the host is taken, the agent finds no way: its own proxy, DNS or certificates",
        direct="ok",
        agent="network mute",
    ),
    _row(
        Layer.AGENT,
        "a direct call is taken, the agent stops before it asks: its flags, settings or version",
        direct="ok",
        agent="agent silent other",
    ),
    _row(
        Layer.PROVIDER,
        "a direct call is taken, the agent met a refusal that time mends",
        direct="ok",
        agent="busy account",
    ),
    _row(Layer.AGENT, "the agent stops before it asks", agent="agent silent"),
    _row(Layer.REQUEST, "the provider refuses the request, whoever asks: its own words say why", here="refused"),
)


_OF_FACTOR: Mapping[str, tuple[Layer, str]] = {
    "header": (Layer.HEADER, "the provider takes this key in another header"),
    "region or plan": (Layer.KEY, "the key belongs to another region or plan of the same vendor"),
    "base URL": (Layer.URL, "the same call is taken at another address"),
    "model": (Layer.MODEL, "the same call is taken for another model"),
    "variable": (Layer.WIRING, "a direct call is taken, the agent gets through once a variable is another"),
    **dict.fromkeys(
        ("flags", "variables", "waits", "start"),
        (Layer.AGENT, "a direct call is taken, the agent gets through once it is started in another way"),
    ),
    "version": (Layer.AGENT, "a direct call is taken, another copy of the agent gets through"),
}


def layer_of(factor: str) -> tuple[Layer, str] | None:
    """Where the fault lies when changing this one thing, and nothing else, was seen to mend it; None for several."""
    return _OF_FACTOR.get(factor)


def layer(answers: Answers) -> tuple[Layer, str]:
    """The layer at fault and why; UNKNOWN, with the answers in words, where no row fits."""
    for row in TABLE:
        if row.fits(answers):
            return row.layer, row.words
    there = f", from the host {answers.there}" if answers.there else ""
    return Layer.UNKNOWN, f"direct from here {answers.here}{there}, by the agent {answers.agent}"

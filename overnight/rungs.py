"""The rungs on which a silent run can stand, and what each one means."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from overnight.failures import FailureKind

_K = FailureKind


class Rung(StrEnum):
    """Where a silent run stands. Values are shown and stored."""

    NOT_SEEN = "not-seen"
    FROZEN = "frozen"
    STARVED = "starved"
    DISK_FULL = "disk-full"
    DISK_WAIT = "disk-wait"
    START_CHILD = "start-child"
    START_BUSY = "start-busy"
    START_IDLE = "start-idle"
    NAME_LOOKUP = "name-lookup"
    CONNECTING = "connecting"
    TLS = "tls-handshake"
    LINK_CUT = "link-cut"
    NO_ANSWER = "no-answer"
    ANSWER_STOPPED = "answer-stopped"
    DRIPPING = "dripping"
    ASKS_AGAIN = "asks-again"
    PEER_CLOSED = "peer-closed"
    TOOL_BUSY = "tool-busy"
    TOOL_STDIN = "tool-waits-for-input"
    TOOL_LOCK = "tool-waits-for-a-lock"
    TOOL_SLEEP = "tool-sleeps"
    TOOL_IDLE = "tool-idle"
    IDLE = "idle"
    BUSY = "busy"


class RungRule(NamedTuple):
    """What a rung means. `kind` is the failure it proves once its clock ran out, None when it proves none.

    `holds` says that the run is at work and must not be ended for silence. With
    `vague` the kind gives way to what a fresh probe of the route is refused for.
    """

    kind: FailureKind | None
    meaning: str
    holds: bool = False
    vague: bool = False


RULES: dict[Rung, RungRule] = {
    Rung.NOT_SEEN: RungRule(None, "the host could not be asked what the run is doing"),
    Rung.FROZEN: RungRule(None, "its processes are stopped by a signal"),
    Rung.STARVED: RungRule(None, "it wants a processor and gets none", holds=True),
    Rung.DISK_FULL: RungRule(_K.DISK_FULL, "there is no room left on its disk"),
    Rung.DISK_WAIT: RungRule(None, "it waits for a disk"),
    Rung.START_CHILD: RungRule(None, "it waits for a process it started before its first event"),
    Rung.START_BUSY: RungRule(None, "it is still starting, and busy", holds=True),
    Rung.START_IDLE: RungRule(None, "it waits before its first event, for nothing that can be seen"),
    Rung.NAME_LOOKUP: RungRule(_K.NETWORK, "it waits for a name server"),
    Rung.CONNECTING: RungRule(_K.NETWORK, "it knocks at the provider's address and nothing answers"),
    Rung.TLS: RungRule(_K.NETWORK, "the connection stands and the peer does not answer the TLS greeting"),
    Rung.LINK_CUT: RungRule(_K.NETWORK, "what it sends to the provider is not acknowledged any more"),
    Rung.NO_ANSWER: RungRule(_K.PROVIDER_MUTE, "the provider took its request and has not answered"),
    Rung.ANSWER_STOPPED: RungRule(
        _K.PROVIDER_MUTE, "the provider began to answer and stopped, the connection is open", vague=True
    ),
    Rung.DRIPPING: RungRule(_K.PROVIDER_MUTE, "bytes drip from the provider and make no answer"),
    Rung.ASKS_AGAIN: RungRule(None, "requests are answered and no event follows: the agent tries again by itself"),
    Rung.PEER_CLOSED: RungRule(None, "the provider closed the connection and the agent did not notice"),
    Rung.TOOL_BUSY: RungRule(None, "a command of the agent is at work", holds=True),
    Rung.TOOL_STDIN: RungRule(_K.TOOL_STUCK, "a command of the agent waits for input that nobody gives"),
    Rung.TOOL_LOCK: RungRule(_K.TOOL_STUCK, "a command of the agent waits for a lock"),
    Rung.TOOL_SLEEP: RungRule(_K.TOOL_STUCK, "a command of the agent sleeps"),
    Rung.TOOL_IDLE: RungRule(_K.TOOL_STUCK, "a command of the agent does nothing"),
    Rung.IDLE: RungRule(None, "no request is under way and no command runs: the agent waits by itself"),
    Rung.BUSY: RungRule(None, "the agent itself computes and says nothing"),
}

PROVIDER_WAITS = frozenset({Rung.NO_ANSWER, Rung.ANSWER_STOPPED, Rung.DRIPPING})
"""The provider has the request: an agent that says nothing before the first answer has started well."""
TOOLS = frozenset({Rung.TOOL_BUSY, Rung.TOOL_STDIN, Rung.TOOL_LOCK, Rung.TOOL_SLEEP, Rung.TOOL_IDLE})

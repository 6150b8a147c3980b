"""What a case of the matrix is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from overnight.failures import FailureKind
from overnight.rehearsal.faults import Fault
from overnight.rehearsal.model import Shell, Step

COMMITTED = (Shell("echo hello > greeting.txt && git add -A && git commit -qm 'Add a greeting'"),)


class Way(StrEnum):
    """How the agent is sent to its provider."""

    PLAIN = "plain"
    WRONG_PATH = "wrong-path"
    """The base URL ends in a `/v1` too many."""
    REFUSED = "refused"
    UNRESOLVED = "unresolved"
    BLACKHOLE = "blackhole"
    """The connection is never answered at all."""
    SELF_SIGNED = "self-signed"
    EXPIRED = "expired"
    TLS_TO_PLAIN = "tls-to-plain"
    DEAD_PROXY = "dead-proxy"


class Place(StrEnum):
    """What the host is like."""

    PLAIN = "plain"
    NO_GIT = "no-git"
    """The agent's own PATH leads to a git that is not there; ours does not."""
    SMALL_DISK = "small-disk"
    READ_ONLY_HOME = "read-only-home"
    SMALL_MEMORY = "small-memory"


NEEDS_ROOT = frozenset({Place.SMALL_DISK, Place.READ_ONLY_HOME, Place.SMALL_MEMORY})
"""A mount, or a memory limit of its own."""


@dataclass(frozen=True)
class Change:
    """What is different in the lock's entry of one agent, and in its HOME.

    Args:
        flags: Added.
        without: Flags that begin so are left out.
        swaps: Texts replaced in the values of its variables.
        files: Below its HOME, beside or instead of those it gets.
    """

    flags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    swaps: tuple[tuple[str, str], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong, the same for every agent.

    Args:
        name: Part of file names and URLs.
        says: The fault in a person's words.
        truth: The kinds that name its cause; empty when the run must succeed.
        spared: An agent may rightly not meet the fault, or get over it: success is right as well.
        shown: What the evidence must hold, too, as a pattern; for a silence this is the rung.
        silent: Nothing on the wire or in the agent's words tells of it: somebody has to look.
        fault: What its provider does.
        site: Settings of its provider beside the name and the key.
        steps: What the model does; `{busy_s}` in a command is longer than silence is allowed.
        way: How the agent is sent to the provider.
        place: What the host is like.
        killed: The agent's process is killed from outside while it waits.
        limits: Instead of the matrix's own.
        own_waits: The lock's own waits and the usual limits hold, not the matrix's short ones.
        changes: By agent.
        only: The agents it makes sense for; empty for all.
        instead: Another truth for some agents, which the same fault leads somewhere else.
    """

    name: str
    says: str
    truth: frozenset[FailureKind] = frozenset()
    spared: bool = False
    shown: str = ""
    silent: bool = False
    fault: Fault | None = None
    site: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = COMMITTED
    way: Way = Way.PLAIN
    place: Place = Place.PLAIN
    killed: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    own_waits: bool = False
    changes: Mapping[str, Change] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    instead: Mapping[str, frozenset[FailureKind]] = field(default_factory=dict)

    def truth_for(self, harness: str) -> frozenset[FailureKind]:
        return self.instead.get(harness, self.truth)

    @property
    def on_the_wire(self) -> bool:
        """Whether the provider's answer, or the lack of a connection, is what is wrong."""
        return self.fault is not None or self.way is not Way.PLAIN or bool(self.site)


def any_of(*kinds: FailureKind) -> frozenset[FailureKind]:
    return frozenset(kinds)

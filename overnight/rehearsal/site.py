"""One emulated provider: what it accepts, and the record of a request to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from overnight.lockfile import Header
from overnight.rehearsal.dialects import Shape
from overnight.rehearsal.faults import Fault

MODELS = ("rehearsal-large", "rehearsal-small")


@dataclass(frozen=True)
class Site:
    """A provider as its clients can know it.

    It sees headers, never the variables that a client read them from. What it
    refuses it refuses in the words of its `shape`, in this order: place, key,
    client, body; then comes the fault, then model, plan, balance.

    Args:
        name: Part of its URL.
        key: A request is let in by it, in any header of `accepts`.
        models: What it serves. DeepSeek's shape also takes any name that begins
            with `claude`, and answers as the first model for an opus, else as the last.
        answers_as: The model its answers name; None for the one that answers.
        clients: What the User-Agent of a chat must begin with; empty for any.
        balance: False answers every chat as an empty account is answered.
        used_percent: What a free call tells of the plan's shortest window, where the shape has one; no chat is
            refused for it.
        keys_elsewhere: Keys that are right in another region of the vendor, not here.
        outside_plan: Models that exist, and that the key's plan does not hold.
        needs_key: False lets everybody in, with any key or none.
        refuses_both: A request with a key in both headers is refused, as by one that reads the wrong one first.
        serves_here: False refuses every request as from a place that is not served.
        wait_s: So long it thinks before each answer of the model.
    """

    name: str
    key: str = field(repr=False)
    accepts: frozenset[Header] = frozenset({Header.BEARER})
    models: tuple[str, ...] = MODELS
    shape: Shape = "zhipu"
    fault: Fault | None = None
    answers_as: str | None = None
    clients: tuple[str, ...] = ()
    balance: bool = True
    used_percent: int = 1
    keys_elsewhere: tuple[str, ...] = field(default=(), repr=False)
    outside_plan: tuple[str, ...] = ()
    needs_key: bool = True
    refuses_both: bool = False
    serves_here: bool = True
    wait_s: float = 0

    def served(self, model: str) -> str | None:
        """The model that answers for this name, None when the name is not known."""
        if model in (*self.models, *self.outside_plan):
            return model
        if self.shape == "deepseek" and model.startswith("claude"):
            return self.models[0] if "opus" in model else self.models[-1]
        return None


@dataclass(frozen=True)
class Call:
    """One request, kept without its key.

    `path` is below the site. `keys` maps each credential header that came to
    the fingerprint of its key. `status` is what was answered, None when no head
    is ever sent. `turn` is the turn of the model that was asked for, `faulty`
    whether the site's fault hit. The fields from `model` on are a chat's.
    """

    at: datetime
    site: str
    method: str
    path: str
    keys: Mapping[Header, str]
    status: int | None
    model: str = ""
    tools: tuple[str, ...] = ()
    stream: bool = False
    is_probe: bool = False
    turn: int = 0
    faulty: bool = False


def fingerprint(key: str) -> str:
    """The first 8 hex digits of the key's SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]

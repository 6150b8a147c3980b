"""Named ways to go wrong with an agent and a provider, as data: what gives one away, why it matters, the mend."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from overnight.facts import Entry, Fact, Header

TrapId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Rule(StrEnum):
    """Conditions that need the rest of the lock to be decided, and so are code of whoever looks for the trap."""

    KEY_VARIABLE = "key-variable"
    """The key of a provider is in another variable than the one its wiring names."""
    OTHER_URL = "other-url"
    """A base URL is one of a provider's `other_urls`, which these harnesses cannot use."""
    MODEL_SPELLING = "model-spelling"
    """A model id is one of the lock's but for upper and lower case."""
    MODEL_UNKNOWN = "model-unknown"
    """A model id is not one that the lock knows of the provider."""
    WAITS = "waits"
    """request timeout x (retries + 1) + backoff is not below the limit that ends a silent run."""
    RANGE = "range"
    """A number is outside what the harness's `ranges` say works."""
    VERSION = "version"
    """The agent's version is known bad, or hangs with what it is given."""
    SHADOW = "shadow"
    """A file of the harness's `shadows` is there and carries a name that the run sets or leaves out."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


class Match(Entry):
    """What gives a trap away, in words and, as far as it can be said, in fields.

    Every field that is stated must hold; within a field one of its entries is
    enough, except in `together`. A trap that states no field but `words` is one
    that no program can see. "Set" means set to a value that is not empty.
    """

    words: str = Field(description="The condition as a person would say it", min_length=1)
    rule: Rule | None = Field(None, description="A condition that needs the rest of the lock")
    harnesses: tuple[str, ...] = Field((), description="Only with these; empty for any")
    providers: tuple[str, ...] = Field((), description="Only with these; empty for any")
    not_providers: tuple[str, ...] = Field((), description="Not with these")
    variables: tuple[str, ...] = Field((), description="One of them is set")
    together: tuple[str, ...] = Field((), description="All of them are set")
    value: Annotated[str, AfterValidator(_pattern)] | None = Field(
        None, description="Regular expression, searched in the value of one of `variables`"
    )
    url_suffixes: tuple[str, ...] = Field((), description="The value of one of `variables` ends so, a last / aside")
    header: Header | None = Field(None, description="The key travels in this header")
    flags: tuple[str, ...] = Field((), description="One of them is on the agent's command line")
    missing_flags: tuple[str, ...] = Field((), description="None of them is on it, in no spelling")


class Trap(Fact):
    """One named trap. `breaks` is the place in the lock of the fact it breaks, `*` standing for any name."""

    match: Match
    why: str = Field(description="What happens to a run", min_length=1)
    mend: str = Field(description="What to do instead", min_length=1)
    breaks: str = Field(description="Path in the lock, e.g. providers.*.headers", min_length=1)
    weight: Literal["error", "warning", "note"] = Field(
        "error", description="error: it breaks runs. warning: it may. note: it misleads"
    )

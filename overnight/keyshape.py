"""What a stored key must look like, whoever stores it. Nothing here ever puts a key, or a part of one, into words."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from overnight.lockfile import KeyShape

_QUOTES = "\"'`"
REMIND_DAYS = 7

KEY_VARIABLES = "OVERNIGHT_KEY_"
"""What every environment variable that may hold a provider's key begins with."""


def variable(provider: str) -> str:
    """The environment variable that may hold a provider's key where there is no block, as in CI."""
    return f"{KEY_VARIABLES}{provider.upper().replace('-', '_')}"


class Flaw(NamedTuple):
    """Why no provider can accept this text as a key, and what to store instead."""

    problem: str
    mend: str


def flaw(key: str) -> Flaw | None:
    """The first thing wrong with a key, or None.

    Harnesses send quotes and a `Bearer ` prefix as they stand, which ends in a
    401 that looks like a wrong key; so they are refused where they are stored.
    """
    if not key.strip():
        return Flaw("the key is empty", "Store the key as the provider shows it")
    if key.strip(_QUOTES).lstrip().lower().startswith("bearer "):
        return Flaw("the key starts with 'Bearer '", "Store the key alone; the header is made from the lock")
    if any(quote in key for quote in _QUOTES):
        return Flaw("the key holds a quote character", "Store the key without quotes")
    if key != key.strip():
        return Flaw("there is whitespace before or after the key", "Store the key without the space or line end")
    if any(letter.isspace() for letter in key):
        return Flaw("there is whitespace inside the key", "Store one key, on one line")
    if not key.isascii():
        return Flaw("the key holds a character that is not ASCII", "Copy the key again, from the provider's own page")
    if not key.isprintable():
        return Flaw("the key holds a control character", "Copy the key again, from the provider's own page")
    return None


def doubt(key: str, shape: KeyShape | None) -> str | None:
    """A warning for a key unlike all known keys of its provider, or None. Never a reason to refuse it."""
    if shape is None or not shape.prefixes or key.startswith(shape.prefixes):
        return None
    note = f" ({shape.note})" if shape.note else ""
    return f"known keys of this provider start with {' or '.join(shape.prefixes)}{note}"


def expired(provider: str, expires_on: date | None, today: date) -> Flaw | None:
    """Why a key of this age is not used any more, or None. It still counts on its last day."""
    if expires_on is None or expires_on >= today:
        return None
    mend = f"Replace the key: overnight credentials rotate {provider}; or save it with the date on which it ends"
    return Flaw(f"the key expired on {expires_on}", mend)


def reminder(provider: str, expires_on: date | None, today: date) -> str | None:
    """A sentence from a week before a key ends, and ever after; None before that, and for a key without an end."""
    if expires_on is None or (days := (expires_on - today).days) > REMIND_DAYS:
        return None
    if days < 0:
        return f"the key of {provider} expired on {expires_on}"
    when = {0: "today", 1: "tomorrow"}.get(days, f"in {days} days")
    return f"the key of {provider} expires on {expires_on}, {when}"

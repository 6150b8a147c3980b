"""Whose value it is, told by fingerprints alone; and what a host is asked to look out for."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from overnight.doctor.onhost import Interest
from overnight.doctor.places import GENERIC
from overnight.lockfile import ProviderLock
from overnight.plan import RunPlan
from overnight.traps import Trap

Prints = Sequence[str] | None


class Values:
    """The values we know, under a salt of one look's own.

    Args:
        keys: Provider -> key. Only fingerprints of keys are kept.
        wanted: Variable -> every value that a run of ours would give it; nothing secret.
        harnesses: Those the host is looked at for; they decide which traps count.
    """

    def __init__(
        self,
        lock: ProviderLock,
        keys: Mapping[str, str],
        wanted: Mapping[str, frozenset[str]],
        harnesses: Iterable[str],
    ) -> None:
        self.readers = readers(lock)
        """Variable -> the harnesses that heed it, as far as the lock knows; none for any."""
        self.order: dict[str, Any] = {
            "salt": secrets.token_hex(16),
            "names": [*sorted(self.readers), *GENERIC],
            "known": [],
            "traps": [_sent(name, trap) for name, trap in lock.known_bad.items() if _visible(trap, harnesses, keys)],
        }
        known = Interest(self.order)
        self._owners: dict[str, list[str]] = {}
        for provider, key in keys.items():
            self._owners.setdefault(known.fingerprint(key), []).append(provider)
        self._wanted = {name: {known.fingerprint(value) for value in values} for name, values in wanted.items()}
        self.order["known"] = [print_ for print_ in self._owners if print_]

    def interest(self) -> Interest:
        """What a host looks with, for files that are read here."""
        return Interest(self.order)

    def owners(self, prints: Prints) -> list[str]:
        """The providers whose key it is, whatever is wrapped around it."""
        return (
            [] if prints is None else sorted({p for print_ in prints if print_ for p in self._owners.get(print_, ())})
        )

    def same_as(self, name: str, prints: Prints) -> str:
        """As `Shadow.same_as` wants it."""
        if prints is None:
            return ""
        if not prints[0]:
            return "an empty value"
        if owners := self.owners(prints):
            wrapped = "" if prints[0] in self._owners else ", with quotes, spaces or Bearer around it"
            return f"the key of {' and '.join(owners)}{wrapped}"
        return "the lock's value" if prints[0] in self._wanted.get(name, ()) else ""


def wanted(plans: Iterable[RunPlan]) -> dict[str, frozenset[str]]:
    """What runs would give each variable, keys left out."""
    found: dict[str, frozenset[str]] = {}
    for plan in plans:
        for name, value in plan.env.values().items():
            found[name] = found.get(name, frozenset()) | {value}
    return found


def readers(lock: ProviderLock) -> dict[str, tuple[str, ...]]:
    """Every variable that the lock says something of, and the harnesses it is said of; none for any."""
    found: dict[str, set[str]] = {}

    def add(harnesses: Iterable[str], variables: Iterable[str]) -> None:
        for variable in variables:
            found.setdefault(variable, set()).update(harnesses)

    for provider in lock.providers.values():
        for harness, wiring in provider.harnesses.items():
            add([harness], [*wiring.set, *wiring.empty, *wiring.absent])
    for way in lock.environment_only.values():
        for harness, cloud in way.harnesses.items():
            add([harness], [*cloud.set, *cloud.yours])
    for harness, entry in lock.harnesses.items():
        noted = [name for name in entry.notes if not name.startswith("-")]
        add([harness], [*entry.env, *entry.absent, *entry.ranges, *noted])
    for trap in lock.known_bad.values():
        add(trap.match.harnesses, [*trap.match.variables, *trap.match.together])
    return {name: tuple(sorted(harnesses)) for name, harnesses in found.items()}


def _visible(trap: Trap, harnesses: Iterable[str], keys: Mapping[str, str]) -> bool:
    """Whether an environment alone gives it away: no rule of the lock, no header, no command line is needed."""
    match = trap.match
    if match.rule or match.header or match.flags or match.missing_flags or not (match.variables or match.together):
        return False
    meant = not match.harnesses or not set(match.harnesses).isdisjoint(harnesses)
    theirs = not match.providers or not set(match.providers).isdisjoint(keys)
    return meant and theirs and (not match.not_providers or not set(keys) <= set(match.not_providers))


def _sent(name: str, trap: Trap) -> dict[str, Any]:
    match = trap.match
    return {
        "id": name,
        "variables": list(match.variables),
        "together": list(match.together),
        "value": match.value,
        "endings": list(match.url_suffixes),
    }

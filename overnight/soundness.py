"""Facts of one lock that cannot all be true, or that no run could use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from overnight.harnessentry import HarnessEntry
from overnight.harnesses import HARNESSES
from overnight.lockfile import Provider, ProviderLock, Wiring, suggest
from overnight.spec import Limits

_PLACEHOLDER = re.compile(r"{([\w -]*)}")  # other braces are the value's own, as those of JSON are
_OF_A_WIRING = frozenset({"base_url", "model", "key"})
_OF_A_HARNESS = frozenset({"base_url", "model", "request_timeout_ms", "request_timeout_s", "retries", "cwd"})


@dataclass(frozen=True)
class Flaw:
    """One contradiction. `place` is its path in the lock."""

    place: str
    problem: str
    mend: str


def flaws(lock: ProviderLock) -> list[Flaw]:
    """Every contradiction that can be seen without asking anybody; empty for a lock that is sound."""
    found = [*_of_traps(lock)]
    for name, provider in lock.providers.items():
        for harness, wiring in provider.harnesses.items():
            place = f"providers.{name}.harnesses.{harness}"
            if harness not in lock.harnesses or harness not in HARNESSES:
                known = set(lock.harnesses) & set(HARNESSES)
                found.append(Flaw(place, f"unknown harness {harness!r}", suggest(harness, known)))
                continue
            found += _of_wiring(place, provider, harness, wiring, lock.harnesses[harness])
    for harness, entry in lock.harnesses.items():
        found += _of_harness(f"harnesses.{harness}", entry)
    return found


def _of_wiring(place: str, provider: Provider, harness: str, wiring: Wiring, entry: HarnessEntry) -> Iterator[Flaw]:
    keys, sends = wiring.key_variables, HARNESSES[harness].HEADER_OF
    if len(keys) != 1:
        yield Flaw(f"{place}.set", "needs exactly one variable with {key}", "Name one variable")
    for variable in keys:
        if variable not in sends:
            yield Flaw(f"{place}.set.{variable}", f"{harness} reads no key from it", suggest(variable, sends))
            continue
        header = sends[variable]
        accepts = provider.headers.get(header)
        if accepts is None or accepts.accepted == "no":
            taken = [each.wire for each, answer in provider.headers.items() if answer.accepted == "yes"]
            problem = f"sends {header.wire}, which the provider {'refuses' if accepts else 'is not known to take'}"
            mend = f"The provider takes {' or '.join(taken) or 'none that is known'}"
            yield Flaw(f"{place}.set.{variable}", problem, mend)
        elif accepts.accepted == "unverified" and wiring.provenance.confidence != "unverified":
            problem = f"is called {wiring.provenance.confidence}, but that {header.wire} is taken is unverified"
            yield Flaw(f"{place}.provenance.confidence", problem, "Call it unverified")
    for other in sends:
        if other not in keys and other not in wiring.empty and other not in {**wiring.absent, **entry.absent}:
            yield Flaw(
                place, f"{other} is neither empty nor absent, so two keys may be sent", f"Put it under {place}.empty"
            )
    names = Counter([*wiring.set, *wiring.empty, *wiring.absent, *entry.env, *entry.absent])
    for name in (name for name, count in names.items() if count > 1):
        yield Flaw(place, f"{name} is bound twice", "State each variable once")
    yield from _placeholders(f"{place}.set", wiring.set, _OF_A_WIRING)
    yield from _placeholders(place, {"flags": " ".join(wiring.flags)}, _OF_A_HARNESS)
    if _asked((*entry.env.values(), *entry.flags, *wiring.flags)) and not (wiring.timing or entry.timing):
        problem = "the harness's env or flags have waits to fill in, and nothing says how long"
        yield Flaw(place, problem, "State timing")


def _of_harness(place: str, entry: HarnessEntry) -> Iterator[Flaw]:
    yield from _placeholders(f"{place}.env", {**entry.env, **entry.probe.env}, _OF_A_HARNESS)
    yield from _placeholders(place, {"flags": " ".join(entry.flags)}, _OF_A_HARNESS)
    usual = Limits().quiet_s
    if entry.timing and usual and entry.timing.longest_s >= usual:
        problem = f"may wait {entry.timing.longest_s:g} s in silence; a run is ended after {usual:g} s"
        yield Flaw(f"{place}.timing", problem, "Lower the timeout or the retries")
    if entry.probe.timing.longest_s >= entry.probe.total_s:
        yield Flaw(f"{place}.probe", "its waits are not below its total_s", "Lower them")
    for name, span in entry.ranges.items():
        if span.least is not None and span.most is not None and span.least > span.most:
            yield Flaw(f"{place}.ranges.{name}", "least is above most", "Swap them")


def _of_traps(lock: ProviderLock) -> Iterator[Flaw]:
    data = lock.model_dump(mode="json", by_alias=True)
    known = {*lock.providers, *lock.environment_only}
    for name, trap in lock.known_bad.items():
        place, match = f"known_bad.{name}", trap.match
        if not _exists(data, trap.breaks.split(".")):
            yield Flaw(f"{place}.breaks", f"the lock has no {trap.breaks}", "Name a place of the lock")
        for provider in (*match.providers, *match.not_providers):
            if provider not in known:
                yield Flaw(f"{place}.match", f"unknown provider {provider!r}", suggest(provider, known))
        for harness in match.harnesses:
            if harness not in lock.harnesses:
                yield Flaw(f"{place}.match", f"unknown harness {harness!r}", suggest(harness, lock.harnesses))
        if (match.value or match.url_suffixes) and not match.variables:
            yield Flaw(f"{place}.match", "looks at a value of no variable", "State variables")


def _exists(data: Any, parts: list[str]) -> bool:
    """Whether a dotted path leads somewhere; `*` stands for any one key. A key may hold dots of its own."""
    if not parts:
        return True
    if not isinstance(data, dict):
        return False
    if parts[0] == "*":
        return any(_exists(below, parts[1:]) for below in data.values())
    heads = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(head in data and _exists(data[head], parts[head.count(".") + 1 :]) for head in heads)


def _placeholders(place: str, values: dict[str, str], known: frozenset[str]) -> Iterator[Flaw]:
    for name, value in values.items():
        for each in _PLACEHOLDER.findall(value):
            if each not in known:
                yield Flaw(f"{place}.{name}", f"unknown placeholder {{{each}}}", suggest(each, known))


def _asked(values: Iterable[str]) -> bool:
    waits = _OF_A_HARNESS - _OF_A_WIRING
    return any(each in waits for value in values for each in _PLACEHOLDER.findall(value))

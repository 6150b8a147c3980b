"""What would reach an agent without anybody having given it, from what a host or a repository said; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from overnight.doctor.places import CERTIFICATES, INJECTS, Place
from overnight.doctor.records import Finding, Shadow, Weight
from overnight.doctor.values import Values
from overnight.harnessentry import HarnessEntry
from overnight.harnesses import HARNESSES
from overnight.lockfile import ProviderLock

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

SSHD = "a command over ssh"
FROM_NOTHING = "a run's environment is built from nothing, and no shell stands between"
OWN_HOME = "a run has a HOME of its own"
NOT_OURS = "no agent of the lock reads it"
KEY_GIVEN = "a run is always given a key, which wins"


def with_lock(places: Iterable[Place], lock: ProviderLock, *prefixes: str) -> list[Place]:
    """The places, as far as the lock knows better what wins there, and those that only the lock names."""
    found = {place.path: place for place in places}
    for harness, entry in lock.harnesses.items():
        for path, shadow in entry.shadows.items():
            if path in found:
                whom = tuple(dict.fromkeys([*found[path].harnesses, harness]))
                found[path] = replace(found[path], harnesses=whom, wins=shadow.wins)
            elif path.startswith(prefixes):
                found[path] = Place(path, "is-there", (), (harness,), shadow.wins)
    return list(found.values())


def kept_out(place: Place, lock: ProviderLock) -> str:
    """What keeps it from our runs; empty when nothing is known to."""
    if place.wins == "shell-only":
        return FROM_NOTHING
    if place.path.startswith("~/"):
        return OWN_HOME
    ours = [name for name in place.harnesses if name in lock.harnesses]
    if place.harnesses and not ours:
        return NOT_OURS
    reasons = [_stopped(place.path, lock.harnesses[name]) for name in ours]
    return "; ".join(dict.fromkeys(reasons)) if all(reasons) else ""


def _stopped(path: str, entry: HarnessEntry) -> str:
    """Which of the ways that the lock knows to stop it is in force; they are parted by `;`."""
    shadow = entry.shadows.get(path)
    if shadow is None:
        return ""
    for way in re.split(r"\s*;\s*(?:or\s+)?", shadow.stopped_by):
        name, _, value = way.partition("=")
        if way in entry.flags:
            return f"{way} is on the command line"
        if value and entry.env.get(name) == value:
            return f"{way} is set"
    return KEY_GIVEN if shadow.wins == "when-missing" else ""


def of_environments(rows: Rows, values: Values) -> list[Shadow]:
    """One for each variable and value, with every shell that has it."""
    found: dict[tuple[str, str], list[str]] = {}
    for row, said in rows.items():
        for name, prints in said["names"].items():
            found.setdefault((name, prints[0]), []).append(_row(row))
    prints = {(name, each[0]): each for said in rows.values() for name, each in said["names"].items()}
    return [
        Shadow(
            source=", ".join(sources),
            name=key[0],
            harnesses=values.readers.get(key[0], ()),
            same_as=values.same_as(key[0], prints[key]),
            wins="shell-only",
            ignored=FROM_NOTHING,
        )
        for key, sources in found.items()
    ]


def of_file(said: Row, place: Place, lock: ProviderLock, values: Values) -> list[Shadow]:
    """One for each thing that a file, or a folder, brings."""
    brings = said["names"]
    if place.kind == "is-there" and not brings:
        shadows = [lock.harnesses[name].shadows.get(place.path) for name in place.harnesses if name in lock.harnesses]
        brings = [[each, None, None] for shadow in shadows if shadow for each in shadow.carries] or [["it", None, None]]
    return [
        Shadow(
            source=said["path"],
            line=line,
            name=name,
            harnesses=place.harnesses or values.readers.get(name, ()),
            same_as=values.same_as(name, prints),
            wins=place.wins,
            ignored=kept_out(place, lock),
        )
        for name, line, prints in brings
    ]


def of_keyrings(keyrings: Sequence[str], lock: ProviderLock) -> list[Shadow]:
    """What lies in a keyring nobody can say without unlocking it."""
    return [
        Shadow(
            source=f"keyring ({', '.join(keyrings)})",
            name=name,
            harnesses=(harness,),
            wins=entry.shadows["keyring"].wins,
            ignored=_stopped("keyring", entry),
        )
        for harness, entry in lock.harnesses.items()
        if keyrings and "keyring" in entry.shadows
        for name in entry.shadows["keyring"].carries
    ]


def file_findings(
    said: Row, place: Place, shadows: Sequence[Shadow], lock: ProviderLock, values: Values
) -> Iterator[Finding]:
    """What is wrong with one file. It is a note where nothing of it reaches a run of ours."""
    ignored = kept_out(place, lock)
    weight: Weight = "note" if ignored else "warning" if place.wins == "unverified" else place.weight
    if said["problem"].startswith("not valid"):
        hurt: Weight = "note" if ignored else "warning"
        yield Finding(id="file-broken", weight=hurt, seen=f"it is {said['problem']}", where=said["path"])
    if place.kind != "shell" and shadows:
        brings = _brings(shadows)
        seen = f"it brings {brings}; {ignored or 'nothing keeps that from a run'}"
        yield Finding(id=place.finding, weight=weight, seen=seen, where=said["path"], mend=_mend(lock, place.finding))
    for trap, name in said["traps"]:
        if place.kind != "shell":
            yield _trap(lock, trap, weight, name, said["path"])
    keys = {name for harness in HARNESSES.values() for name in harness.HEADER_OF}
    told = [(name, prints) for name, _, prints in said["names"] if prints and prints[0]]
    held = [name for name, prints in told if name in keys or values.owners(prints)]
    if said.get("open") and (held or (place.holds_login and shadows)):
        seen = f"any user of the host may read it, and it holds {', '.join(dict.fromkeys(held)) or 'a login'}"
        yield Finding(id="login-readable", weight="warning", seen=seen, where=said["path"], mend="chmod 600")


def environment_findings(
    rows: Rows, lines: Mapping[str, str], lock: ProviderLock, values: Values, harnesses: Collection[str]
) -> Iterator[Finding]:
    """What the shells of a host tell. None of it reaches a run of ours, but a proxy that is needed does not either.

    Args:
        lines: Variable -> file and line that give it a value, as far as one was found.
    """
    where: dict[str, list[str]] = {}
    for row, said in rows.items():
        for name, prints in said["names"].items():
            if prints[0]:
                where.setdefault(name, []).append(_row(row))
    hits = {(trap, name) for said in rows.values() for trap, name in said["traps"]}
    for trap, name in sorted(hits):
        yield _trap(lock, trap, "note", name, lines.get(name) or ", ".join(where.get(name, ())))
    yield from _wrong_variable(rows, lines, lock, values, harnesses)
    left_out = [
        name
        for name in where
        if name in CERTIFICATES or (name.lower().endswith("_proxy") and name.lower() != "no_proxy")
    ]
    if left_out:
        seen = f"shells of this host set {', '.join(sorted(left_out))}, a run has none of them"
        mend = "if the provider is only reached that way, let the host reach it without"
        yield Finding(
            id="network-settings-left-out", weight="warning", seen=seen, where=_at(left_out, lines), mend=mend
        )
    for name in INJECTS:
        if name in where:
            hurts: Weight = "warning" if SSHD in where[name] and name == "LD_PRELOAD" else "note"
            seen = f"{name} is set in {', '.join(where[name])}: it runs code in what is started there, not in a run"
            yield Finding(id="code-by-variable", weight=hurts, seen=seen, where=lines.get(name, ""))


def _wrong_variable(
    rows: Rows, lines: Mapping[str, str], lock: ProviderLock, values: Values, harnesses: Collection[str]
) -> Iterator[Finding]:
    held = {
        (n, owner) for said in rows.values() for n, prints in said["names"].items() for owner in values.owners(prints)
    }
    for name, provider in sorted(held):
        for harness in harnesses:
            entry = lock.providers.get(provider)
            wiring = entry.harnesses.get(harness) if entry else None
            header = HARNESSES[harness].HEADER_OF.get(name) if harness in HARNESSES else None
            if wiring is None or header is None or name in wiring.key_variables:
                continue
            right = " or ".join(wiring.key_variables)
            seen = f"the key of {provider} is in {name}, which {harness} sends as {header.wire}; the lock names {right}"
            trap = "key-in-wrong-variable"
            yield Finding(id=trap, weight="note", seen=seen, where=lines.get(name, name), mend=_mend(lock, trap))


def shell_findings(rows: Rows, limit_s: float) -> Iterator[Finding]:
    """Shells that did not come to their end, and those that spoil what commands print."""
    for row, said in rows.items():
        if said["ended"] in ("slow", "waits for input"):
            asks = "a login file waits for input there"
            slow = "it was not done, held up by a login file or by the load of the host"
            seen = f"{row}: {asks if said['ended'] != 'slow' else slow}; ended after {limit_s:g} s"
            mend = "let the login files ask for nothing, and start nothing that stays, unless there is a terminal"
            yield Finding(id="shell-hangs", weight="warning", seen=seen, where=row, mend=mend)
        elif row.endswith(" -c") and said["noise"]:
            seen = f"login files print {said['noise']} bytes before what a command over ssh prints; scp breaks on it"
            yield Finding(
                id="login-file-prints", weight="warning", seen=seen, where=row, mend="print to terminals only"
            )


def _brings(shadows: Sequence[Shadow]) -> str:
    said = [f"{each.name} ({each.same_as})" if each.same_as else each.name for each in shadows]
    return ", ".join(dict.fromkeys(said[:12])) + (f" and {len(said) - 12} more" if len(said) > 12 else "")


def _trap(lock: ProviderLock, trap: str, weight: Weight, name: str, where: str) -> Finding:
    known = lock.known_bad[trap]
    lighter = weight if weight == "note" else known.weight
    return Finding(id=trap, weight=lighter, seen=f"{name}: {known.match.words}", where=where, mend=known.mend)


def _mend(lock: ProviderLock, trap: str) -> str:
    return lock.known_bad[trap].mend if trap in lock.known_bad else ""


def _at(names: Iterable[str], lines: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(lines[name] for name in names if name in lines))


def _row(row: str) -> str:
    return SSHD if row == "sshd" else row

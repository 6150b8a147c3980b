"""Which copies of an agent a host has, which one runs use, and what the lock says of it; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from overnight.doctor.records import Finding, Installed
from overnight.harnesses import HARNESSES
from overnight.lockfile import ProviderLock
from overnight.traps import Rule


def installed(copies: Sequence[Mapping[str, Any]], path: Sequence[str]) -> tuple[Installed, ...]:
    """Every copy, as the host found it; the chosen one is the first in the folders of `path`, in their order."""
    found: list[Installed] = []
    for folder in (*path, None):
        for copy in copies:
            harness, where = copy["harness"], copy["path"]
            if any(each.path == where and each.harness == harness for each in found):
                continue
            if folder is None or str(PurePosixPath(where).parent) == str(PurePosixPath(folder)):
                chosen = folder is not None and not any(each.harness == harness for each in found)
                version = HARNESSES[harness].read_version(copy["said"])
                found.append(Installed(harness=harness, path=where, version=version, chosen=chosen))
    return tuple(found)


def findings(
    found: Sequence[Installed], lock: ProviderLock, harnesses: Collection[str], root: bool
) -> Iterator[Finding]:
    """What is wrong with the copies that runs use, and with having several.

    Args:
        harnesses: Those that somebody means to start; one of them that is not there breaks its routes.
        root: Whether runs would be root's.
    """
    for harness in harnesses:
        mine = [each for each in found if each.harness == harness]
        chosen = next((each for each in mine if each.chosen), None)
        if chosen is None:
            yield _missing(harness, mine)
            continue
        yield from _version(chosen, lock)
        others = [f"{each.path} ({each.version or 'version unknown'})" for each in mine if each is not chosen]
        if others:
            seen = f"runs use {chosen.path} ({chosen.version or 'version unknown'}); there is also {', '.join(others)}"
            yield Finding(id="several-copies", weight="note", seen=seen, where=harness)
        yield from _as_root(harness, lock, root)


def _missing(harness: str, elsewhere: Sequence[Installed]) -> Finding:
    command = HARNESSES[harness].COMMAND
    if not elsewhere:
        seen, mend = f"no {command} was found", "install it, or add its folder to the host's path"
    else:
        seen = f"{command} is in {', '.join(each.path for each in elsewhere)}, where runs do not look"
        mend = f"add {PurePosixPath(elsewhere[0].path).parent} to the host's path"
    return Finding(id="harness-missing", weight="error", seen=seen, where=harness, mend=mend)


def _version(chosen: Installed, lock: ProviderLock) -> Iterator[Finding]:
    entry = lock.harnesses.get(chosen.harness)
    known = entry.versions.get(chosen.version or "") if entry else None
    where = f"harnesses.{chosen.harness}.versions"
    if chosen.version is None:
        seen = f"{chosen.path} said no version that can be read"
        yield Finding(id="version-unknown", weight="warning", seen=seen, where=chosen.path)
    elif known is None or entry is None:
        seen = f"{chosen.harness} {chosen.version} is not in the lock"
        yield Finding(id="version-not-in-lock", weight="note", seen=seen, where=where)
    else:
        given = {*entry.flags, *(flag.partition("=")[0] for flag in entry.flags), *entry.env}
        hangs = [name for name in known.hangs_with if name in given]
        if known.status == "bad" or hangs:
            trap = next((name for name, each in lock.known_bad.items() if each.match.rule is Rule.VERSION), "")
            why = f"hangs with {', '.join(hangs)}" if hangs else f"is known bad: {known.note or 'no note'}"
            seen, mend = f"{chosen.harness} {chosen.version} {why}", lock.known_bad[trap].mend if trap else ""
            yield Finding(id=trap or "version-bad", weight="error", seen=seen, where=where, mend=mend)


def _as_root(harness: str, lock: ProviderLock, root: bool) -> Iterator[Finding]:
    trap = lock.known_bad.get("skip-permissions-as-root")
    entry = lock.harnesses.get(harness)
    if trap is None or entry is None or not root or harness not in trap.match.harnesses:
        return
    given = [flag for flag in entry.flags if flag in trap.match.flags]
    if given:
        seen = f"runs are root's there, and the lock starts {harness} with {', '.join(given)}, which refuses root"
        yield Finding(id="skip-permissions-as-root", weight="error", seen=seen, where=harness, mend=trap.mend)

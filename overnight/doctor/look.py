"""One host, looked at: how it is, which agents it has, and what it would add to them behind our back."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from overnight.doctor import agents, condition, shadows
from overnight.doctor.places import FOLDERS, ON_HOST, Place
from overnight.doctor.records import Finding, HostLook, Shadow
from overnight.doctor.values import Values
from overnight.harnesses import HARNESSES, scripted
from overnight.lockfile import ProviderLock
from overnight.plan import USUAL_PATH
from overnight.station import Station

SHELL_S, VERSION_S = 6.0, 10.0
SSHD_CONFIG = "/etc/ssh/sshd_config"
# a word that no command line has: the host puts the path of each copy in its place
_PATH = "\0path\0"
_BEHIND = Path(__file__).with_name("onhost.py")
_FACTS = Path(__file__).with_name("onhost_facts.py")

AGENTS = tuple(name for name in HARNESSES if name != scripted.NAME)
"""Our own scripted one needs python alone and says nothing about a host."""

Told = Mapping[str, Any]


def look(
    station: Station,
    lock: ProviderLock,
    keys: Mapping[str, str],
    wanted: Mapping[str, frozenset[str]],
    harnesses: Collection[str] = AGENTS,
    *,
    shell_s: float = SHELL_S,
    sshd_config: str = SSHD_CONFIG,
) -> HostLook:
    """Look at a host without changing it. Blocks: a second or two, `shell_s` more where a login file hangs.

    No value comes back from the host, and no key goes there: both are told by
    fingerprints under a salt of this one look.

    Args:
        keys: Provider -> key, so that one of them is recognised there.
        wanted: As `values.wanted` makes it of the plans.
        harnesses: Those that are to run there; one that is missing is an error.

    Raises:
        HostError: the host cannot be reached, or has no python that runs us.
    """
    begun = time.monotonic()
    harnesses = [name for name in harnesses if name in AGENTS]
    values = Values(lock, keys, wanted, harnesses)
    places = shadows.with_lock(ON_HOST, lock, "~/", "/")
    path = list(dict.fromkeys([*station.spec.path, *USUAL_PATH]))
    with ThreadPoolExecutor(1) as pool:
        behind = pool.submit(station.remote.script, _BEHIND, _order(values, places, path, harnesses, shell_s))
        sent = time.time()
        told = station.remote.script(_FACTS, {"path": path, "sshd": sshd_config})
        ahead = condition.clock_ahead_s(told["clock"], sent, time.time())
        seen = behind.result()
    facts = {**told["facts"], "home_file_system": None}
    if facts["home_is_there"]:  # else installing would make it
        facts["home_file_system"] = station.remote.install().file_system
    found, findings, unread = _shadows(seen, told, places, lock, values, harnesses, shell_s)
    copies = agents.installed(seen["copies"], path)
    sshd = {
        f"sshd_{word}": value for _, _, word, value, matched in reversed(told["sshd"]["lines"]) if value and not matched
    }
    return HostLook(
        host=station.name,
        seconds=round(time.monotonic() - begun, 2),
        facts={**facts, **sshd, "clock_ahead_s": round(sum(ahead) / 2, 1)},
        installed=copies,
        shadows=tuple(found),
        findings=(
            *condition.findings(facts),
            *condition.clock_findings(*ahead),
            *condition.sshd_findings(told["sshd"]["lines"]),
            *agents.findings(copies, lock, harnesses, facts["uid"] == 0),
            *findings,
        ),
        not_looked_at=tuple(unread),
    )


def _order(
    values: Values, places: Sequence[Place], path: list[str], harnesses: Collection[str], shell_s: float
) -> dict[str, Any]:
    known = {name: HARNESSES[name] for name in harnesses}
    return {
        **values.order,
        "path": path,
        "folders": list(FOLDERS),
        "agents": {name: [each.COMMAND, list(each.version_argv(_PATH))] for name, each in known.items()},
        "stands_for": _PATH,
        "files": [asdict(place) for place in places if place.path.startswith(("~/", "/"))],
        "shell_s": shell_s,
        "version_s": VERSION_S,
    }


def _shadows(
    seen: Told,
    told: Told,
    places: Sequence[Place],
    lock: ProviderLock,
    values: Values,
    harnesses: Collection[str],
    shell_s: float,
) -> tuple[list[Shadow], list[Finding], list[str]]:
    """The shadows, what they mean, and what could not be read."""
    by_path = {place.path: place for place in places}
    found: list[Shadow] = shadows.of_environments(seen["environments"], values)
    findings: list[Finding] = []
    unread = [f"{path}: {why}" for path, why in told["sshd"]["problems"]]
    lines = {
        name: f"{path}:{n}"
        for path, n, word, names, _ in told["sshd"]["lines"]
        if word == "setenv"
        for name in names.split()
    }
    for said in seen["files"]:
        place = by_path[said["place"]]
        brought = shadows.of_file(said, place, lock, values)
        found += brought
        findings += shadows.file_findings(said, place, brought, lock, values)
        if said["problem"] and not said["problem"].startswith("not valid"):
            unread.append(f"{said['path']}: {said['problem']}")
        if place.kind == "shell":
            lines |= {name: f"{said['path']}:{line}" for name, line, _ in said["names"] if line}
    found += shadows.of_keyrings(told["keyrings"], lock)
    rows = seen["environments"]
    findings += shadows.shell_findings(rows, shell_s)
    findings += shadows.environment_findings(rows, lines, lock, values, harnesses)
    unread += [f"{row}: {said['ended']}" for row, said in rows.items() if said["ended"]]
    return found, findings, unread

"""One situation seen through one route of the lock, and the words that all rules share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from overnight.launchers.finding import Edit, Finding
from overnight.launchers.follow import Bound, Situation
from overnight.launchers.locked import COMMANDS, Locked, Route
from overnight.launchers.steps import HOLE, Place

OURS = "overnight, 2026-11-22, measured"


@dataclass(frozen=True)
class Case:
    """`route` is one of those that fit; a finding counts only when every fitting route makes it."""

    lock: Locked
    situation: Situation
    route: Route

    @property
    def vars(self) -> dict[str, Bound]:
        return self.situation.way.vars

    def set(self, name: str) -> Bound | None:
        """The variable as the command gets it: exported and not empty."""
        bound = self.vars.get(name)
        return bound if bound is not None and bound.exported and bound.text else None

    @property
    def agent(self) -> bool:
        """Whether the file itself starts the agent."""
        return agent_of(self.situation) is not None


def agent_of(situation: Situation) -> str | None:
    """The harness that the situation's command starts, or None for any other command or none."""
    if not situation.words:
        return None
    return COMMANDS.get(situation.words[0]) or COMMANDS.get(situation.words[0].rpartition("/")[2])


def routes(lock: Locked, situation: Situation) -> tuple[Route, ...]:
    """Every route that fits what the file says; empty when the provider cannot be told."""
    agent = agent_of(situation)
    found: list[Route] = []
    for harness in [agent] if agent else lock.harnesses:
        if harness in lock.harnesses:
            found.extend(_routes(lock, situation, harness, launched=agent is not None))
    return tuple(found)


def _routes(lock: Locked, situation: Situation, harness: str, launched: bool) -> tuple[Route, ...]:
    way = situation.way
    own = sorted(lock.url_variables[harness])
    foreign = [name for name in lock.harnesses[harness].get("absent", {}) if launched and _is_address(lock, name)]
    for name in [*own, *foreign]:
        bound = way.vars.get(name)
        if bound is None and launched and way.clear is not None and not way.reads_unknown:
            bound = way.before.get(name)
        if bound is not None and bound.text and (bound.exported or launched):
            return () if HOLE in bound.text else lock.routes_of(harness, bound.text)
    return ()


def _is_address(lock: Locked, name: str) -> bool:
    return any(name in names for names in lock.url_variables.values())


def source(provenance: Mapping[str, Any]) -> str:
    return f"{provenance['source']}, {provenance['date']}, {provenance['confidence']}"


def trap_with(lock: Locked, field: str, value: str, otherwise: str) -> tuple[str, dict[str, Any]]:
    """The first known trap whose match says so, with its name; the name `otherwise` and nothing without one."""
    for name, trap in lock.traps.items():
        stated = trap["match"].get(field)
        if stated == value or (isinstance(stated, list) and value in stated):
            return name, trap
    return otherwise, {}


def is_read_elsewhere(place: Place, name: str) -> bool:
    """Whether the file reads the variable anywhere, so that renaming or emptying it would break something else."""
    pattern = rf"\$\{{?{name}\b|[\"']{name}[\"']\s*\]|\.get\(\s*[\"']{name}[\"']|env\.{name}\b"
    return len(re.findall(pattern.encode(), place.text.data)) > (1 if place.raw[:1] in "\"'" else 0)


def in_value(bound: Bound, old: str, new: str) -> tuple[Edit, ...]:
    """The edit that replaces literal text where it was written; empty when it is not there as it stands."""
    place = bound.origin.place
    raw = place.raw
    at = raw.find(old)
    if not old or at < 0 or raw.count(old) > 1:
        return ()
    start = place.start + len(raw[:at].encode())
    return (Edit(Place(place.text, start, start + len(old.encode())), new),)


def finding(
    rule: tuple[str, Mapping[str, Any]],
    place: Place,
    what: str,
    fact: tuple[str, Mapping[str, Any]],
    *,
    why: str = "",
    mend: str = "",
    edits: tuple[Edit, ...] = (),
    certain: bool = False,
    weight: str = "error",
) -> Finding:
    """A finding in the words of the trap where there is one."""
    name, trap = rule
    return Finding(
        name,
        trap.get("weight", weight),
        place,
        what,
        fact[0],
        source(fact[1]) if fact[1] else OURS,
        why or trap.get("why", ""),
        mend or trap.get("mend", ""),
        edits,
        certain and bool(edits),
    )

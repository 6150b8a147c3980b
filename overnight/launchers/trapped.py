"""Traps of the lock that can be seen from their fields alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from overnight.launchers.addresses import is_number_of
from overnight.launchers.case import Case, finding, trap_with
from overnight.launchers.finding import Finding
from overnight.launchers.follow import Bound, Situation
from overnight.launchers.locked import Locked
from overnight.launchers.steps import HOLE, Place

_SEEN_ELSEWHERE = ("rule", "together", "url_suffixes", "header")
_DOLLAR = re.compile(r"\$(?:\{\w+\}|\w+)")


def check(case: Case) -> Iterator[Finding]:
    """Every trap that holds for the case's provider and harness."""
    for name, trap in case.lock.traps.items():
        match = trap["match"]
        if any(match.get(field) for field in _SEEN_ELSEWHERE) or not _meant(case, match):
            continue
        if match.get("variables"):
            for bound in _bound(case, match):
                what = match["words"]
                yield finding((name, trap), bound.step.place, what, (trap["breaks"], trap["provenance"]))
        elif match.get("flags"):
            place = _flagged(case.situation, match)
            if case.agent and place is not None:
                yield finding((name, trap), place, match["words"], (trap["breaks"], trap["provenance"]))
    yield from _ranges(case)


def check_keys(lock: Locked, situation: Situation) -> Iterator[Finding]:
    """Flaws of a key's own text, which are flaws whoever the provider is."""
    for name in sorted(lock.secret_names & situation.way.vars.keys()):
        bound = situation.way.vars[name]
        if not situation.script.expands and _DOLLAR.fullmatch(bound.text):
            yield finding(
                ("not-expanded", {}),
                bound.step.place,
                f"{name} is set to the text {bound.text}: nothing replaces it in this kind of file",
                ("the format of the file", {}),
                why="the name itself is sent as the key",
                mend="put the value there by the means of this format",
            )
        for trap_name, trap in lock.traps.items():
            match = trap["match"]
            everyone = not match.get("providers") and not match.get("not_providers")
            if everyone and name in match.get("variables", ()) and match.get("value") and _fits(bound, match):
                yield finding((trap_name, trap), bound.step.place, match["words"], (trap["breaks"], trap["provenance"]))


def _meant(case: Case, match: dict[str, Any]) -> bool:
    providers, others, harnesses = match.get("providers"), match.get("not_providers", ()), match.get("harnesses")
    here = case.route.provider
    return (
        (not providers or here in providers)
        and here not in others
        and (not harnesses or case.route.harness in harnesses)
    )


def _bound(case: Case, match: dict[str, Any]) -> Iterator[Bound]:
    own = {case.route.key_variable, case.route.url_variable}
    elsewhere = case.lock.secret_names | frozenset().union(*case.lock.url_variables.values())
    for name in match["variables"]:
        bound = case.set(name)
        if bound is None or not _fits(bound, match):
            continue
        if not match.get("value") and name in elsewhere - own and all(case.set(each or "") for each in own):
            continue  # ignored by this agent, and it has its own
        yield bound


def _fits(bound: Bound, match: dict[str, Any]) -> bool:
    pattern = match.get("value")
    if pattern is None:
        return True
    if not bound.text or bound.text.startswith(HOLE) or _DOLLAR.match(bound.text):
        return False
    return re.search(pattern, bound.text) is not None


def _flagged(situation: Situation, match: dict[str, Any]) -> Place | None:
    """Where the flag stands, when the whole command line is known and none of the missing ones is on it."""
    launch = situation.launch
    if launch is None:
        return None
    missing = match.get("missing_flags", ())
    for word, value in zip(situation.words, launch.words, strict=True):
        spread = word == HOLE and (not value.place.raw.startswith('"') or "@" in value.place.raw)
        if missing and (spread or any(word == flag or word.startswith(f"{flag}=") for flag in missing)):
            return None
    found = (value for word, value in zip(situation.words, launch.words, strict=True) if word in match["flags"])
    first = next(found, None)
    return first.place if first is not None else None


def _ranges(case: Case) -> Iterator[Finding]:
    for name, entry in case.lock.harnesses[case.route.harness].get("ranges", {}).items():
        bound = case.set(name)
        number = is_number_of(bound) if bound is not None else None
        least, most = entry.get("least"), entry.get("most")
        if bound is None or number is None:
            continue
        if (least is not None and number < least) or (most is not None and number > most):
            limit = f"at least {least:g}" if least is not None and number < least else f"at most {most:g}"
            yield finding(
                trap_with(case.lock, "rule", "range", "timeout-without-effect"),
                bound.step.place,
                f"{name} is {number:g}; what works is {limit} {entry['unit']}",
                (f"harnesses.{case.route.harness}.ranges.{name}", entry["provenance"]),
                why=entry["what"],
                weight="warning",
            )

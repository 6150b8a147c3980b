"""The lock and the agents as a matrix needs them: one provider a cell, short waits, and what a case changes."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, cast

from overnight import lockfile
from overnight.harnesses import HARNESSES
from overnight.harnesses.protocol import Harness, Launch
from overnight.lockfile import Timing
from overnight.rehearsal.matrix.case import Case, Change, Way
from overnight.rehearsal.matrix.cell import Cell
from overnight.spec import Limits

_REQUEST_TIMEOUT_S = 5.0
_QUIET_S, _TOTAL_S = 40.0, 300.0
_SLACK_S = 5.0
_BEARER, _KEY = "rehearsal", "rehearsal-x"
_ZHIPU = "zhipu"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Altered:
    """A harness that is given other files below HOME; in all else it is the one it stands for."""

    def __init__(self, real: Harness, files: Mapping[str, str]) -> None:
        self._real, self._files = real, files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def home_files(self, launch: Launch) -> dict[str, str]:
        return {**self._real.home_files(launch), **self._files}


def provider_of(harness: str) -> str:
    """The lock's rehearsal provider that this harness is wired to."""
    lock = lockfile.load()
    return _BEARER if harness in lock.providers[_BEARER].harnesses else _KEY


def known_as(cell: Cell) -> str:
    """What the cell's harness is called in its lock: a case that changes it has an entry of its own."""
    own = cell.harness in cell.case.changes or cell.case.way is Way.DEAD_PROXY or cell.case.own_waits
    return cell.name if own else cell.harness


def harnesses(cells: list[Cell]) -> dict[str, Harness]:
    """Those of the project, and those that a case changes."""
    known = dict(HARNESSES)
    for cell in cells:
        files = cell.case.changes.get(cell.harness, Change()).files
        known[known_as(cell)] = (
            cast(Harness, Altered(HARNESSES[cell.harness], files)) if files else HARNESSES[cell.harness]
        )
    return known


def lock_text(cells: list[Cell], urls: Mapping[str, str], dead_proxy: str) -> str:
    """The project's lock with one provider a cell.

    Args:
        urls: The base URL of each cell, by its name.
        dead_proxy: The URL of a proxy that is not there.
    """
    lock: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
    providers, entries = lock["providers"], lock["harnesses"]
    lock["providers"] = {}
    for cell in cells:
        real = copy.deepcopy(providers[provider_of(cell.harness)])
        for endpoint in real["endpoints"].values():
            endpoint["url"] = urls[cell.name]
        # a site speaks as the vendor its shape is named after, and is read by what the lock knows of that vendor
        real["errors"] = providers[str(cell.case.site.get("shape", _ZHIPU))]["errors"]
        real["harnesses"] = {known_as(cell): real["harnesses"][cell.harness]}
        lock["providers"][cell.name] = real
    for cell in [cell for cell in cells if known_as(cell) != cell.harness]:
        entries[known_as(cell)] = _changed(entries[cell.harness], cell, dead_proxy)
    for name in HARNESSES:
        _hasten(entries[name])
    for cell in cells:
        if not cell.case.own_waits:
            _hasten(entries[known_as(cell)])
    return json.dumps(lock)


def limits(case: Case, timing: Timing | None) -> Limits:
    """Short ones that the lock's waits fit into, or the usual ones.

    Args:
        timing: The waits of the harness in the matrix's lock.
    """
    if case.own_waits:
        return Limits(attempts=1)
    quiet_s = max(_QUIET_S, timing.longest_s + _SLACK_S if timing else 0)
    short = {"first_event_s": 60.0, "quiet_s": quiet_s, "total_s": _TOTAL_S, "grace_s": 3.0, "attempts": 1}
    return Limits.model_validate({**short, **case.limits})


def hastened(timing: Timing | None) -> Timing | None:
    """The waits as the matrix has them."""
    return timing.model_copy(update={"request_timeout_s": _REQUEST_TIMEOUT_S}) if timing else None


def _hasten(entry: dict[str, Any]) -> None:
    if entry.get("timing"):
        entry["timing"]["request_timeout_s"] = _REQUEST_TIMEOUT_S


def _changed(entry: Mapping[str, Any], cell: Cell, dead_proxy: str) -> dict[str, Any]:
    change = cell.case.changes.get(cell.harness, Change())
    new: dict[str, Any] = copy.deepcopy(dict(entry))
    kept = [flag for flag in new.get("flags", ()) if not change.without or not flag.startswith(change.without)]
    new["flags"] = [*kept, *change.flags]
    for old, put in change.swaps:
        new["env"] = {name: _swapped(value, old, put) for name, value in new["env"].items()}
    if cell.case.way is Way.DEAD_PROXY:
        named = {spelled: dead_proxy for name in _PROXIES for spelled in (name, name.lower())}
        new["env"] = {**new.get("env", {}), **named}
    return new


def _swapped(value: str, old: str, new: str) -> str:
    """A word is swapped only where it is the whole value."""
    whole = old.isalpha()
    return new if value == old else value if whole else value.replace(old, new)

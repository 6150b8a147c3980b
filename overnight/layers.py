"""The lock with a user's overlay on top: what is the lock's, what is theirs, fact by fact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from overnight.facts import Fact
from overnight.failures import BadInput
from overnight.lockfile import DEFAULT_LOCK, OVERLAY, ProviderLock
from overnight.lockfile import load as load_lock
from overnight.lockfile import place as place_of_lock
from overnight.lockplace import is_overlay

Place = tuple[str, ...]
"""Where a fact is in the lock, key by key; written with dots in messages."""

_HEAD = ("schema", "as_of")


@dataclass(frozen=True)
class Layered:
    """A whole lock, and which file each of its facts comes from. `theirs` are the places that the overlay sets."""

    lock: ProviderLock
    path: Path
    overlay: Path | None = None
    theirs: frozenset[Place] = frozenset()

    def is_theirs(self, *place: str) -> bool:
        """Whether the overlay sets a fact, or any part of it."""
        return any(theirs[: len(place)] == place or place[: len(theirs)] == theirs for theirs in self.theirs)

    def layer(self, *place: str) -> str:
        """The file that won for a fact: the overlay's, when it sets the fact or any part of it."""
        return str(self.overlay if self.is_theirs(*place) else self.path)


def find(folder: Path) -> Path | None:
    """The overlay of a folder: there, or above it up to the root of its git repository; None without one."""
    inside = [folder, *folder.parents]
    root = next((i for i, each in enumerate(inside) if (each / ".git").exists()), 0)
    return next((each / OVERLAY for each in inside[: root + 1] if (each / OVERLAY).is_file()), None)


def in_use(given: Path | None, environ: Mapping[str, str]) -> ProviderLock:
    """The lock to go by: what was given, else what OVERNIGHT_LOCK names, else the project's own; see `whole`."""
    return whole(place_of_lock(given, environ))


def whole(path: Path) -> ProviderLock:
    """The lock at `path`. A file called `overnight.lock.json`, or `overnight.lock.ANY.json`, is an overlay.

    An overlay is laid over the project's own lock. It is never taken up unless
    somebody names it: it could send keys elsewhere.

    Raises:
        BadInput: as `load`.
    """
    return load(DEFAULT_LOCK, path).lock if is_overlay(path) else load_lock(path)


def load(path: Path, overlay: Path | None) -> Layered:
    """The lock at `path` with the overlay merged into it.

    Keys of the overlay are added or win, one by one; `null` takes a key out; a
    list replaces a list. A fact that the overlay touches without saying where
    it comes from is marked as the overlay's, unverified.

    Raises:
        BadInput: one of the two is missing, is no JSON, or does not fit the schema.
    """
    lock = load_lock(path)
    if overlay is None:
        return Layered(lock, path)
    top = _read(overlay)
    raw = json.loads(path.read_text(encoding="utf-8"))
    merged = laid_over(raw, {key: value for key, value in top.items() if key not in _HEAD})
    theirs = frozenset(place for place in _leaves(top) if place[0] not in _HEAD)
    mark = {"source": overlay.name, "date": top["as_of"], "confidence": "unverified"}
    found = _validated(_filled(merged, mark), overlay)
    for place in {_fact_at(found, place) for place in theirs} - {()}:
        if not any(each[: len(place) + 1] == (*place, "provenance") for each in theirs):
            _at(merged, place)["provenance"] = mark
    return Layered(_validated(merged, overlay), path, overlay, theirs)


def patched(lock: ProviderLock, patch: Mapping[str, Any], mark: Mapping[str, str]) -> ProviderLock:
    """A lock with a part of an overlay laid over it; new facts that say no source get `mark` as provenance.

    Raises:
        ValueError: the result does not fit the schema.
    """
    raw = lock.model_dump(mode="json", by_alias=True, exclude_none=True)
    return ProviderLock.model_validate(_filled(laid_over(raw, patch), mark))


def _read(overlay: Path) -> dict[str, Any]:
    where, shape = str(overlay), "Start it with schema 1 and as_of, then what you add, shaped as the lock is"
    try:
        top = json.loads(overlay.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(where, "file", error.strerror or "cannot be read", "Give it with --overlay PATH") from error
    except ValueError as error:
        raise BadInput(where, "file", f"is not JSON: {error}", shape) from error
    if not isinstance(top, dict):
        raise BadInput(where, "file", "is not an object", shape)
    for name in _HEAD:
        if name not in top:
            raise BadInput(where, name, "is missing", shape)
    empty = {"schema": top["schema"], "as_of": top["as_of"], "providers": {}, "harnesses": {}}
    _validated(empty, overlay)
    return top


def laid_over(base: Mapping[str, Any], top: Mapping[str, Any], *, keep_null: bool = False) -> dict[str, Any]:
    """Both as one: a key of `top` is added or wins, `null` takes it out, a list replaces a list.

    Args:
        keep_null: Both are parts of an overlay, which has still to take something out elsewhere.
    """
    merged = dict(base)
    for key, value in top.items():
        if value is None and not keep_null:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = laid_over(below if isinstance(below, dict) else {}, value, keep_null=keep_null)
        else:
            merged[key] = value
    return merged


def _leaves(data: Mapping[str, Any], above: Place = ()) -> Iterator[Place]:
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key)


def _filled(merged: dict[str, Any], mark: Mapping[str, str]) -> dict[str, Any]:
    """The same data, each new fact marked as the overlay's where it does not say where it comes from."""
    try:
        ProviderLock.model_validate(merged)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            if each["type"] == "missing" and each["loc"][-1] == "provenance":
                _at(merged, each["loc"][:-1])["provenance"] = dict(mark)
    return merged


def _validated(data: Mapping[str, Any], overlay: Path) -> ProviderLock:
    try:
        return ProviderLock.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        mend = "See providers.lock.schema.json for the shape"
        raise BadInput(str(overlay), place, first["msg"], mend) from error


def _at(data: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        data = data[part]
    return data


def _fact_at(lock: ProviderLock, place: Place) -> Place:
    """The innermost fact that holds a place; empty where none does, or the overlay took it out."""
    here: Any = lock
    fact: Place = ()
    for depth, part in enumerate(place):
        if isinstance(here, BaseModel):
            here = getattr(here, part, None)
        elif isinstance(here, dict):
            here = here.get(part)
        else:
            break
        if isinstance(here, Fact):
            fact = place[: depth + 1]
    return fact

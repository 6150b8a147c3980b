"""Two locks, or two entries of one, fact against fact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

_SHOWN = 160


@dataclass(frozen=True)
class Change:
    """A place where the two differ; a side is None where it says nothing."""

    place: str
    left: str | None
    right: str | None

    def words(self, left: str, right: str) -> str:
        """The difference as a sentence, each side called by its name."""
        if self.left is None:
            return f"{self.place}: only in {right}: {self.right}"
        if self.right is None:
            return f"{self.place}: only in {left}: {self.left}"
        return f"{self.place}: {self.left} in {left}, {self.right} in {right}"


def changes(left: BaseModel, right: BaseModel) -> list[Change]:
    """Every fact that differs. What a whole entry is missing is told once; a source alone counts, too."""
    return list(_between(_data(left), _data(right), ""))


def _data(of: BaseModel) -> dict[str, Any]:
    return of.model_dump(mode="json", by_alias=True, exclude_none=True)


def _between(left: Mapping[str, Any], right: Mapping[str, Any], above: str) -> Iterator[Change]:
    for key in dict.fromkeys([*left, *right]):
        place = f"{above}.{key}" if above else key
        if key not in left or key not in right:
            yield Change(place, *(_shown(side[key]) if key in side else None for side in (left, right)))
            continue
        ours, theirs = left[key], right[key]
        if ours == theirs:
            continue
        if key == "provenance":
            yield Change(place, _source(ours), _source(theirs))
        elif isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _between(ours, theirs, place)
        elif _of_entries(ours) or _of_entries(theirs):
            yield from (Change(place, _shown(each), None) for each in ours if each not in theirs)
            yield from (Change(place, None, _shown(each)) for each in theirs if each not in ours)
        else:
            yield Change(place, _shown(ours), _shown(theirs))


def _of_entries(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)


def _source(of: Mapping[str, str]) -> str:
    return f"{of['source']} ({of['date']}, {of['confidence']})"


def _shown(value: Any) -> str:
    """A value in short; of an entry, what it says and not where that comes from."""
    if isinstance(value, dict):
        plain = {key: below for key, below in value.items() if key != "provenance" and below not in ("", [], {})}
        value = plain or _source(value["provenance"]) if "provenance" in value else plain
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

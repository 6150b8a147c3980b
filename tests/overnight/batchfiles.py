"""Batch files to test with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from overnight.batchfile import load
from overnight.failures import BadInput

# the example of the README, with every part of it
EXAMPLE: dict[str, Any] = {
    "schema": 1,
    "name": "tonight",
    "hosts": {"box": {"address": "10.0.0.5", "user": "dev", "key_file": "id", "path": ["/opt/bin"]}},
    "defaults": {
        "repo": "app.git",
        "base": "main",
        "route": {"host": "box", "harness": "claude-code", "provider": "zai", "model": "glm-5.2"},
        "limits": {"quiet_s": 500, "attempts": 3, "max_usd": None},
    },
    "tasks": [
        {"id": "first", "instruction": "Add a page", "verify": "make test"},
        {"id": "second", "instruction": "Mend it", "route": {"provider": "deepseek", "model": "deepseek-chat"}},
    ],
}


def written(folder: Path, data: Any, name: str = "night.yaml") -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(data, file)
    return path


def changed(place: str, value: Any) -> dict[str, Any]:
    """The example with one place changed; a value of `...` takes the key away."""
    data: Any = copy.deepcopy(EXAMPLE)
    *parents, last = place.split("/")
    here = data
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
    if value is ...:
        del here[last]
    elif isinstance(here, list):
        here.insert(int(last), value)
    else:
        here[last] = value
    return dict(data)


def refusal(*files: Path, variables: dict[str, str] | None = None) -> BadInput:
    with pytest.raises(BadInput) as refused:
        load(files, variables or {})
    return refused.value

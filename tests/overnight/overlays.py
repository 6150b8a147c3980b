"""Overlays for tests, as files on top of the real lock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overnight import layers, lockfile
from overnight.layers import Layered
from overnight.lockfile import DEFAULT_LOCK, OVERLAY

OWN = {"source": "our own measurement", "date": "2026-11-20", "confidence": "measured"}


def overlay(folder: Path, **more: Any) -> Path:
    path = folder / OVERLAY
    path.write_text(json.dumps({"schema": 1, "as_of": "2026-11-21", **more}), encoding="utf-8")
    return path


def layered(folder: Path, **more: Any) -> Layered:
    return layers.load(DEFAULT_LOCK, overlay(folder, **more))


def settled(folder: Path) -> Layered:
    """The real lock with an address for every server of one's own, and a model where the lock knows none."""
    providers: dict[str, Any] = {}
    for name, entry in lockfile.load().providers.items():
        for each, endpoint in entry.endpoints.items():
            if endpoint.is_yours:
                url = endpoint.url.replace("{host}", "10.0.0.5")
                providers.setdefault(name, {})["endpoints"] = {each: {"url": url}}
        if not entry.models:
            providers.setdefault(name, {})["models"] = {"own-model": {}}
    return layered(folder, providers=providers)

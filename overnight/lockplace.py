"""Where the lock is. Alone in a module, because a hook that runs at every commit has no time for the lock's models."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path


def _default() -> Path:
    """In a checkout at its root; where we were installed as a package, beside it."""
    checked_out = Path(__file__).resolve().parent.parent / "providers.lock.json"
    if checked_out.exists():
        return checked_out
    import sysconfig  # only here: half of what `lock check` takes to start

    return Path(sysconfig.get_path("data"), "share", "overnight", checked_out.name)


DEFAULT_LOCK = _default()
LOCK_VARIABLE = "OVERNIGHT_LOCK"
OVERLAY = "overnight.lock.json"
"""The file in which users add to the lock, or override it."""


def is_overlay(path: Path) -> bool:
    """Whether a file is one by its name: `overnight.lock.json`, or `overnight.lock.ANY.json`."""
    return fnmatch(path.name, OVERLAY) or fnmatch(path.name, f"{OVERLAY.removesuffix('.json')}.*.json")

"""What a silent run is waiting for, seen on its host.

These modules travel: the follower gets their text and runs it in a child of
its own. Standard library only, Python 3.8 or newer, importing nothing of ours
but each other, from the right to the left of `PARTS`. No value of an
environment leaves the host.
"""

from __future__ import annotations

from pathlib import Path

PARTS = ("notes", "surroundings", "connections", "kernel", "tools", "look")


def code() -> list[tuple[str, str]]:
    """Name and text of each module, in the order in which they can be loaded."""
    folder = Path(__file__).parent
    return [(f"{__name__}.{part}", (folder / f"{part}.py").read_text(encoding="utf-8")) for part in PARTS]

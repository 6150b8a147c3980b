"""Writes the corrections that are certain."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from overnight.launchers.finding import Edit, Finding, apply
from overnight.launchers.steps import Text


def mend(findings: Iterable[Finding]) -> list[str]:
    """Apply every certain correction; returns the shown paths of the files that were changed.

    Each file is replaced whole, with its mode; line ends and all other bytes
    stay. A file that has changed since it was read is left alone.

    Raises:
        OSError: a file cannot be written; files before it are done.
    """
    edits: dict[Text, list[Edit]] = {}
    for finding in findings:
        for edit in finding.edits if finding.certain else ():
            edits.setdefault(edit.place.text, []).append(edit)
    return [text.shown for text, wanted in edits.items() if _replace(text, apply(text.data, wanted))]


def _replace(text: Text, data: bytes) -> bool:
    place = Path(os.path.realpath(text.path))
    if place.read_bytes() != text.data:
        return False
    number, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with open(number, "wb") as file:
            file.write(data)
        os.chmod(temporary, place.stat().st_mode & 0o7777)
        os.replace(temporary, place)
    except OSError:
        os.unlink(temporary)
        raise
    return True

"""Every harness this project can drive, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overnight.failures import BadInput
from overnight.harnesses import claude_code, codex, copilot, goose, opencode, pi, qwen, scripted
from overnight.harnesses.declared import DECLARED, declared_in
from overnight.harnesses.protocol import Harness

_MODULES: tuple[Harness, ...] = (claude_code, codex, copilot, goose, opencode, pi, qwen, scripted)
HARNESSES: dict[str, Harness] = {each.NAME: each for each in (*_MODULES, *DECLARED)}
OURS = frozenset(HARNESSES)
FOLDER_VARIABLE = "OVERNIGHT_HARNESSES"


def take_up(environ: Mapping[str, str]) -> None:
    """Add what a user declares to the table: each TOML file in the folder that OVERNIGHT_HARNESSES names.

    For programs, once at their start and before a plan is made; again changes
    nothing. Like an overlay, a folder is never taken up unless somebody names
    it: its files say what is run.

    Raises:
        BadInput: a file, and what in it cannot be used; or a name that is ours already.
    """
    folder = environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    found = declared_in(Path(folder).expanduser(), FOLDER_VARIABLE)
    for path, harness in found.items():
        if harness.NAME in OURS:
            raise BadInput(str(path), "name", f"{harness.NAME!r} is a harness already", "Give it another name")
    HARNESSES.update({harness.NAME: harness for harness in found.values()})

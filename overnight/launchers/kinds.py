"""Which files are launchers, of which kind, and which of a folder's files are looked at."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path, PurePath

from overnight.launchers.steps import Script, Text

MOST_BYTES = 1_000_000
_SKIPPED = frozenset({".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".tox", "dist", "build"})
_KINDS: Sequence[tuple[str, re.Pattern[str]]] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("workflow", r"(?:^|.*/)\.github/(?:workflows/[^/]+|actions/.*action)\.ya?ml"),
        ("compose", r"(?:^|.*/)(?:docker-)?compose[^/]*\.ya?ml"),
        ("dockerfile", r"(?:^|.*/)(?:(?:Dockerfile|Containerfile)(?:\.[^/]*)?|[^/]+\.[Dd]ockerfile)"),
        ("unit", r"(?:^|.*/)[^/]+\.service|.*\.service\.d/[^/]+\.conf"),
        ("settings", r"(?:^|.*/)settings[^/]*\.json"),
        ("dotenv", r"(?:^|.*/)(?:\.env(?:\.[^/]*)?|[^/]+\.env(?:\.(?:example|sample|local|dist))?)"),
        ("python", r".*\.py"),
        (
            "shell",
            r".*\.(?:sh|bash|zsh|ksh)|(?:^|.*/)\.?(?:bashrc|bash_profile|bash_aliases|profile|zshrc|zshenv|zprofile|envrc)",
        ),
    )
)
_SHEBANG = re.compile(rb"#!.*\b(ba|z|k|da|a)?sh\b")
_PYTHON = re.compile(rb"#!.*\bpython")
# by module and function, so that a repository of scripts does not load the reader of workflows
_READERS = {
    "workflow": ("documents", "read_workflow"),
    "compose": ("documents", "read_compose"),
    "settings": ("documents", "read_settings"),
    "dockerfile": ("images", "read"),
    "unit": ("lines", "read_unit"),
    "environment-file": ("lines", "read_environment_file"),
    "dotenv": ("lines", "read_dotenv"),
    "python": ("python", "read"),
    "shell": ("shell", "read"),
}


def kind_of(path: PurePath, data: bytes) -> str | None:
    """The kind of a file by its name, else by its first line; None for what is no launcher."""
    name = path.as_posix()
    for kind, pattern in _KINDS:
        if pattern.fullmatch(name):
            return kind
    if not path.suffix and data.startswith(b"#!"):
        first = data.partition(b"\n")[0]
        return "shell" if _SHEBANG.match(first) else ("python" if _PYTHON.match(first) else None)
    return None


def read(text: Text, kind: str) -> Script:
    """The steps of a file of a known kind."""
    module, function = _READERS[kind]
    reader: Callable[[Text], Script] = getattr(import_module(f"overnight.launchers.{module}"), function)
    return reader(text)


def files_under(folder: Path) -> Iterator[Path]:
    """Files below a folder: those that git tracks or would, else all but the usual places of foreign code."""
    listed = _by_git(folder)
    if listed is not None:
        yield from (folder / name for name in sorted(listed))
        return
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        yield from (Path(root, name) for name in sorted(names))


def _by_git(folder: Path) -> set[str] | None:
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        return None
    if done.returncode != 0:
        return None
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}

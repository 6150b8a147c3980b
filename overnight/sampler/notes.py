"""Reads what may be refused, and keeps what was."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]


class Notes:
    """What could not be looked at, each once."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def add(self, words: str) -> None:
        if words not in self.missing:
            self.missing.append(words)

    def attempt(self, what: str, read: Callable[..., Any], *args: Any) -> Any:
        """What `read` returns; None where it could not, and then that is noted."""
        try:
            return read(*args)
        except (OSError, ValueError, LookupError, struct.error, subprocess.SubprocessError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            self.add(f"{what}: {why}")
        return None

    def of_process(self, what: str, read: Callable[[str], Any], path: str) -> Any:
        """The same of a file of a process; that the process is gone meanwhile is no news."""
        try:
            return read(path)
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            self.add(f"{what} of some processes: {os.strerror(error.errno or 0)}")
        return None

    def into(self, record: Json, what: str, read: Callable[..., Json], *args: Any) -> None:
        record.update(self.attempt(what, read, *args) or {})


def text_of(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "replace")

"""Where batches are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overnight.failures import BadInput


def state_directory(given: Path | None, environ: Mapping[str, str]) -> Path:
    """Where batches are kept: `--state`, else `$XDG_STATE_HOME/overnight`, else `~/.local/state/overnight`.

    Raises:
        BadInput: a file stands there.
    """
    directory = Path(environ.get("XDG_STATE_HOME") or "~/.local/state") / "overnight" if given is None else given
    directory = directory.expanduser().absolute()
    if directory.exists() and not directory.is_dir():
        raise BadInput("command line", "--state", f"{directory} is not a folder", "Name a folder")
    return directory

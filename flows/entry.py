"""Console script `overnight`. `lock check` runs at every commit and waits for no other command's imports."""

from __future__ import annotations

import sys


def main() -> None:
    """Run what the command line says."""
    if sys.argv[1:3] == ["lock", "check"]:
        from flows.cli_lock_check import main as check

        check(sys.argv[3:])
    else:
        from flows.cli import app

        app()

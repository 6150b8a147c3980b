"""Processes that outlive whoever started them: known by number and birth, asked to end, then made to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil

STOP_S = 20.0


def living(record: Mapping[str, Any]) -> psutil.Process | None:
    """The recorded process if it still lives; never another one that got its number since."""
    try:
        process = psutil.Process(record["pid"])
        same = process.create_time() == record["born"]
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def end(leaders: Sequence[psutil.Process]) -> None:
    """Ask processes to end, and after 20 s make them and everything they started."""
    tree: list[psutil.Process] = []
    for leader in leaders:
        with suppress(psutil.NoSuchProcess):
            tree += [*leader.children(recursive=True), leader]
            leader.terminate()
    _, stubborn = psutil.wait_procs(tree, STOP_S)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, 5.0)

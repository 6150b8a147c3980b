"""What only root can do to a run of its own: a small disk, a HOME that cannot be written, little memory."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_MEMORY_BYTES = 3 << 29
_TRIES = 100


def missing() -> str:
    """Why mounts and memory limits cannot be made here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root: a mount, or a memory limit"
    if _limit_file() is None:
        return "needs a memory controller of cgroups that can be written"
    return ""


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[None]:
    """A disk of this size at `place`.

    Raises:
        CalledProcessError: it cannot be mounted.
    """
    with _mounted(place, f"size={megabytes}m,mode=0700"):
        yield


@contextmanager
def read_only_home(place: Path) -> Iterator[None]:
    """A folder in which nobody can write, not even root. Raises as `small_disk` does."""
    with _mounted(place, "ro,size=1m,mode=0700"):
        yield


@contextmanager
def _mounted(place: Path, options: str) -> Iterator[None]:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "overnight-matrix", str(place)], check=True)
    try:
        yield
    finally:
        # lazily: whoever still has a file open there is being ended
        subprocess.run(["umount", "-l", str(place)], check=False)


@contextmanager
def in_small_memory(name: str, run_dir: Path) -> Iterator[None]:
    """The run's processes, as they are now and all they start, under one limit of memory.

    They are the first that the kernel ends; a command that says otherwise of itself comes after them.
    """
    group = (_V1 if _V1.is_dir() else _V2) / f"overnight-{os.getpid()}-{name}"
    group.mkdir()
    try:
        limit = _limit_file()
        (group / (limit or "")).write_text(str(_MEMORY_BYTES))
        _move(main_process(run_dir), group / "cgroup.procs")
        yield
    finally:
        _remove(group)


def main_process(run_dir: Path) -> int:
    """The agent's own process of a run that was started on this machine."""
    started = json.loads((run_dir / "started.json").read_text())
    return int(started["pid"])


def _limit_file() -> str | None:
    if os.access(_V1 / "memory.limit_in_bytes", os.F_OK) and os.access(_V1, os.W_OK):
        return "memory.limit_in_bytes"
    controllers = _V2 / "cgroup.subtree_control"
    if os.access(controllers, os.W_OK) and "memory" in controllers.read_text().split():
        return "memory.max"
    return None


def _move(main: int, procs: Path) -> None:
    """All of a run's processes, until none was started beside the group meanwhile."""
    while outside := set(_tree(main)) - set(map(int, procs.read_text().split())):
        for pid in outside:
            with suppress(OSError):  # it has ended
                Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
                procs.write_text(str(pid))
        time.sleep(0.05)


def _tree(pid: int) -> list[int]:
    """Those that live: a process and all below it; nobody when it has ended."""
    if not Path(f"/proc/{pid}").exists():
        return []
    found, waiting = [pid], [pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                children = [int(word) for word in task.read_text().split()]
                found += children
                waiting += children
    return found


def _remove(group: Path) -> None:
    """Once its last process is gone; what cannot be removed is left to the next start of the machine."""
    for _ in range(_TRIES):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


_ALONE = threading.Lock()


@contextmanager
def in_turn(needed: bool) -> Iterator[None]:
    """One at a time: the kernel counts what it kills for the whole machine."""
    if not needed:
        yield
        return
    with _ALONE:
        yield

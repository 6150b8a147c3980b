"""Plays schedules one after the other, in namespaces of its own: what it starts can neither stay nor disturb.

Reads `SEED FOLDER` lines and answers each with one line of JSON. When it ends,
however that comes, the kernel ends everything that was started in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.invariants import breaches
from tests.chaos.play import Played, Player
from tests.chaos.schedule import draw
from tests.chaos.seen import listening, look
from tests.chaos.world import world


def main(prefect_home: Path) -> None:
    _loopback_up()
    with ExitStack() as stack:
        prefect: Path | None = None
        for line in sys.stdin:
            seed, folder = line.split(maxsplit=1)
            if draw(int(seed)).controller == "batch" and prefect is None:
                prefect = _server(stack, prefect_home)
            answer = one(int(seed), Path(folder.strip()), prefect)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def one(seed: int, folder: Path, prefect: Path | None) -> dict[str, Any]:
    """Play a schedule and judge it; its folder stays when something is wrong."""
    schedule, began = draw(seed), time.monotonic()
    played: Played | None = None
    try:
        with world(folder, schedule, prefect) as here:
            here.ports = frozenset(listening())
            played = Player(here).play()
            seen = look(here, played)
            found = breaches(seen)
            if any(found.values()):
                _save_hosts(here.folder, [machine.home for machine in here.machines.values()])
    except Exception as error:  # noqa: BLE001  # a schedule that breaks the suite must not cost the others
        found = {"suite": [f"{type(error).__name__}: {error}"]}
        traceback.print_exc()
    else:
        if not any(found.values()):
            shutil.rmtree(folder)
    return {
        "seed": seed,
        "controller": schedule.controller,
        "tasks": len(schedule.work),
        "faults": [str(fault) for fault in schedule.faults],
        "hits": [asdict(hit) for hit in played.hits] if played else [],
        "starts": played.starts if played else 0,
        "seconds": round(time.monotonic() - began, 1),
        "breaches": found,
        "folder": str(folder),
    }


def _save_hosts(folder: Path, homes: list[Path]) -> None:
    """The disks of the machines go with them: keep what somebody will want to read."""
    for home in homes:
        shutil.copytree(home, folder / "kept" / home.parent.name, symlinks=True, ignore_dangling_symlinks=True)


def _server(stack: ExitStack, home: Path) -> Path:
    """A Prefect server that several batches use one after the other, as users who left `overnight up` running have."""
    from flows.private_server import private_server  # imports Prefect's world, which light schedules do not need

    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    home.mkdir(parents=True, exist_ok=True)
    stack.enter_context(private_server(home, environ))
    return home / "prefect"


def _loopback_up() -> None:
    """A new network namespace has a loopback interface, and it is down."""
    name, up = b"lo", 0x1
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", name, up)
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What the tests of `Remote` and `Follower` share: orders, reproducible noise, a run being watched."""

from __future__ import annotations

import contextlib
import queue
import random
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from overnight.events import Ending, Exited, Killed, Lost, Output, RunEvent
from overnight.follow import Follower, RunCopy
from overnight.remote import RunBounds, SecretSlot, StartOrder

KEY = b"sk-fake-key-0123456789"
BOUNDS = RunBounds(total_s=60, grace_s=0.5, max_log_bytes=100_000_000, max_processes=200)
BLOCK = bytes(range(256)) * 1000


def noise(total_bytes: int, seed: int) -> str:
    """A program that writes that many reproducible bytes, NUL and invalid UTF-8 among them, with the key in between."""
    return (
        f"import os, random; r = random.Random({seed}); left = {total_bytes}\n"
        "while left > 0:\n"
        "    part = (r.randbytes(r.randrange(1, 70000)) + os.environ.get('A_KEY', '').encode())[:left]\n"
        "    os.write(1 + (r.random() < 0.2), part); left -= len(part)\n"
    )


def expected_noise(total_bytes: int, seed: int, key: bytes) -> tuple[bytes, bytes]:
    r, left = random.Random(seed), total_bytes
    streams = (bytearray(), bytearray())
    while left > 0:
        part = (r.randbytes(r.randrange(1, 70000)) + key)[:left]
        streams[r.random() < 0.2].extend(part)
        left -= len(part)
    return bytes(streams[0]), bytes(streams[1])


def order(run_id: str, argv: tuple[str, ...], *, secret: bool = False) -> StartOrder:
    slots = (SecretSlot("A_KEY", "zai"),) if secret else ()
    return StartOrder(run_id, "d1", argv, BOUNDS, env={"PATH": "/usr/bin:/bin", "HOME": "{home}"}, secrets=slots)


def shell(run_id: str, script: str) -> StartOrder:
    return order(run_id, ("/bin/sh", "-c", script))


def python(run_id: str, program: str, *, secret: bool = False) -> StartOrder:
    return order(run_id, (sys.executable, "-I", "-S", "-c", program), secret=secret)


def end_all(folder: Path) -> None:
    for process in psutil.process_iter(["environ"]):  # whatever a failed test left
        if str(folder) in (process.info["environ"] or {}).get("HOME", ""):
            with contextlib.suppress(psutil.Error):
                process.kill()


class Watching:
    """A run being watched, and what was told of it."""

    def __init__(
        self, follower: Follower, run_id: str, folder: Path, secrets: tuple[bytes, ...] = (), *, owns: bool = False
    ) -> None:
        self.events: queue.Queue[RunEvent] = queue.Queue()
        self.copy = RunCopy(folder / run_id, secrets, owns=owns)
        self.told: list[RunEvent] = []
        follower.watch(run_id, self.copy, self.events.put)

    def until(self, true: Callable[[RunEvent], bool], seconds: float = 30) -> RunEvent:
        while True:
            event = self.events.get(timeout=seconds)
            self.told.append(event)
            if true(event):
                return event

    def ending(self, seconds: float = 30) -> Ending:
        event = self.until(lambda event: isinstance(event, Exited | Killed | Lost), seconds)
        assert isinstance(event, Exited | Killed | Lost)
        self.copy.close()
        return event

    def bytes_told(self, stream: str) -> bytes:
        outputs = [event for event in self.told if isinstance(event, Output) and event.stream == stream]
        joined = b"".join(event.data for event in outputs)
        assert [event.offset for event in outputs] == [
            sum(len(before.data) for before in outputs[:n]) for n in range(len(outputs))
        ]
        return joined

    def copied(self, stream: str) -> bytes:
        return (self.copy.directory / stream).read_bytes()


def marked(process: psutil.Process, run_id: str) -> bool:
    living = process.status() != psutil.STATUS_ZOMBIE
    return living and (process.info["environ"] or {}).get("OVERNIGHT_RUN_ID") == run_id


def kill_supervisor(pid: int | None) -> None:
    """The supervisor is the parent of the main process."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    parent.kill()

"""Many cells at once, within what the machine can carry."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path

from overnight.rehearsal.matrix.case import Place
from overnight.rehearsal.matrix.cell import Bench, Cell, broken, run
from overnight.rehearsal.matrix.rootly import in_turn
from overnight.rehearsal.matrix.verdict import Result
from overnight.rehearsal.matrix.world import World

_GB_OF = {"opencode": 1.2, "qwen": 0.9, "copilot": 0.6}
_GB_OF_OTHERS = 0.4
_KEPT_GB = 2.0
_EACH_GB = 0.7
_PER_CORE = 10


def usual_slots() -> int:
    """So many runs at once: an agent that waits costs memory alone, one that starts a core."""
    return max(2, min(_PER_CORE * (os.cpu_count() or 1), int((free_gb() - _KEPT_GB) / _EACH_GB)))


def free_gb() -> float:
    """What processes can still have, caches given up."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**20
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def carry_out(world: World, cells: Sequence[Cell], slots: int, done: Callable[[Result], None]) -> list[Result]:
    """Every cell, those that wait longest first. A fault of ours in one is its result and never costs the others."""
    ordered = sorted(cells, key=lambda cell: (not _waits(cell), cell.harness not in _GB_OF))
    gate = threading.Semaphore(os.cpu_count() or 1)
    room = _Room(max(free_gb() - _KEPT_GB, 2 * max(_GB_OF.values())))
    results = []
    with ThreadPoolExecutor(slots, thread_name_prefix="cell") as pool:
        cell_of = {pool.submit(_one, cell, world, gate, room): cell for cell in ordered}
        try:
            for future in as_completed(cell_of):
                error = future.exception()
                result = future.result() if error is None else broken(cell_of[future], error)
                results.append(result)
                done(result)
        except BaseException:
            _end(world.bench, list(cell_of))
            raise
    return results


def _end(bench: Bench, futures: Sequence[Future[Result]]) -> None:
    """What runs is ended on its host; what has not begun never begins."""
    for future in futures:
        future.cancel()
    bench.night.stop("cancel")


def _waits(cell: Cell) -> bool:
    return cell.case.silent or cell.case.own_waits


def _one(cell: Cell, world: World, gate: threading.Semaphore, room: _Room) -> Result:
    with room.taken(_GB_OF.get(cell.harness, _GB_OF_OTHERS)), in_turn(cell.case.place is Place.SMALL_MEMORY):
        if world.bench.night.interrupted.is_set():
            raise CancelledError
        return run(cell, world.tasks[cell.name], world.bench, gate)


class _Room:
    """Memory, handed out."""

    def __init__(self, gb: float) -> None:
        self._left = gb
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, gb: float) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= gb)
            self._left -= gb
        try:
            yield
        finally:
            with self._changed:
                self._left += gb
                self._changed.notify_all()

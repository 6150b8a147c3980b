"""Plays a schedule: starts the batch, lets the faults happen, resumes what was killed, until every run is decided."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.chaos.faults import Hit, Undo, healed, strike
from tests.chaos.schedule import Fault
from tests.chaos.world import World, settled

TICK_S = 0.05
TARGET_S = 4.0  # so long a fault waits for something to hit
STARTS = 12
WALL_S = 120.0


@dataclass
class _Lasting:
    """A fault that happened and is to be healed."""

    hit: Hit
    undo: Undo
    until: float


@dataclass
class Played:
    """What happened: every hit, how the last controller ended, and why it did not come to an end, if so."""

    hits: list[Hit] = field(default_factory=list)
    exit_code: int | None = None
    stuck: str = ""
    starts: int = 0


class Player:
    """One schedule under way."""

    def __init__(self, here: World) -> None:
        self._here = here
        self._waiting = list(here.schedule.faults)
        self._lasting: list[_Lasting] = []
        self._anchors: dict[str, float] = {}
        self._played = Played()
        self._began = time.monotonic()
        self._started_at = 0.0

    def play(self) -> Played:
        """Until the batch has a report in which nothing is left running; or the time is up."""
        self._start()
        try:
            while not self._over():
                self._anchor()
                self._strike()
                self._heal(time.monotonic())
                time.sleep(TICK_S)
        finally:
            self._heal(float("inf"))
        for twin in self._here.twins:
            twin.wait(30)
        return self._played

    def _start(self) -> None:
        self._started_at = time.time()
        self._played.starts += 1
        self._here.start()

    def _over(self) -> bool:
        process = self._here.controller
        if time.monotonic() - self._began > WALL_S:
            self._played.stuck = f"no end after {WALL_S:.0f} s and {self._played.starts} starts"
            return True
        if process is None or process.poll() is None:
            return False
        self._played.exit_code = process.returncode
        if settled(self._here, self._started_at):
            return True
        if any(each.hit.kind == "kill-controller" for each in self._lasting):
            return False  # its user sleeps on
        if self._played.starts >= STARTS:
            self._played.stuck = f"{STARTS} starts did not bring it to an end"
            return True
        if process.returncode >= 0:  # it gave up by itself: whoever starts it again has mended what was wrong
            self._heal(float("inf"))
            time.sleep(0.5)
        self._start()
        return False

    def _anchor(self) -> None:
        now = time.monotonic()
        if "start" not in self._anchors and self._here.batch_id:
            self._anchors["start"] = now
        if "running" not in self._anchors and self._here.running():
            self._anchors["running"] = now

    def _due(self, fault: Fault) -> float:
        return self._anchors.get(fault.after, float("inf")) + fault.at_s

    def _strike(self) -> None:
        now = time.monotonic()
        for fault in [fault for fault in self._waiting if self._due(fault) <= now]:
            if self._blocked(fault):
                continue
            struck = strike(self._here, fault)
            if struck is None:
                if now > self._due(fault) + TARGET_S:
                    self._waiting.remove(fault)
                continue
            self._waiting.remove(fault)
            hit, undo = struck
            self._played.hits.append(hit)
            if undo is not None:
                self._lasting.append(_Lasting(hit, undo, time.monotonic() + fault.lasts_s))

    def _blocked(self, fault: Fault) -> bool:
        """A machine bears one lasting fault at a time: one that is gone cannot be thawed."""
        return any(each.hit.host == fault.host and each.hit.host for each in self._lasting)

    def _heal(self, now: float) -> None:
        for each in [each for each in self._lasting if each.until <= now]:
            self._lasting.remove(each)
            each.undo()
            self._played.hits[self._played.hits.index(each.hit)] = healed(each.hit)

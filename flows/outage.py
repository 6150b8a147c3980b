"""A host that cannot be heard: its tasks keep their slots, and the batch waits for it as for a run of its own."""

from __future__ import annotations

import random
import time

from overnight.failures import Failure, FailureKind, HostError
from overnight.night import Night
from overnight.spec import TaskSpec
from overnight.station import GIVE_UP_S, Station
from tasks.calls import in_thread

AWAY_S = GIVE_UP_S
ELSEWHERE_S = 120.0
LOOK_S = 15.0
_JITTER = random.SystemRandom()


def is_away(failure: Failure) -> bool:
    """Whether only the way to the host is missing, for which nothing of a task can be blamed."""
    return failure.kind is FailureKind.HOST_UNREACHABLE


class Patience:
    """How long one attempt waits for its host, over all the times that it goes away."""

    def __init__(self, night: Night, task: TaskSpec, run_id: str) -> None:
        self._night = night
        self._task = task
        self._run_id = run_id
        self._until: float | None = None

    async def lasts(self) -> bool:
        """Wait until the host answers; False when it stayed away, or somebody wants the end meanwhile.

        After AWAY_S it is given up, and whoever misses it later waits no more. A task that never began there and
        has another route goes there after ELSEWHERE_S.
        """
        night, task = self._night, self._task
        station = night.stations[task.route.host]
        if station.given_up:
            return False
        goes = len(task.routes) > 1 and not night.ledger.planned(self._run_id)
        away_s = min(ELSEWHERE_S, AWAY_S) if goes else AWAY_S
        night.tell(task.id, "link", f"waiting for {station.name}, up to {away_s / 60:.0f} min")
        self._until = self._until or time.monotonic() + away_s
        while time.monotonic() < self._until:
            pause = time.monotonic() + LOOK_S * _JITTER.uniform(0.5, 1.0)
            while time.monotonic() < pause:
                if night.wish(task.id) is not None:
                    return False
                await in_thread(night.interrupted.wait, min(1.0, LOOK_S))
            if await in_thread(_answers, station):
                return True
        station.given_up = station.given_up or not goes
        return False


def _answers(station: Station) -> bool:
    try:
        station.remote.host.connect()
    except HostError:
        return False
    return True

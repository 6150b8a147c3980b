"""A host that cannot be heard: its tasks keep their slots, and the batch waits for it as for a run of its own."""

from __future__ import annotations

import random
import time

from overnight.failures import FailureKind, HostError
from overnight.night import Night
from overnight.report import RunReport
from overnight.spec import TaskSpec
from overnight.station import GIVE_UP_S, Station
from tasks.calls import in_thread

AWAY_S = GIVE_UP_S
LOOK_S = 15.0
_JITTER = random.SystemRandom()


def is_unheard(night: Night, run: RunReport) -> bool:
    """Whether an attempt is undecided only because its host is out of reach."""
    failure = run.failure
    out_of_reach = failure is not None and failure.kind is FailureKind.HOST_UNREACHABLE
    return out_of_reach and night.ledger.outcome(run.run_id) is None


async def heard_again(night: Night, task: TaskSpec, since: float) -> bool:
    """Wait for the host of a task; False when it stayed away, or somebody wants the end meanwhile.

    After AWAY_S it is given up, and whoever misses it later waits no more.

    Args:
        since: When it was first missed, as `time.monotonic` has it.
    """
    station = night.stations[task.route.host]
    if station.given_up:
        return False
    night.tell(task.id, "link", f"waiting for {station.name}, up to {AWAY_S / 60:.0f} min")
    while time.monotonic() - since < AWAY_S:
        pause = time.monotonic() + LOOK_S * _JITTER.uniform(0.5, 1.0)
        while time.monotonic() < pause:
            if night.wish(task.id) is not None:
                return False
            await in_thread(night.interrupted.wait, min(1.0, LOOK_S))
        if await in_thread(_answers, station):
            return True
    station.given_up = True
    return False


def _answers(station: Station) -> bool:
    try:
        station.remote.host.connect()
    except HostError:
        return False
    return True

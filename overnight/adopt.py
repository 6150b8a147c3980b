"""Runs that were found on a host without their records: followed to their end, and brought home."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from overnight.collected import Collected
from overnight.events import Ending, Exited, Killed, Lost, Output, RunEvent
from overnight.git import Repo
from overnight.handle import RunHandle
from overnight.runcopy import RunCopy, Stream
from overnight.spec import Limits
from overnight.station import GIVE_UP_S, TICK_S
from overnight.sweep import Found, Place

_BEYOND = 1 << 62  # no log ends there: a follower that is asked from here on sends no byte of it


@dataclass(frozen=True)
class Stray:
    """What is known of a run whose plan is gone: enough to collect it, as `refs/overnight/adopted/RUN_ID/...`."""

    run_id: str
    names: Mapping[str, str]
    batch_id: str = ""
    task_id: str = ""
    branch: str = ""
    approve: bool = True
    limits: Limits = field(default_factory=Limits)


def adopt(place: Place, found: Found, repo: Repo) -> Collected:
    """Bring home what an unknown run committed, as `refs/overnight/adopted/RUN_ID/...`. No branch is touched.

    Reads beside the run, in a folder that its own controller does not use.

    Args:
        repo: The repository the run was made from.

    Raises:
        CollectError: with the place where the work still lies.
        HostError: the connection failed.
    """
    stray = Stray(f"adopted/{found.run_id}", {"host": place.name})
    folder = place.folder(found.run_id)
    handle = RunHandle(
        run_id=stray.run_id,
        host=place.name,
        run_dir=f"{folder}/adopted",
        work_dir=f"{folder}/work",
        base_sha=found.base_sha or "",
        started_at=datetime.now().astimezone() - timedelta(seconds=found.started_s or 0),
    )
    return place.station.workspaces.collect(stray, handle, repo)


class Unread(RunCopy):
    """Stands where no copy may be made: without the key it could not be masked. Asks for no byte of the output."""

    def __init__(self) -> None:
        """No folder, no file."""

    def rewind(self) -> None:
        """Nothing is held."""

    def safe(self) -> None:
        """Nothing is here."""

    def offset(self, stream: Stream) -> int:  # noqa: ARG002  # the same for both
        return _BEYOND

    def flush(self, stream: Stream) -> Output | None:  # noqa: ARG002  # as above
        return None

    def masked(self, record: Any) -> Any:
        return record

    def close(self) -> None:
        """Nothing is open."""


def followed(
    place: Place,
    copies: Mapping[str, RunCopy],
    *,
    end: bool = False,
    give_up_s: float = GIVE_UP_S,
) -> Iterator[tuple[str, Ending | None]]:
    """Each run with how it ended, as they end; blocks. An orphan is ended, since nobody would enforce its limits.

    Args:
        copies: Run id -> where its output goes; what a copy holds already is not asked for again.
        end: Ask for their end, instead of waiting for it.
        give_up_s: Without a word from the host for so long, the rest come with None.
    """
    events: queue.Queue[tuple[str, RunEvent]] = queue.Queue()
    waiting = set(copies)
    follower, heard = place.station.follower, time.monotonic()
    for run_id, copy in copies.items():
        follower.watch(run_id, copy, _sink(run_id, events))
        if end:
            follower.cancel(run_id)
    try:
        while waiting and time.monotonic() - heard <= give_up_s:
            try:
                run_id, event = events.get(timeout=TICK_S)
            except queue.Empty:
                continue
            heard = time.monotonic()
            if isinstance(event, Exited | Killed | Lost):
                waiting.discard(run_id)
                yield run_id, event
        for run_id in sorted(waiting):
            yield run_id, None
    finally:
        for run_id, copy in copies.items():
            follower.unwatch(run_id)
            copy.close()


def _sink(run_id: str, events: queue.Queue[tuple[str, RunEvent]]) -> Callable[[RunEvent], None]:
    return lambda event: events.put((run_id, event))

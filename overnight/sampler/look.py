"""What one run is doing just now: two looks at it, a moment apart, as plain data."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from overnight.sampler.kernel import Kernel
from overnight.sampler.notes import Notes
from overnight.sampler.surroundings import load, memory, oom_kills, repository, room, speech, work_folder, work_tree
from overnight.sampler.tools import Tools

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]


def sampled(run: Any, seconds: float, supervisor: Json) -> Json:
    """The record of one run.

    Args:
        run: Its RunDir.
        seconds: Between the looks; it takes that long.
        supervisor: The names of the supervisor file, which knows what a run directory means.
    """
    started = run.read("started.json") or {}
    notes = Notes()
    there = os.path.exists("/proc/self/stat")
    eyes = Kernel(run, started, supervisor, notes) if there else Tools(run, started, notes)
    first, began = eyes.look(), time.monotonic()
    time.sleep(seconds)
    second, now = eyes.look(), time.monotonic()
    record: Json = {"schema": 1, "system": sys.platform, "seconds": round(now - began, 3)}
    record["at_s"] = round(now - started["boot_s"], 2) if started else None
    record.update(ended=os.path.exists(run.at("exit.json")), supervised=run.supervised())
    if first is not None and second is not None:
        record.update(came=len(second.keys() - first.keys()), went=len(first.keys() - second.keys()))
        record.update(eyes.tell(first, second))
    folder = work_folder(supervisor, run)
    notes.into(record, "load", load)
    notes.into(record, "memory", memory)
    notes.into(record, "out of memory", oom_kills, supervisor, started)
    notes.into(record, "output", speech, run)
    notes.into(record, "disk of the run", room, "run", run.path)
    notes.into(record, "disk of the work tree", room, "work", folder)
    notes.into(record, "work tree", work_tree, supervisor, folder)
    notes.into(record, "repository", repository, folder)
    record["missing"] = notes.missing
    return record

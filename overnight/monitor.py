"""One run followed to its end: what it says is told and written down, and so is how it was judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from overnight.guard import Guard
from overnight.ledger import Ledger
from overnight.runcopy import gaps
from overnight.stages import Watched
from overnight.station import Interrupt, Station
from overnight.stop import Stop
from overnight.transcript import Said
from overnight.watch import describe


def watched(
    guard: Guard,
    station: Station,
    ledger: Ledger,
    key: str,
    tell: Callable[[str], None],
    interrupted: Callable[[], Interrupt | None],
) -> Watched:
    """Follow the guard's run until it ends, is ended for a cause, or is left. Blocks.

    Goes on from what an earlier controller copied and decided.
    """
    watch, plan, began = guard.watch, guard.watch.plan, time.monotonic()
    guard.stop = ledger.stop(plan.run_id)

    def note(said: Said) -> None:
        words = describe(said.event)
        ledger.log(plan.run_id, datetime.now(UTC), "agent", at_s=round(said.at_s, 1), said=words)
        tell(words)

    def stopping(stop: Stop) -> None:
        ledger.save(plan.run_id, "stopped", stop)
        tell(f"ending it: {stop.failure.brief if stop.failure else stop.rule}")

    directory = ledger.run_dir(plan.run_id)
    try:
        lost = station.attend(plan, directory, key, guard, tell=note, interrupted=interrupted, stopping=stopping)
        if watch.ending is not None:
            guard.conclude()
    finally:
        guard.close()
    for gap in gaps(directory):
        ledger.log(plan.run_id, datetime.now(UTC), "gap", words=str(gap))
        tell(str(gap))
    named_at = guard.stop.named_at if guard.stop else datetime.now(UTC)
    ending, audit = watch.ending, guard.audit()
    ledger.log(
        plan.run_id,
        datetime.now(UTC),
        "ended" if ending else "left",
        stopped=audit.rule,
        running=list(audit.running) or None,
        looked=str(guard.standing.shown) if guard.standing else "",
        lost=str(lost or ""),
        **({"ending": type(ending).__name__.lower(), **asdict(ending)} if ending else {}),
    )
    return Watched(guard, lost, time.monotonic() - began, named_at)

"""A batch in this process, and who watches it: a terminal, a log, or nobody."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from blocks.keys import reveal
from flows.patience import patiently_here
from overnight import lockfile
from overnight.harnesses import HARNESSES, take_up
from overnight.ledger import Ledger
from overnight.night import Night


def _nobody(_where: str, _stage: str, _words: str) -> None:
    pass


def _nothing(_night: Night) -> None:
    pass


@dataclass(frozen=True)
class Desk:
    """Callbacks of the watcher. `tell` may be called from any thread."""

    tell: Callable[[str, str, str], None] = _nobody
    opened: Callable[[Night], None] = _nothing


DESK: ContextVar[Desk] = ContextVar("DESK", default=Desk())  # noqa: B039  # Desk is frozen


def night_of(ledger: Ledger) -> Night:
    """A recorded batch, ready to be carried out, with its own lock and the keys of this process.

    Raises:
        BadInput: its record does not read, or a harness that the environment declares.
    """
    take_up(os.environ)
    lock_path = ledger.directory / "lock.json"
    return Night(
        batch=ledger.reopen()[0],
        ledger=ledger,
        lock=lockfile.load(lock_path),
        lock_path=lock_path,
        harnesses=HARNESSES,
        reveal=lambda provider: patiently_here(lambda: reveal(provider, os.environ)),
        search_path=os.environ.get("PATH", os.defpath),
        tell=DESK.get().tell,
    )

"""Who watches a batch from this process: a terminal, a log, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

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

"""What a schedule decides, and what it keeps of each task."""

from __future__ import annotations

from dataclasses import dataclass, field

from overnight.breaker import Breaker, State
from overnight.failures import Failure
from overnight.report import PassedOver
from overnight.route import Route
from overnight.spec import TaskSpec


@dataclass(frozen=True)
class Start:
    """Begin an attempt. `adopted`: it lives on its host already and is only followed."""

    task_id: str
    attempt: int
    route: Route
    passed_over: tuple[PassedOver, ...] = ()
    canary: bool = False
    adopted: bool = False


@dataclass(frozen=True)
class Over:
    """No further attempt. `why` is None when its last one decides, and else what keeps the next from starting."""

    task_id: str
    why: Failure | None
    passed_over: tuple[PassedOver, ...] = ()


@dataclass(frozen=True)
class Turned:
    """A breaker changed its state."""

    key: str
    state: State
    breaker: Breaker
    route: Route


Decision = Start | Over | Turned


@dataclass
class Task:
    """How a task stands. `left` are the routes it must not take again, `undecided`: its last attempt may go on."""

    spec: TaskSpec
    order: tuple[Route, ...]
    failures: list[Failure] = field(default_factory=list)
    not_before: float = 0.0
    left: dict[Route, Failure] = field(default_factory=dict)
    running: Route | None = None
    adopted: Route | None = None
    rests: bool = False
    over: bool = False
    well: bool = False
    undecided: bool = False
    refused: Failure | None = None


@dataclass(frozen=True)
class Wait:
    """Not now. `until` is None when an event has to come first."""

    until: float | None

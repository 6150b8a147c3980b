"""What one seed means: the batch, the faults and their moments. Pure, so that a seed can be played again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill-controller",
    "kill-prefect",
    "kill-supervisor",
    "kill-agent",
    "kill-sshd",
    "cut",
    "slow",
    "reset",
    "fill-disk",
    "freeze",
    "jump-clock",
    "reboot",
    "twin",
    "cancel",
]
Shape = Literal["good", "daemon", "chatty", "idle", "crash", "endless", "loud"]
Controller = Literal["batch", "light"]

HOSTS = ("h1", "h2", "h3")
LONG_CUT_S = 14.5  # longer than the 13 s after which a silent link is given up

_WEIGHTS: dict[Kind, int] = {
    "kill-controller": 5,
    "kill-prefect": 2,
    "kill-supervisor": 2,
    "kill-agent": 2,
    "kill-sshd": 2,
    "cut": 2,
    "slow": 1,
    "reset": 2,
    "fill-disk": 2,
    "freeze": 2,
    "jump-clock": 2,
    "reboot": 2,
    "twin": 1,
    "cancel": 2,
}
_SHAPES: dict[Shape, int] = {"good": 8, "daemon": 3, "chatty": 4, "idle": 1, "crash": 1, "endless": 1, "loud": 1}
_WANT_PREFECT = ("kill-prefect",)


@dataclass(frozen=True)
class Work:
    """One task: what its agent will do. Commits come after `waits` seconds each; `blob` bytes are printed between."""

    task_id: str
    host: str
    shape: Shape
    waits: tuple[float, ...]
    blob: int
    seed: int
    verified: bool


@dataclass(frozen=True)
class Fault:
    """One fault, `at_s` after the batch was recorded (`start`) or after the first agent ran (`running`).

    `pick` chooses among what is there to be hit; `lasts_s` is 0 for what is over at once. `by_hand` is the other way
    of a fault that has two: a cancel by command, a supervisor with its agent.
    """

    kind: Kind
    after: Literal["start", "running"]
    at_s: float
    lasts_s: float
    host: str
    pick: int
    by_hand: bool

    def __str__(self) -> str:
        where = f" {self.host}" if self.kind in ON_HOSTS else ""
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.kind}{where} {self.at_s:.1f} s after {self.after}{lasts}"


ON_HOSTS = frozenset({"kill-sshd", "cut", "slow", "reset", "fill-disk", "freeze", "jump-clock", "reboot"})


@dataclass(frozen=True)
class Schedule:
    """One batch and all that will happen to it. `attempts` is the batch file's limit of tries for a task."""

    seed: int
    controller: Controller
    slots: int
    attempts: int
    work: tuple[Work, ...]
    faults: tuple[Fault, ...]


def draw(seed: int) -> Schedule:
    """The schedule of a seed; the same for ever, on every machine."""
    chance = random.Random(f"overnight chaos {seed}")
    kinds = _kinds(chance)
    real = any(kind in _WANT_PREFECT for kind in kinds) or chance.random() < 0.12
    faults = sorted((_fault(chance, kind) for kind in kinds), key=lambda fault: (fault.after == "running", fault.at_s))
    work = tuple(_work(chance, number) for number in range(chance.randint(3, 6)))
    # a full disk is worth another try after half a minute, and a schedule has no such time
    attempts = 1 if "fill-disk" in kinds else chance.choice((1, 2, 2))
    return Schedule(seed, "batch" if real else "light", chance.randint(1, 3), attempts, work, tuple(faults))


def _kinds(chance: random.Random) -> list[Kind]:
    """One to four faults; one cancel at most, for after it there is nothing left to be hit."""
    drawn = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=chance.choice((1, 2, 2, 3, 3, 4)))
    kinds: list[Kind] = []
    for kind in drawn:
        if kind not in ("cancel", "twin", "kill-prefect", "jump-clock") or kind not in kinds:
            kinds.append(kind)
    return kinds


def _fault(chance: random.Random, kind: Kind) -> Fault:
    after: Literal["start", "running"] = chance.choices(("start", "running"), (1, 3))[0]
    lasts_s = 0.0
    if kind in ("cut", "slow", "fill-disk", "freeze", "kill-sshd", "reboot", "kill-controller"):
        lasts_s = round(chance.uniform(0.3, 4.0), 2)
    if kind == "cut" and chance.random() < 0.15:
        lasts_s = LONG_CUT_S
    at_s = round(chance.uniform(0.0, 4.0), 2)
    return Fault(kind, after, at_s, lasts_s, chance.choice(HOSTS), chance.randrange(1000), chance.random() < 0.5)


def _work(chance: random.Random, number: int) -> Work:
    shape: Shape = chance.choices(list(_SHAPES), list(_SHAPES.values()))[0]
    waits = tuple(round(chance.uniform(0.1, 1.8), 2) for _ in range(chance.randint(1, 3)))
    blob = chance.choice((0, 3_000, 40_000)) if shape != "chatty" else 300_000
    return Work(f"t{number}", chance.choice(HOSTS), shape, waits, blob, chance.randrange(10**6), chance.random() < 0.3)

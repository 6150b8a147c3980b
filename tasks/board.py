"""The board of a batch: a progress artifact that is true while the batch runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import get_args
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from overnight.night import Night
from overnight.report import RunReport, State
from tasks.calls import in_thread
from tasks.pages import key, written

LOOK_S, AWAY_S = 1.0, 60.0


async def open_board(night: Night) -> Board:
    """Put the board of a batch up. Called in the flow run that it belongs to."""
    board = Board(night)
    await board.show()
    board.watch()
    return board


class Board:
    """How far a batch is: `3 of 12 decided: 2 succeeded, 1 failed; 4 running`.

    Looks once a second and writes when the words have changed, beside the
    flow's own work. It ends by itself with the last task. An API that is away
    is asked again once a minute; it delays the last word by 20 s and nothing else.
    """

    def __init__(self, night: Night) -> None:
        self._night = night
        self._states: dict[str, str] = {}
        self._id: UUID | None = None
        self._shown = ""
        self._watching: asyncio.Task[None] | None = None

    async def decided(self, run: RunReport) -> None:
        """A task has come to its end, for this start of the batch. The last one is on the board when this returns."""
        self._states[run.task_id] = "left running" if run.left_running else run.state
        if len(self._states) == len(self._night.batch.tasks):
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.wait([self._watching])
            await self.show()

    @property
    def progress(self) -> float:
        """Per cent of the tasks that are decided; one that was left running is not."""
        over = sum(state != "left running" for state in self._states.values())
        return 100.0 * over / len(self._night.batch.tasks)

    async def words(self) -> str:
        counted = Counter(self._states.values())
        left = counted.pop("left running", 0)
        states = ", ".join(f"{counted[state]} {state}" for state in get_args(State) if counted[state])
        living = await in_thread(self._night.ledger.living)
        running = sum(task.id in living for task in self._night.batch.tasks if task.id not in self._states)
        rest = "".join(f"; {n} {state}" for state, n in (("left running", left), ("running", running)) if n)
        return f"{counted.total()} of {len(self._night.batch.tasks)} decided{': ' if states else ''}{states}{rest}"

    async def show(self) -> bool:
        """Write the board as it is now, unless it says so already; False when the API did not take it."""
        words = await self.words()
        if words == self._shown:
            return True
        if self._id is None:
            done = await written(self._create(words))
        else:
            done = await written(aupdate_progress_artifact(self._id, self.progress, words))
        if done:
            self._shown = words
        return done

    async def _create(self, words: str) -> None:
        name = key(self._night.batch.name, "progress")
        self._id = await acreate_progress_artifact(self.progress, key=name, description=words)

    def watch(self) -> None:
        """Go on showing, until the last task is decided."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        pause = LOOK_S
        while True:
            await asyncio.sleep(pause)
            pause = LOOK_S if await self.show() else AWAY_S

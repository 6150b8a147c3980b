"""Judges every followed run of a host in one thread.

With a thread woken for each event, 500 runs took a quarter of a core; so they take a
twentieth (`python -m tests.bench.streams`, 2026-11-29).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from typing import Literal

from overnight.events import RunEvent, Sampled
from overnight.failures import Failure
from overnight.guard import Guard
from overnight.stop import Stop
from overnight.transcript import Said

TICK_S, TICK_MOST_S = 0.5, 1.0
TICK_RUN_S = 0.004
"""Each run adds so much: a look at all of them is no news of any."""
GATHER_S = 0.1
"""What comes within so long of the first news is judged with it."""
# after this long without a link, past the run's own limit, we stop waiting for news of it
GIVE_UP_S = 3600.0
# so long for a host that is asked to end something: it is heard every 5 s while there is a link
GONE_S = 45.0
_ASK_AGAIN_S = 5.0

Interrupt = Literal["cancel", "detach"]


@dataclass(frozen=True)
class Say:
    """Whom an attended run is told of, and whom it asks. All are called in each turn and must return soon.

    `event` hears of each agent event worth a line, `stopping` why we are about to
    ask for the run's end, before we do: it must survive us. `wish` answers
    `cancel` to end the run, `detach` to leave it. `cancel` asks the host for its
    end, `lost` words that nothing was heard of it for so many seconds.
    """

    event: Callable[[Said], None]
    stopping: Callable[[Stop], None]
    wish: Callable[[], Interrupt | None]
    cancel: Callable[[], None]
    lost: Callable[[float], Failure]


class Attended:
    """One run that is judged as its news come. `outcome` gives why we lost sight of it, None when we did not."""

    def __init__(self, guard: Guard, say: Say, give_up_s: float) -> None:
        self.guard = guard
        self.events: deque[RunEvent] = deque()
        self.outcome: Future[Failure | None] = Future()
        self._say = say
        self._give_up_s = give_up_s
        self._cancelled = False
        self._told = guard.stop is not None
        self._asked_at = 0.0
        self._judged_at = 0.0
        self._news_at = time.monotonic()
        self._context = copy_context()  # who is told of it may look there for the flow run

    def due(self, now: float, tick_s: float) -> bool:
        """Whether there is news of it, or its clocks have to be looked at."""
        return bool(self.events) or now - self._judged_at >= tick_s

    def turn(self, now: float) -> bool:
        """Judge what came; False once the outcome is known."""
        try:
            return self._context.run(self._turn, now)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits for the outcome
            self.outcome.set_exception(error)
            return False

    def leave(self) -> None:
        """Nobody here attends it any more; it goes on."""
        self.outcome.set_result(None)

    def _turn(self, now: float) -> bool:
        self._judged_at = now
        self._take(now)
        stop = self.guard.decide()
        if stop is not None and not self._told:
            self._say.stopping(stop)
            self._told = True
        wish = self._say.wish()
        if wish == "detach" or self.guard.watch.ending is not None:
            self.outcome.set_result(None)
            return False
        self._cancelled = self._cancelled or wish == "cancel"
        if ((stop and self.guard.ready) or self._cancelled) and now - self._asked_at > _ASK_AGAIN_S:
            self._say.cancel()
            self._asked_at = now
        if now - self._news_at > (GONE_S if self._cancelled else self._give_up_s):
            self.outcome.set_result(self._say.lost(now - self._news_at))
            return False
        return True

    def _take(self, now: float) -> None:
        while self.events:
            self._news_at = now
            event = self.events.popleft()
            if isinstance(event, Sampled):
                self.guard.heard(event)
                continue
            for said in self.guard.watch.take(event):
                self._say.event(said)


class Attendance:
    """The runs of one host, judged in turns: those with news at once, all of them every tick. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._attended: list[Attended] = []
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def add(self, attended: Attended) -> None:
        """Judge it from now on, until its outcome is known or `close`."""
        with self._lock:
            if self.closed:
                attended.leave()
                return
            self._attended.append(attended)
            if self._thread is None:
                self._thread = threading.Thread(target=self._judge, name=f"judge {self._name}", daemon=True)
                self._thread.start()

    def hear(self, attended: Attended, event: RunEvent) -> None:
        """Something came of it; returns at once."""
        attended.events.append(event)
        if not self._news.is_set():
            self._news.set()

    def close(self) -> None:
        """Leave every run."""
        self._closed.set()
        self._news.set()

    def _judge(self) -> None:
        while not self.closed:
            if self._news.wait(TICK_S):
                self._closed.wait(GATHER_S)
                self._news.clear()
            now = time.monotonic()
            with self._lock:
                tick_s = min(TICK_MOST_S, max(TICK_S, TICK_RUN_S * len(self._attended)))
                turns = [each for each in self._attended if each.due(now, tick_s)]
            over = {each for each in turns if not each.turn(now)}
            if over:
                with self._lock:
                    self._attended = [each for each in self._attended if each not in over]
        with self._lock:
            for each in self._attended:
                each.leave()

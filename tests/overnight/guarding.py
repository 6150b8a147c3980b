"""A guarded run whose host and route answer as they are told. Real ones are in test_silent_runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from overnight.events import RunEvent, Sampled
from overnight.failures import Evidence, FailureKind
from overnight.guard import Guard
from overnight.harnesses import HARNESSES
from overnight.lockfile import Header
from overnight.probe import Direct, HeaderReply
from overnight.reprobe import Agents, Reprobed, Reprobes
from overnight.sample import Process, Sample, Socket
from overnight.spec import Limits
from overnight.stop import Stop
from overnight.watch import Watch
from tests.overnight.samples import LOCK, plan
from tests.overnight.test_watch import INIT, STARTED, beat, out

K = FailureKind
LIMITS = Limits(first_event_s=60, quiet_s=420, no_change_s=900, total_s=7200)
AGENT = Process(1, main=True, command="claude -p x", state="S", age_s=501, cpu_delta_s=0)
ASKING = Socket(1, "ESTABLISHED", "10.1.1.1:443", sent_bytes=50_000, last_sent_s=489, last_received_s=490)
WAITING = Sample(at_s=501, seconds=1, processes=(AGENT,), sockets=(ASKING,))
TESTING = Sample(at_s=501, seconds=1, processes=(AGENT, Process(2, command="pytest", age_s=480, cpu_delta_s=0.9)))
SLEEPING = Sample(
    at_s=501, seconds=1, processes=(AGENT, Process(2, command="sleep 9", age_s=480, waits_in="nanosleep"))
)
IDLE = Sample(at_s=501, seconds=1, processes=(AGENT,))
QUIET: list[RunEvent] = [STARTED, beat(1), out(INIT), beat(500, quiet_s=490)]


def reply(kind: K | None, status: int | None = 200, source: str = "http") -> HeaderReply:
    seen = Evidence.model_validate({"source": source, "seen": f"HTTP {status}"})
    return HeaderReply(header=Header.BEARER, status=status, seconds=0.1, kind=kind, evidence=seen)


class Scene:
    """A guard over a run of Claude Code, with a clock, a host and a route that answer as they are told."""

    def __init__(self, *events: RunEvent, direct: HeaderReply | None = None, agent: Agents | None = None) -> None:
        self.now = 1000.0
        self.looks = 0
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        watch = Watch(plan(limits=LIMITS), HARNESSES["claude-code"], LOCK.providers["zai"].errors, lambda: 0.0)
        found = Direct(direct or reply(None))

        def call(name: str, answer: Reprobed) -> Callable[[float], Reprobed]:
            def asking(_timeout_s: float) -> Reprobed:
                self.asked.append(name)
                self.gate.wait()
                return answer

            return asking

        both = Reprobed(500.0, found, agent or Agents())
        self.guard = Guard(watch, Reprobes(call("direct", Reprobed(2.0, found)), call("both", both)), lambda: self.now)
        self.guard.looks_with(self._look)
        for event in events:
            watch.take(event)

    def _look(self) -> None:
        self.looks += 1

    def sees(self, sample: Sample | None, error: str = "") -> Stop | None:
        """Begin to doubt, hear this look, and let what is asked of the route be answered."""
        assert self.guard.decide() is None
        assert self.looks == 1
        self.guard.heard(Sampled(sample, error))
        return self.settles()

    def settles(self) -> Stop | None:
        """Decide until there is a decision, or nothing more is asked."""
        found, quiet_until = self.guard.decide(), time.monotonic() + 0.5
        while found is None and time.monotonic() < quiet_until:
            before = len(self.asked)
            time.sleep(0.01)
            found = self.guard.decide()
            quiet_until += 0.5 * (len(self.asked) - before)
        return found

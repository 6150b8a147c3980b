"""Watches one run: takes what the host and the agent say, and says when to stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from overnight.events import Act, AgentEvent, Ending, Exited, Heartbeat, Killed, Lost, Output, RunEvent, Started
from overnight.failures import Failure
from overnight.harnesses.protocol import Harness
from overnight.lockfile import ErrorRule
from overnight.meter import Meter
from overnight.plan import RunPlan
from overnight.silence import Progress, Silence, judge
from overnight.transcript import Said, Transcript

# between two heartbeats our own clock goes on from the last one, but no further than this: the link may be down
_AHEAD_S = 5.0
# heartbeats come every few seconds; further apart, there was a break between them
_BREAK_S = 30.0
# the model's turn begins with these and ends with those
_ASKED = (Act.INIT, Act.WAITING, Act.RETRYING, Act.TOOL_ENDED)
_ANSWERED = (Act.TOOL_STARTED, Act.TOOL_RUNNING, Act.RESULT)
_GOOD = (Act.SPOKE, Act.TOOL_STARTED, Act.TOOL_ENDED, Act.COMMITTED)
_SHOWN = (Act.INIT, Act.RETRYING, Act.TOOL_STARTED, Act.COMMITTED, Act.DENIED, Act.ERROR, Act.RESULT)


class Watch:
    """State of one followed run. Feed it every event in order; ask `proven` and `silence` after each, and every second.

    Silence is judged by the host's heartbeats only: while the link is down no
    time passes here, so a lost connection is never a silent agent. The first
    heartbeat after a break comes before the output that piled up meanwhile, so
    the first event is missed only when the heartbeat before it missed it, too.
    `came_through` is called once, at the first event that shows the model answering.

    `first_event_s` stays None when nobody knows when the first event came: it
    was read from an earlier controller's copy, or after a break.
    """

    def __init__(
        self,
        plan: RunPlan,
        harness: Harness,
        rules: Sequence[ErrorRule],
        clock: Callable[[], float] = time.monotonic,
        came_through: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._came_through: Callable[[], None] | None = came_through
        self._noted_at: float | None = None
        self.plan = plan
        self._harness = harness
        self._rules = rules
        self._reader = harness.reader()
        self.names = plan.route.names
        self._beat: Heartbeat | None = None
        self._beat_before: Heartbeat | None = None
        self._live = False
        self._spoke = False
        self._heard = False
        self._asked_s: float | None = None
        self._progress: Progress | None = None
        self._stale = True
        self.transcript = Transcript()
        self.meter = Meter()
        self.first_event_s: float | None = None

    @property
    def ending(self) -> Ending | None:
        return self.transcript.ending

    @property
    def age_s(self) -> float:
        """Seconds since the run started, as well as it is known here; for showing, not for judging silence."""
        if self._noted_at is None:
            return 0.0
        return (self._beat.age_s if self._beat else 0.0) + min(self._clock() - self._noted_at, _AHEAD_S)

    def take(self, event: RunEvent) -> list[Said]:
        """Account for one event; returns the agent events in it that are worth a line to a person."""
        self._stale = True
        match event:
            case Output(stream=stream, data=data):
                return self._output(stream, data)
            case Heartbeat():
                if self._asked_s is not None and self._beat is not None and event.age_s - self._beat.age_s >= _BREAK_S:
                    self._asked_s = event.age_s  # what came meanwhile is still to be read
                self._beat_before, self._beat, self._noted_at = self._beat, event, self._clock()
                self._heard = False
            case Exited() | Killed() | Lost():
                self.transcript.ending = event
            case Started():
                self._live, self._noted_at = True, self._clock()
        return []

    def said(self) -> Failure | None:
        """What the harness's own words prove so far."""
        return self._harness.diagnose(self.transcript, self._rules, self.names)

    def proven(self) -> Failure | None:
        """A cause for which the run must be ended now, proven by what the harness says; None while there is none.

        A failure that shuts the route is acted on at its first event: a CLI
        retries a refused key for three minutes. So is one that the agent would
        meet with the same request for ever.
        """
        complaint = self.complaint()
        if self.ending is not None or complaint is None:
            return None
        found = self.said()
        return found if found is not None and (found.shuts_route or complaint.event.endless) else None

    def complaint(self) -> Said | None:
        """The newest thing the harness reported against the provider."""
        return self.transcript.last(Act.RETRYING, Act.ERROR)

    def silence(self) -> Silence | None:
        """The clock that ran out, or None. Whether the run is stuck has to be looked up on its host."""
        progress = self.progress()
        return None if progress is None or self.ending is not None else judge(progress, self.plan.limits)

    def progress(self) -> Progress | None:
        """The clocks as of the last heartbeat that counts; None before it."""
        if self._stale:  # it is asked for several times after each event, and for nothing between two
            self._progress, self._stale = self._measured(), False
        return self._progress

    def _measured(self) -> Progress | None:
        beat = self._beat if self._spoke else self._beat_before
        if beat is None:
            return None
        last = self.transcript.said[-1] if self.transcript.said else None
        return Progress(
            age_s=beat.age_s,
            # what it has said since is younger than the heartbeat's reading
            quiet_s=(0.0 if self._heard else beat.quiet_s) if self._spoke else None,
            unchanged_s=beat.work_changed_s,
            last_event=f"{describe(last.event)} at {last.at_s:.0f} s" if last else "",
            cpu_s=beat.cpu_s,
            processes=beat.processes,
            answer_s=None if self._asked_s is None else beat.age_s - self._asked_s,
            done=last is not None and last.event.act is Act.RESULT,
        )

    def model_answered(self) -> str | None:
        """The model id in the newest answer, as the provider named it."""
        return next(
            (s.event.model for s in reversed(self.transcript.said) if s.event.model and s.event.act is not Act.INIT),
            None,
        )

    def last_result(self) -> AgentEvent | None:
        """The harness's final verdict on itself; the last one, since some print several."""
        found = self.transcript.last(Act.RESULT)
        return found.event if found else None

    def _output(self, stream: str, data: bytes) -> list[Said]:
        self.transcript.add_bytes(stream, data)
        events = self._reader.feed("err" if stream == "err" else "out", data)
        self._heard = self._heard or stream == "out"
        if events and not self._spoke:
            self._spoke = True
            before_s = self._beat_before.age_s if self._beat_before else 0.0
            now_s = round(self.age_s, 2)
            self.first_event_s = now_s if self._live and now_s - before_s < _BREAK_S else None
        at_s = round(self.age_s, 2)
        self.transcript.add_events(at_s, events)
        if self._came_through is not None and any(map(_is_good, events)):
            self._came_through()
            self._came_through = None
        for event in events:
            self.meter.take(at_s, event)
            if event.act in _ANSWERED:
                self._asked_s = None
            elif event.act in _ASKED and self._live:  # of what an earlier controller read nobody knows the time
                self._asked_s = at_s + (event.delay_s or 0.0)
        return [Said(at_s, event) for event in events if event.act in _SHOWN]


def _is_good(event: AgentEvent) -> bool:
    """Whether only an agent that got an answer says so; a verdict counts when it is a good one."""
    return event.act in _GOOD or (event.act is Act.RESULT and event.ok is True)


def describe(event: AgentEvent) -> str:
    """One event in a few words, for progress lines; never the model's prose."""
    match event.act:
        case Act.INIT:
            return f"started, model {event.model or '?'}"
        case Act.RETRYING:
            status = event.status if event.status is not None else "no answer"
            return f"retry {event.attempt or '?'}: {status} {event.error or ''}".rstrip()
        case Act.TOOL_STARTED | Act.TOOL_RUNNING | Act.TOOL_ENDED:
            return f"tool {event.tool or '?'}"
        case Act.COMMITTED:
            return f"commit {(event.sha or '')[:10]}".rstrip()
        case Act.DENIED:
            return f"permission denied: {event.tool or '?'}"
        case Act.ERROR:
            return f"error {event.error or event.status or ''}".rstrip()
        case Act.RESULT:
            return "result ok" if event.ok else f"result: {event.error or event.status or 'not ok'}"
        case _:
            return str(event.act)

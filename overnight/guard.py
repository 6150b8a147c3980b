"""Decides when a followed run is ended, and never before somebody has looked at what it does.

A cause that the agent's own words prove is acted on at once. A clock that ran
out is a doubt: the host is asked what the run is doing, then its route is
asked again, and only then is it ended and named, or left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from overnight.events import Act, Sampled
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.ladder import Standing, climb, open_tool_s, unseen
from overnight.outcome import got_nowhere, process_failure
from overnight.reprobe import QUOTA, Reprobed, Reprobes, may_name_a_time, refined, worth_asking
from overnight.rungs import PROVIDER_WAITS, TOOLS
from overnight.sample import Sample
from overnight.silence import Progress, Silence
from overnight.stop import Audit, Rule, Stop
from overnight.watch import Watch

LOOK_S = 6.0
"""So long the host has for a look: two glances a second apart, and the way there and back."""
PROBE_S = 8.0
"""So long the route has to answer when it is asked again."""
RECHECK_S = 30.0
"""A run that was found at work is looked at again after this."""
_LAST_LOOK_S = 8.0
_APART_S = 5.0
_SEEN_S = 3.0
_K = FailureKind
_AT_ONCE = ("proof", "endless", "quota-probe")
_USEFUL = (Act.SPOKE, Act.TOOL_STARTED, Act.TOOL_ENDED, Act.COMMITTED, Act.RESULT)


class Guard:
    """Judges one followed run. Not thread-safe: it belongs to the thread that follows.

    `standing` is the newest look at it, `stuck` the newest that found a command
    of it waiting, `reprobed` the newest call of its route.

    Args:
        reprobes: How the route is asked again; None where the run is itself a probe.
        clock: Seconds of this machine; only for how long an answer is waited for.
        spends: Says which cap the run has reached, of its own or of its batch.
    """

    def __init__(
        self,
        watch: Watch,
        reprobes: Reprobes | None = None,
        clock: Callable[[], float] = time.monotonic,
        spends: Callable[[], tuple[Rule, Failure] | None] = lambda: None,
    ) -> None:
        self.watch = watch
        self.stop: Stop | None = None
        self.standing: Standing | None = None
        self.stuck: Standing | None = None
        self._sample: Sample | None = None
        self.reprobed: Reprobed | None = None
        self.spared = 0
        self._reprobes = reprobes
        self._clock = clock
        self._spends = spends
        self._look: Callable[[], None] = lambda: None
        self._looked_at: float | None = None
        self._held_until = 0.0
        self._doubts = False
        self._probing: Future[Reprobed] | None = None
        self._probed_at = 0.0
        self._asking: Future[Reprobed] | None = None
        self._asked_at, self._asked_age_s = 0.0, 0.0
        self._glanced_s = 0.0
        self._pool = ThreadPoolExecutor(1, "reprobe")

    def looks_with(self, look: Callable[[], None]) -> None:
        """`look` asks the host for a sample, which is handed to `heard` when it comes."""
        self._look = look

    def heard(self, sampled: Sampled) -> None:
        """Take a look's answer in."""
        at_s = self.watch.age_s
        self._looked_at = None
        if sampled.sample is None:
            self.standing = unseen(sampled.error, at_s)
            return
        progress = self.watch.progress()
        if progress is not None:
            earlier, plan = self._earlier(sampled.sample, progress), self.watch.plan
            self.standing = climb(sampled.sample, progress, self.watch.transcript, plan.base_url, earlier)
            if self.standing.rung in TOOLS and not self.standing.rule.holds:
                self.stuck = self.standing

    def _earlier(self, sample: Sample, progress: Progress) -> Sample | None:
        """The look before this one, when the run had been silent, or in the same command, ever since."""
        before, self._sample = self._sample, sample
        if before is None or before.at_s is None or sample.at_s is None:
            return None
        still_s = max(progress.quiet_s or 0.0, open_tool_s(self.watch.transcript, progress.age_s))
        return before if _APART_S <= sample.at_s - before.at_s <= still_s else None

    def decide(self) -> Stop | None:
        """The decision to end the run, made once; None while there is none. Never blocks."""
        if self.stop is None and self.watch.ending is None:
            self.stop = self._proven() or self._dear() or self._quota() or self._doubt()
            if self.stop is not None and self._reprobes is not None and self.stop.rule in _AT_ONCE:
                self._ask_host()
            self._look_meanwhile()
        return self.stop

    @property
    def ready(self) -> bool:
        """Whether what was running at the decision is known, or was waited for long enough."""
        return self._looked_at is None or self._clock() - self._looked_at > _SEEN_S

    def audit(self) -> Audit:
        """What is to be said of this guard's judgement, once the run has ended."""
        stop = self.stop
        after = stop is not None and any(
            said.at_s > stop.at_s and said.event.act in _USEFUL for said in self.watch.transcript.said
        )
        return Audit(
            rule=stop.rule if stop else None,
            at_s=round(stop.at_s, 1) if stop else None,
            running=self.standing.running if self.standing else (),
            progress_after=after,
            spared=self.spared,
        )

    def conclude(self) -> None:
        """Once the run has ended: ask its route again if that could name the cause, or when to come back.

        Blocks for PROBE_S at most.
        """
        if self._reprobes is None or (self.stop is not None and self.reprobed is not None):
            return
        watch, stopped = self.watch, self.stop.failure if self.stop else None
        failure = process_failure(watch.transcript, watch.said(), stopped, watch.names)
        if worth_asking(failure) or may_name_a_time(failure) or (failure is None and got_nowhere(watch.transcript)):
            if self._asking is None or watch.age_s - self._asked_age_s > RECHECK_S:
                self._asking = self._pool.submit(self._reprobes.direct, PROBE_S)
            self.reprobed = self._asking.result()

    def close(self) -> None:
        """Let go of calls that are still under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _proven(self) -> Stop | None:
        """A cause in the agent's own words. What no code of the provider proves is asked about first: a 403 may be a
        firewall's, and a key that is refused may be right in the other header.
        """
        found = self.watch.proven()
        if found is None:
            return None
        rule: Rule = "proof" if found.shuts_route else "endless"
        if self._reprobes is None or not worth_asking(found):
            return self._stopped(rule, found)
        if self._asking is not None and self.watch.age_s - self._asked_age_s > RECHECK_S:
            self._asking = None  # it was asked about something else
        probed = self._asked()
        if probed is not None:
            return self._stopped(rule, refined(found, probed, self.watch.names))
        return self._stopped(rule, found) if self._clock() - self._asked_at > PROBE_S else None

    def _dear(self) -> Stop | None:
        found = self._spends()
        return self._stopped(*found) if found is not None else None

    def _quota(self) -> Stop | None:
        """On the first rate limit ask once what it is: a 429 may be an empty account, a used window, an ended plan."""
        said = self.watch.said() if self._reprobes is not None and self.watch.complaint() is not None else None
        if said is None or said.kind is not _K.RATE_LIMITED or self.reprobed is not None:
            return None
        probed = self._asked()
        if probed is None or probed.kind not in QUOTA:
            return None
        return self._stopped("quota-probe", refined(said, probed, self.watch.names))

    def _asked(self) -> Reprobed | None:
        """The answer to the one direct call about what the agent complains of; None while it is under way."""
        if self._asking is None and self._reprobes is not None:
            self._asking, self._asked_at = self._pool.submit(self._reprobes.direct, PROBE_S), self._clock()
            self._asked_age_s = self.watch.age_s
        if self._asking is None or not self._asking.done():
            return None
        self.reprobed = self._asking.result()
        return self.reprobed

    def _doubt(self) -> Stop | None:
        silence = self.watch.silence()
        if silence is None:
            self.spared += self._doubts
            self._doubts, self._probing, self._looked_at = False, None, None
            return None
        now = self._clock()
        if now < self._held_until:
            return None
        if not self._doubts:
            self._doubts, self.standing, self._glanced_s = True, None, self.watch.age_s
            self._ask_host()
            return None
        standing = self._stands(now, silence)
        if standing is None:
            return None
        if self._holds(silence, standing):
            self.spared += 1
            self._doubts, self._held_until = False, now + RECHECK_S
            return None
        if silence.clock == "linger_s":
            return self._stopped("linger_s", None)
        if self._reprobes is not None and standing.rung not in TOOLS and not self._probed(now):
            return None
        return self._stopped(silence.clock, self._named(silence, standing))

    def _stands(self, now: float, silence: Silence) -> Standing | None:
        if self.standing is None and self._looked_at is not None and now - self._looked_at > LOOK_S:
            self.standing = unseen(f"the host gave no answer in {LOOK_S:.0f} s", silence.progress.age_s)
        return self.standing

    def _holds(self, silence: Silence, standing: Standing) -> bool:
        """Whether the run is at work all the same, as with a command in the background after its verdict.

        Before its first event an agent may wait for the provider as long as later.
        """
        limits = self.watch.plan.limits
        if silence.clock == "first_event_s" and standing.rung in PROVIDER_WAITS:
            return limits.quiet_s is not None and silence.reading_s <= limits.quiet_s
        return standing.rule.holds and silence.clock != "no_change_s"

    def _probed(self, now: float) -> bool:
        """Whether the route was asked again, or was given time enough to answer."""
        if self._reprobes is None:
            return True
        if self._probing is None:
            self._probing, self._probed_at = self._pool.submit(self._reprobes.both, PROBE_S), now
            return False
        if not self._probing.done():
            return now - self._probed_at > PROBE_S + LOOK_S
        self.reprobed = self._probing.result()
        return True

    def _named(self, silence: Silence, standing: Standing) -> Failure:
        """The cause of a silence: the agent's own words, then what the host shows, then what a fresh call is told."""
        said, probed = self.watch.said(), self.reprobed
        seen = (*standing.evidence, *(probed.evidence() if probed else ()), *silence.evidence())
        if said is not None and said.kind is not _K.UNKNOWN:
            if probed is not None and said.kind is _K.RATE_LIMITED and probed.kind in QUOTA:
                return self._failure(probed.kind, (*said.evidence, *seen))
            return said.also(*seen)
        rule, again = standing.rule, probed.kind if probed is not None else None
        kind = again if again and (rule.vague or rule.kind is None) else rule.kind
        return self._failure(kind or silence.kind, seen)

    def _failure(self, kind: FailureKind, seen: Iterable[Evidence]) -> Failure:
        probed = self.reprobed
        if probed is not None and probed.named is not None and kind is probed.named.kind:
            return probed.named.also(*seen)
        after = probed.retry_after_s if probed is not None and kind is probed.kind else None
        return fail(kind, *seen, names=self.watch.names, retry_after_s=after)

    def _look_meanwhile(self) -> None:
        """Looks that end nothing: half-way through a silence, at a command that takes long, before the host's limit.

        An agent that reports a command as running is never ended for it; what
        the command waited for is worth knowing when nothing comes of it.
        """
        limits, age_s, progress = self.watch.plan.limits, self.watch.age_s, self.watch.progress()
        if self.stop or self._reprobes is None or self._doubts or self._looked_at is not None or progress is None:
            return
        quiet_s, since_s = limits.quiet_s or limits.total_s, age_s - self._glanced_s
        still_s = max(progress.quiet_s or 0.0, open_tool_s(self.watch.transcript, age_s))
        half_way = still_s > quiet_s / 2 and since_s > still_s
        long = still_s > quiet_s and since_s > RECHECK_S
        last = age_s >= limits.total_s - _LAST_LOOK_S and self._glanced_s < limits.total_s - _LAST_LOOK_S
        if half_way or long or last:
            self._glanced_s = age_s
            self._ask_host()

    def _ask_host(self) -> None:
        self._looked_at = self._clock()
        self._look()

    def _stopped(self, rule: Rule, failure: Failure | None) -> Stop:
        return Stop(rule=rule, at_s=round(self.watch.age_s, 2), named_at=datetime.now(UTC), failure=failure)

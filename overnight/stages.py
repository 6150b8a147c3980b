"""How far one attempt came, and what is to be said of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from overnight.collected import Collected
from overnight.events import Act, Exited, Killed
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.guard import Guard
from overnight.handle import RunHandle
from overnight.handover import held
from overnight.ladder import Standing
from overnight.outcome import claims, conclude, got_nowhere, process_failure, starved
from overnight.plan import RunPlan
from overnight.report import Check, Phases, RunReport, State, Verify
from overnight.reprobe import refined, timed
from overnight.runcopy import gaps
from overnight.silence import repeated
from overnight.spec import TaskSpec
from overnight.stop import Stop
from overnight.transcript import Transcript
from overnight.watch import Watch

_CUT_SHORT = frozenset({FailureKind.TIME_LIMIT, FailureKind.NO_CHANGE, FailureKind.TURN_LIMIT, FailureKind.WENT_QUIET})


@dataclass(frozen=True)
class Watched:
    """A followed run and its judge. `lost` is why we lost sight of it, `named_at` when its cause was known."""

    guard: Guard
    lost: Failure | None
    seconds: float
    named_at: datetime

    @property
    def watch(self) -> Watch:
        return self.guard.watch

    @property
    def stop(self) -> Stop | None:
        return self.guard.stop

    @property
    def undecided(self) -> bool:
        """Whether it may still run: we were told to leave it, or its host stayed out of reach."""
        return self.watch.ending is None


@dataclass
class Stages:
    """How far one attempt came. Filled from top to bottom; None is a stage that was not reached."""

    queued_s: float
    handle: RunHandle | None = None
    watched: Watched | None = None
    collected: Collected | None = None
    checked: Verify | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record how long a stage took, whether it ended well or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.monotonic() - began, 2)


def diagnose(plan: RunPlan, stages: Stages) -> Failure | None:
    """Why the attempt failed, as far as it came; None when nothing speaks against it."""
    watched, collected, checked = stages.watched, stages.collected, stages.checked
    if watched is None:
        return None
    process = _unresumed(_process(plan, watched), stages.handle, plan.route.names)
    if collected is None:
        return process
    failure = conclude(process, collected, watched.watch.transcript, plan.route.names)
    if failure is not None and failure.kind is FailureKind.NO_COMMIT:
        return _why_nothing_came(failure, watched, plan.route.names)
    if failure is None and checked is not None and checked.exit_code != 0:
        return _unverified(checked, plan)
    return failure


def _unresumed(failure: Failure | None, handle: RunHandle | None, names: Mapping[str, str]) -> Failure | None:
    """An agent that would not go on with a session refused that one, not its command line: its route stays open."""
    resumed = handle.resumed if handle else None
    if failure is None or failure.kind is not FailureKind.HARNESS_USAGE or resumed is None or resumed.session is None:
        return failure
    seen = Evidence(source="exit", seen=f"it would not go on with session {resumed.session} of {resumed.run_id}")
    return fail(FailureKind.HARNESS_CRASHED, seen, *failure.evidence, names=names)


def starvation(plan: RunPlan, stages: Stages, error: Failure) -> Failure | None:
    """What the host had too little of, where that is why a stage could not go on."""
    ending = stages.watched.watch.ending if stages.watched else None
    want = starved(ending)
    if want is None or want[0] is not FailureKind.DISK_FULL:
        return None
    return fail(want[0], want[1], *error.evidence, names=plan.route.names)


def _why_nothing_came(failure: Failure, watched: Watched, names: Mapping[str, str]) -> Failure:
    """Why an agent that called it done committed nothing, where that shows: a stuck command, a loop, a sick route."""
    guard, transcript = watched.guard, watched.watch.transcript
    if guard.stuck is not None and _given_up(guard.stuck, watched):
        return fail(FailureKind.TOOL_STUCK, *guard.stuck.evidence, *failure.evidence, names=names)
    loop = repeated(transcript)
    if loop is not None:
        return fail(FailureKind.LOOPING, loop, *failure.evidence, names=names)
    if guard.reprobed is not None and got_nowhere(transcript):
        return refined(failure, guard.reprobed, names)
    return failure


def _given_up(stuck: Standing, watched: Watched) -> bool:
    """Whether the command that was seen waiting was the agent's last, and never came to a good end."""
    transcript, stop = watched.watch.transcript, watched.stop
    later = [said.event for said in transcript.said if said.at_s > (stuck.shown.at_s or 0.0)]
    if any(event.act is Act.TOOL_STARTED for event in later):
        return False
    ended = [event for event in later if event.act is Act.TOOL_ENDED]
    ending = transcript.ending
    lives_on = (stop is not None and stop.rule == "linger_s") or (isinstance(ending, Exited) and ending.survivors > 0)
    return lives_on or not ended or ended[-1].ok is False


def _process(plan: RunPlan, watched: Watched) -> Failure | None:
    """Why the process did not end well, with what a look at its host and a fresh call of its route add to it."""
    guard, transcript, names = watched.guard, watched.watch.transcript, plan.route.names
    stop = guard.stop
    if stop is not None and stop.failure is None:
        # it was done: what we ended is only a process that would not go
        transcript = replace(transcript, ending=Exited(0, None, stop.at_s))
    failure = process_failure(transcript, watched.watch.said(), stop.failure if stop else watched.lost, names)
    if failure is not None and guard.reprobed is not None:
        failure = timed(refined(failure, guard.reprobed, names) if stop is None else failure, guard.reprobed)
    if failure is not None and failure.kind in _CUT_SHORT:
        return _why_so_long(failure, transcript, guard, names)
    return failure


def _why_so_long(failure: Failure, transcript: Transcript, guard: Guard, names: Mapping[str, str]) -> Failure:
    """What a run that used up its limits was doing: going in circles, or waiting for a command that never ended."""
    standing = guard.standing
    shown = standing.evidence if standing is not None else ()
    loop = repeated(transcript)
    if loop is not None:
        return fail(FailureKind.LOOPING, loop, *failure.evidence, *shown, names=names)
    if standing is not None and standing is guard.stuck:
        return fail(FailureKind.TOOL_STUCK, *shown, *failure.evidence, names=names)
    return failure.also(*(each for each in shown if each not in failure.evidence))


def _unverified(checked: Verify, plan: RunPlan) -> Failure:
    seen = [Evidence(source="exit", seen=f"`{checked.command}` {_ended(checked)}: {checked.tail[-300:]}")]
    remedy = ""
    if checked.again is not None:
        words = f"again on the same commit it {_ended(checked.again)}: {checked.again.tail[-300:]}"
        seen.append(Evidence(source="exit", seen=words))
    if checked.flaky:
        remedy = "the check is flaky and proves nothing either way: mend it, or look at both of its tails"
    return fail(FailureKind.VERIFY_FAILED, *seen, names=plan.route.names, remedy=remedy)


def _ended(check: Check) -> str:
    how = "was ended by its time limit" if check.exit_code is None else f"ended with {check.exit_code}"
    return f"{how} after {check.seconds:.0f} s"


def _phases(stages: Stages) -> Phases:
    """How long each stage took; for the run itself the host's own figure, which a resumed batch did not see."""
    ending = stages.watched.watch.ending if stages.watched else None
    seconds = dict(stages.seconds)
    if isinstance(ending, Exited | Killed):
        seconds["run"] = round(ending.seconds, 2)
    return Phases(queued=round(stages.queued_s, 2), **seconds)


def _first_event_s(stages: Stages) -> float | None:
    """When the agent first spoke, as it was heard here: a moment late, so never later than the host saw it end."""
    if stages.watched is None or stages.watched.watch.first_event_s is None:
        return None
    ending, heard_s = stages.watched.watch.ending, stages.watched.watch.first_event_s
    return min(heard_s, round(ending.seconds, 2)) if isinstance(ending, Exited | Killed) else heard_s


def run_report(
    plan: RunPlan, stages: Stages, state: State, failure: Failure | None, log: str, credential: str | None = None
) -> RunReport:
    """The record of an attempt, as far as it came.

    Args:
        credential: Fingerprint of the key it was given.
    """
    watch = stages.watched.watch if stages.watched else None
    found = stages.collected
    return RunReport(
        task_id=plan.task_id,
        run_id=plan.run_id,
        attempt=plan.attempt,
        **plan.route.model_dump(),
        harness_version=stages.handle.harness_version if stages.handle else None,
        state=state,
        failure=failure,
        commits=found.commits if found else (),
        branch=found.branch if found else None,
        repo=found.repo if found else None,
        approved=_approved(plan, found),
        guards=found.guards if found else (),
        base_sha=stages.handle.base_sha if stages.handle else None,
        diffstat=found.diffstat if found else "",
        other_refs=found.others if found else {},
        leftovers=found.leftovers if found else None,
        verify=stages.checked,
        seconds=_phases(stages),
        first_event_s=_first_event_s(stages),
        named_at=stages.watched.named_at if stages.watched and failure else None,
        monitor=stages.watched.guard.audit() if stages.watched else None,
        claims=claims(watch.transcript, len(found.commits)) if watch and found else None,
        log=log,
        gaps=tuple(map(str, gaps(Path(log)))),
        origin=plan.repo,
        started_at=stages.handle.started_at if stages.handle else None,
        session=watch.transcript.session if watch else None,
        resumed=stages.handle.resumed if stages.handle else None,
        credential=credential,
        environment=plan.environment,
    )


def _approved(plan: RunPlan, found: Collected | None) -> bool | None:
    """False when a person's word is waited for; what a guard refuses no word allows."""
    if found is None or not found.commits or (strictest := held(found.guards)) == "refuse":
        return None
    return False if plan.approve or strictest == "hold" else None


def never_started(task: TaskSpec, version: str | None, state: State, failure: Failure) -> RunReport:
    """The record of a task that had no attempt. `version` is the agent's that it would have had."""
    return RunReport(
        task_id=task.id,
        run_id="",
        attempt=0,
        harness_version=version,
        state=state,
        failure=failure,
        origin=task.repo,
        **task.route.model_dump(),
    )


def state_after(failure: Failure | None) -> State:
    """How an attempt is counted that ended with this failure, or with none."""
    if failure is None:
        return "succeeded"
    special: dict[FailureKind, State] = {
        FailureKind.CANCELLED: "cancelled",
        FailureKind.DEADLINE: "cancelled",
        FailureKind.LOST: "lost",
    }
    return special.get(failure.kind, "failed")

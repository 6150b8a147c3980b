"""Whether an outcome is true: held against what the agent noted of itself and what really hit it.

Links that break, controllers, Prefect and sshd that die, frozen hosts, slow
ways and clocks that jump are no excuse: a run must end as if none of them was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from overnight.failures import FailureKind
from overnight.report import RunReport
from tests.chaos.faults import Hit
from tests.chaos.schedule import Shape, Work
from tests.chaos.seen import Agent

_K = FailureKind
AT_ONCE_S = 1.5  # a fault this close to an agent's last note may have come before or after the end was recorded
RECORDED_S = 3.0  # processes that outlive the agent are given their grace before its end is recorded


@dataclass(frozen=True)
class Ending:
    """One way a run may truly have ended; `words` must stand in the evidence, any one of them."""

    state: str
    kinds: tuple[FailureKind | None, ...]
    words: tuple[str, ...] = ()

    def fits(self, run: RunReport) -> bool:
        kind = run.failure.kind if run.failure else None
        text = " ".join(each.seen for each in run.failure.evidence) if run.failure else ""
        said = not self.words or any(word.lower() in text.lower() for word in self.words)
        return run.state == self.state and kind in self.kinds and said

    def __str__(self) -> str:
        kinds = "/".join(str(kind) for kind in self.kinds if kind)
        return f"{self.state}{f' by {kinds}' if kinds else ''}{f' naming one of {self.words}' if self.words else ''}"


SUCCEEDED = Ending("succeeded", (None,))
CANCELLED = Ending("cancelled", (_K.CANCELLED,))
LOST = {
    "reboot": Ending("lost", (_K.LOST,), ("rebooted", "before the start was recorded")),
    "kill-supervisor": Ending("lost", (_K.LOST,), ("supervisor",)),
}
KILLED = Ending("failed", (_K.UNKNOWN, _K.HARNESS_CRASHED), ("signal 9",))
CRASHED = Ending("failed", (_K.UNKNOWN, _K.HARNESS_CRASHED), ("exit code",))
SPACE = ("no space", "disk", "enospc", "bytes free", "errno 28")
FULL = Ending(
    "failed",
    (_K.DISK_FULL, _K.HOST_UNFIT, _K.WORKSPACE, _K.COLLECT_FAILED, _K.UNKNOWN, _K.HARNESS_CRASHED),
    SPACE,
)
NATURAL: dict[Shape, Ending] = {
    "good": SUCCEEDED,
    "daemon": SUCCEEDED,
    "chatty": SUCCEEDED,
    "idle": Ending("failed", (_K.NO_COMMIT,)),
    "crash": Ending("failed", (_K.UNKNOWN, _K.HARNESS_CRASHED), ("exit code 3",)),
    "endless": Ending("failed", (_K.TIME_LIMIT,)),
    "loud": Ending("failed", (_K.LOG_LIMIT,)),
}
NEVER_ENDS = ("endless", "loud")
# what a host that could not be looked at may be called before its first run
UNHEARD: tuple[FailureKind, ...] = (
    *(_K.HOST_UNREACHABLE, _K.HOST_UNFIT, _K.DISK_FULL, _K.PROVIDER_MUTE, _K.NETWORK, _K.UNKNOWN, _K.LOST),
    *(_K.HARNESS_CRASHED, _K.CANCELLED, _K.WORKSPACE, _K.SILENT_START, _K.TIME_LIMIT),
)


def untrue(run: RunReport, work: Work, agent: Agent | None, hits: tuple[Hit, ...]) -> str:
    """What is wrong with an outcome; empty when it is true."""
    allowed = list(endings(run, work, agent, hits))
    if not any(ending.fits(run) for ending in allowed):
        why = f"{run.failure.kind}: {run.failure.evidence[0].seen[:200]}" if run.failure else "no failure"
        names = " or ".join(map(str, allowed)) or "nothing that happened"
        did = _did(agent)
        return f"{run.run_id or run.task_id} is {run.state} ({why}), but {names} would be true: {did}"
    if run.state == "succeeded" and agent is not None:
        home = tuple(commit.sha for commit in run.commits)
        if home != agent.commits:
            return f"{run.run_id} succeeded with commits {home}, its agent made {agent.commits}"
    return ""


def _did(agent: Agent | None) -> str:
    if agent is None:
        return "its agent never began"
    end = "was ended" if agent.ended is None else f"ended with {agent.ended} {agent.problem}".rstrip()
    return f"its agent made {len(agent.commits)} commits and {end}"


def endings(run: RunReport, work: Work, agent: Agent | None, hits: tuple[Hit, ...]) -> Iterator[Ending]:
    """Every ending that would be true of this run."""
    mine = [hit for hit in hits if run.run_id in (hit.run_id, "") or (not hit.run_id and hit.host in (run.host, ""))]
    if not run.run_id:
        yield from _never_started(mine)
    elif agent is None:
        yield from _never_began(mine)
    elif agent.ended is not None:
        yield from _ended_itself(run, work, agent, mine)
    else:
        yield from _was_ended(work, agent, mine)


def _never_started(hits: list[Hit]) -> Iterator[Ending]:
    """A task without a run: the batch was cancelled, or its host could not be used when the routes were probed."""
    if any(hit.kind == "cancel" for hit in hits):
        yield CANCELLED
    if any(hit.host for hit in hits):
        yield Ending("skipped", UNHEARD)


def _never_began(hits: list[Hit]) -> Iterator[Ending]:
    """A run that was asked for, and whose agent never came to its first line."""
    kinds = {hit.kind for hit in hits}
    if "cancel" in kinds:
        yield CANCELLED
    yield from (LOST[kind] for kind in sorted(kinds & LOST.keys()))
    if "fill-disk" in kinds:
        yield FULL
    if "kill-agent" in kinds:
        yield KILLED
    if any(hit.host for hit in hits):  # its host could not be asked for so long that the wire's retries ran out
        yield Ending("failed", (_K.HOST_UNREACHABLE, _K.WORKSPACE))


def _ended_itself(run: RunReport, work: Work, agent: Agent, hits: list[Hit]) -> Iterator[Ending]:
    """What its own end makes of it, and what hit it in the moment between that end and its record."""
    fills = [hit for hit in hits if hit.kind == "fill-disk" and _overlaps(hit, agent.first - 5, agent.last + 30)]
    full = bool(fills)
    if work.shape not in NEVER_ENDS and not (full and agent.problem):
        yield NATURAL[work.shape]
    if full:
        yield FULL
    if agent.problem and any(0 < hit.until < agent.last + RECORDED_S for hit in fills):
        yield CRASHED  # there was room again when its end was recorded, and none for its last words
    if any(hit.kind == "cancel" and hit.at < agent.last + RECORDED_S for hit in hits):
        yield CANCELLED  # asked for earlier, the request may reach a host that was cut off in the agent's last moment
    of_check = run.failure is not None and any(each.seen.startswith("the check:") for each in run.failure.evidence)
    recorded_s = inf if of_check else RECORDED_S  # its check was running on, with a supervisor of its own
    for hit in hits:
        if agent.last - AT_ONCE_S < hit.at < agent.last + recorded_s:
            if hit.kind in LOST:
                yield LOST[hit.kind]
            if hit.kind == "kill-agent":
                yield KILLED


def _was_ended(work: Work, agent: Agent, hits: list[Hit]) -> Iterator[Ending]:
    """Somebody ended it: whoever did must be named."""
    if work.shape in NEVER_ENDS:
        yield NATURAL[work.shape]
    for hit in hits:
        if hit.kind in LOST:
            yield LOST[hit.kind]
        elif hit.kind == "kill-agent":
            yield KILLED
        elif hit.kind == "cancel":
            yield CANCELLED
        elif hit.kind == "fill-disk":
            yield FULL


def _overlaps(hit: Hit, since: float, until: float) -> bool:
    return hit.at <= until and (hit.until or hit.at) >= since

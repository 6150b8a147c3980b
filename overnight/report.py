"""The morning: one record per run and one per batch, as other tools read them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from overnight.collected import Commit, Leftovers
from overnight.cost import Cost
from overnight.failures import Failure, Family
from overnight.handover import Finding, Handed, held
from overnight.route import Route
from overnight.session import Resumed, SessionId
from overnight.stop import Audit, Rule
from overnight.usage import Usage

State = Literal["succeeded", "failed", "skipped", "cancelled", "lost"]

EXIT_SUCCEEDED, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_NOTHING_STARTED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RouteReport(_Record):
    """One route as preflight found it, or as the night left it."""

    host: str
    harness: str
    provider: str
    model: str
    state: Literal["open", "shut"]
    preflight_s: float | None = Field(description="Seconds the preflight of this route took")
    harness_version: str | None = None
    notes: tuple[str, ...] = Field((), description="What preflight saw that decides nothing")
    failure: Failure | None = None


class Check(_Record):
    """One run of a task's check."""

    exit_code: int | None = Field(description="None when the command was ended by its time limit")
    seconds: float
    tail: str = Field("", description="Last lines of its output, secrets masked")


class Verify(Check):
    """The first run of the check, which decides, and the second, where the first failed and one was asked for."""

    command: str
    on: Literal["host", "here"] = Field("host", description="`here` is the machine that carries the batch out")
    again: Check | None = Field(None, description="The same command on the same commit, in another fresh clone")
    flaky: bool = Field(False, description="It failed and then passed, so it says nothing of the commit")


Because = Literal["shut", "away", "tried", "breaker", "peak"]


class PassedOver(_Record):
    """A route that a task would rather have taken, and why it did not."""

    route: Route
    because: Because = Field(
        description="`shut`: proven broken; `away`: its host; `tried`: this task failed there; `breaker`: it was open; "
        "`peak`: its provider's peak hours"
    )
    failure: Failure | None = None

    def __str__(self) -> str:
        why = f": {self.failure.brief}" if self.failure else ""
        return f"not {self.route}, {_BECAUSE[self.because]}{why}"


_BECAUSE: dict[Because, str] = {
    "shut": "which was shut",
    "away": "whose host was away",
    "tried": "where it had failed",
    "breaker": "which failed too often just then",
    "peak": "in whose provider's peak hours nothing is to start",
}


class Phases(_Record):
    """Seconds spent in each phase; None for a phase that was not reached."""

    queued: float | None = None
    start: float | None = None
    run: float | None = None
    collect: float | None = None


class RunReport(_Record):
    """One attempt of one task, or a task that never started (`attempt` 0, `run_id` empty)."""

    task_id: str
    run_id: str
    attempt: int
    host: str
    harness: str
    harness_version: str | None = None
    provider: str
    model: str
    state: State
    left_running: bool = Field(False, description="It went on when this was written; --resume follows it")
    failure: Failure | None = None
    commits: tuple[Commit, ...] = ()
    branch: str | None = None
    approved: bool | None = Field(
        None, description="False until a person allowed the branch; null when nobody is asked"
    )
    guards: tuple[Finding, ...] = Field((), description="What the guards found in the diff")
    handed: Handed | None = Field(None, description="What became of its push or pull request; null until tried")
    repo: str | None = Field(None, description="Path on this machine that holds branch and refs")
    base_sha: str | None = None
    diffstat: str = ""
    other_refs: dict[str, str] = Field(default_factory=dict, description="Further tips the agent made: ref -> sha")
    leftovers: Leftovers | None = None
    verify: Verify | None = None
    seconds: Phases = Phases()
    first_event_s: float | None = None
    tokens: int | None = None
    usage: Usage | None = Field(None, description="The tokens by sort; null where they are told as one sum, or not")
    usd: float | None = Field(None, description="`cost.usd`: null where it is not known")
    cost: Cost | None = Field(None, description="What it cost and who says so; null when it was not followed")
    peak: str | None = Field(None, description="The provider's peak hours in which it began; null outside of them")
    claims: str | None = Field(None, description="What the agent claimed that does not hold, in our words")
    named_at: datetime | None = Field(None, description="When the cause of its failure was known")
    monitor: Audit | None = Field(None, description="How the monitor judged it; null when nobody followed it")
    passed_over: tuple[PassedOver, ...] = Field(
        (), description="Routes it would rather have taken, or could not take either, and why"
    )
    log: str | None = Field(None, description="Folder with the run's output and events on this machine")
    gaps: tuple[str, ...] = Field((), description="What of its output is missing here, since the host had let it go")
    origin: str | None = Field(None, description="The repository as the task names it")
    started_at: datetime | None = Field(None, description="When its host was asked to start it")
    session: SessionId | None = Field(None, description="The agent's own id of its session, as it told it")
    resumed: Resumed | None = Field(
        None, description="The session it went on with, or why not; null when it was not to, and for a first attempt"
    )
    credential: str | None = Field(
        None, description="Tells the keys of one batch apart: a salted, slow hash of the key, another one every batch"
    )
    environment: str | None = Field(None, description="Hash of the names and values it got, without secrets")

    @property
    def undelivered(self) -> bool:
        """Whether its commits are not where they were to go: refused by a guard, or their delivery failed."""
        refused = bool(self.commits) and held(self.guards) == "refuse"
        return refused or (self.handed is not None and self.handed.state != "delivered")

    @property
    def route(self) -> Route:
        return Route(host=self.host, harness=self.harness, provider=self.provider, model=self.model)


class Spent(_Record):
    """What attempts used. The sums are of those that are known; `unknown` and `untold` are how many are not in them."""

    usd: float = Field(description="Of those charged in USD")
    other: dict[str, float] = Field({}, description="Of those charged otherwise, by currency")
    tokens: int
    attempts: int
    unknown: int = Field(description="Attempts whose cost is not known")
    untold: int = Field(description="Attempts whose tokens are not known")
    at_most: bool = Field(False, description="A part ran in dearer hours and is counted as if all of it had")


class BatchSpent(Spent):
    """The same of the whole batch."""

    providers: dict[str, Spent]
    in_peak: int = Field(0, description="Attempts that began in peak hours of their provider")


class Kills(_Record):
    """What one rule of the monitor did in this batch."""

    rule: Rule
    runs: int = Field(description="Attempts it ended")
    progress_after: int = Field(description="Of these, how many were later seen to have done something of use")


class Share(_Record):
    """So many of so many, with its 95 % interval (Wilson); the bounds are null when `n` is 0."""

    successes: int
    n: int
    low: float | None
    high: float | None


class Slice(_Record):
    """The tasks that went to one provider, host, harness version or model."""

    by: Literal["provider", "host", "harness", "model"]
    name: str
    raw: Share
    judged: Share = Field(description="Without its failures that were set aside")


class Attribution(_Record):
    """Whose success rate it is. Counts tasks, by their last attempt; what is left running counts nowhere."""

    raw: Share
    judged: Share = Field(description="Without the failures that were set aside")
    failures: int
    aside: dict[Family, int] = Field(
        description="Failures proven not to be the model's or the instruction's, by who must act"
    )
    unknown: int = Field(description="Failures whose cause nobody could name; they stay in `judged`")
    slices: tuple[Slice, ...]


class Split(_Record):
    """A factor that success and failure follow. `inside` is at the named values of it."""

    factor: str
    values: tuple[str, ...] = Field(description="Where failures gather")
    failures_inside: int
    failures: int
    successes_inside: int
    successes: int
    p: float = Field(description="By an exact test, corrected for the number of tests (Holm)")
    together: tuple[str, ...] = Field((), description="Factors that no run tells apart from this one, with their value")
    unexplained_only: bool = Field(False, description="Failures with a proven cause of their own were left out")


class Alarm(_Record):
    """A night of mixed success: whether something but the model explains it. Counts one attempt a task."""

    attempts: Literal["first", "last"]
    successes: int
    failures: int
    explained: int = Field(description="Of the failures, how many have a proven cause of their own")
    tested: tuple[str, ...] = Field(description="Factors of which the night had more than one value")
    same: tuple[str, ...] = Field(description="Factors of which it had one, so that nothing can be said")
    can_tell: bool = Field(description="False when too few ran for any split to be more than chance")
    smallest_p: float | None = Field(description="Corrected; null when nothing was tested")
    splits: tuple[Split, ...] = ()


class BatchReport(_Record):
    """The whole batch. `counts` are per task, by the state of its last attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal[1] = Field(1, alias="schema")
    batch_id: str
    name: str
    started_at: datetime
    ended_at: datetime
    exit_code: int
    routes: tuple[RouteReport, ...]
    runs: tuple[RunReport, ...]
    counts: dict[State, int]
    kills: tuple[Kills, ...] = Field((), description="What the monitor ended, by rule")
    spared: int = Field(0, description="How often a clock ran out and a look at the host showed the run at work")
    attribution: Attribution | None = None
    source: str | None = Field(None, description="The batch file as its user named it, or what stood for one")
    spent: BatchSpent | None = Field(None, description="What it cost; null in reports of older versions")
    alarm: Alarm | None = Field(None, description="Null when no task failed, or none succeeded")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def last_attempts(runs: Sequence[RunReport]) -> list[RunReport]:
    """The run that decides each task, in the order of first appearance."""
    latest: dict[str, RunReport] = {}
    for run in runs:
        latest[run.task_id] = run
    return list(latest.values())


def count(runs: Sequence[RunReport]) -> dict[State, int]:
    found = Counter(run.state for run in last_attempts(runs))
    states: tuple[State, ...] = ("succeeded", "failed", "skipped", "cancelled", "lost")
    return {state: found.get(state, 0) for state in states}


def kills(runs: Sequence[RunReport]) -> tuple[Kills, ...]:
    """The monitor held against what became of the runs it ended."""
    ended = [run.monitor for run in runs if run.monitor is not None and run.monitor.rule is not None]
    rules = sorted({audit.rule for audit in ended if audit.rule is not None})
    of = {rule: [audit for audit in ended if audit.rule == rule] for rule in rules}
    return tuple(
        Kills(rule=rule, runs=len(found), progress_after=sum(audit.progress_after for audit in found))
        for rule, found in of.items()
    )


def exit_code(runs: Sequence[RunReport], *, interrupted: bool) -> int:
    """0 every task succeeded and went where it should, 1 some did not, 3 nothing could start, 130 interrupted."""
    if interrupted:
        return EXIT_INTERRUPTED
    last = last_attempts(runs)
    if last and all(run.state == "skipped" for run in last):
        return EXIT_NOTHING_STARTED
    return EXIT_SUCCEEDED if all(run.state == "succeeded" and not run.undelivered for run in last) else EXIT_FAILED


def schema() -> dict[str, Any]:
    """JSON Schema of the report, as checked in at report.schema.json."""
    return BatchReport.model_json_schema(by_alias=True, mode="serialization")


if __name__ == "__main__":  # python -m overnight.report > report.schema.json
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")

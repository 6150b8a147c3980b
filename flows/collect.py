"""Brings home what ended on hosts while nobody watched: `python -m flows.collect`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.attempts import attempt
from flows.by_hand import by_hand
from flows.desk import DESK, night_of
from flows.handing import delivered
from flows.logs import age
from flows.prepare import check_here
from flows.state import state_directory
from flows.tables import show
from flows.terminal import print_json
from overnight import past, sweep
from overnight.adopt import Unread, adopt, followed
from overnight.failures import BadInput, CollectError, Evidence, FailureError, FailureKind, HostError, fail
from overnight.git import bare
from overnight.handle import RunHandle
from overnight.harnesses import HARNESSES
from overnight.ledger import Ledger
from overnight.morning import many, whereabouts
from overnight.night import Night, Stages, now
from overnight.past import Entry
from overnight.plan import RunPlan
from overnight.preflight import Checked
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED, BatchReport, RunReport, exit_code
from overnight.reporting import batch_report
from overnight.spec import TaskSpec
from overnight.station import GONE_S
from overnight.sweep import Found, Place
from overnight.workspace import home_of
from tasks.calls import in_thread
from tasks.publish import publish

Became = Literal["collected", "adopted", "running", "not begun", "left", "busy", "unknown", "unheard"]


@dataclass(frozen=True)
class Line:
    """What was found of one run, one batch (`run_id` empty) or one host (both empty).

    `state`: collected and decided; adopted, an unknown run's commits are at
    home; running; not begun, its host never started it; left, it could not be
    collected now; busy, another process carries its batch out; unknown, it is
    nobody's here and lies where `words` says; unheard, its host does not answer.
    """

    batch_id: str
    run_id: str
    host: str
    state: Became
    words: str


@dataclass
class Round:
    """One collecting: what is known, what the hosts told, and what came of it."""

    state: Path
    search_path: str
    places: Sequence[Place] = ()
    lines: list[Line] = field(default_factory=list)

    def say(self, batch_id: str, run_id: str, host: str, state: Became, words: str) -> None:
        self.lines.append(Line(batch_id, run_id, host, state, words))
        DESK.get().tell(run_id or batch_id or host, "done", f"{state}: {words}")


def _named() -> str:
    return f"collect {flow_run.parameters.get('batch_id') or 'all'}"


@flow(name="collect", flow_run_name=_named)
async def collect(
    batch_id: str = "",
    state: str = "",
) -> State[Any]:
    """Bring home what ended on hosts while nobody watched, and name what still runs there.

    No agent is started. Runs that ended are collected, checked and decided,
    and their batch's report is written anew. Runs that no batch here knows are
    named with their place; where their repository is known their commits come
    to refs/overnight/adopted/.

    Args:
        batch_id: Batch to collect. Empty means every batch with undecided runs.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
    """
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        every = past.batch(directory, batch_id) if batch_id else past.ledgers(directory)
    except BadInput as error:
        return Failed(message=str(error), data=error)
    round_ = Round(directory, os.environ.get("PATH", os.defpath))
    round_.places = await in_thread(sweep.look, sweep.hosts(every))
    try:
        for ledger in every:
            await _batch(round_, ledger)
        await in_thread(_strangers, round_, every)
    finally:
        for place in round_.places:
            await in_thread(place.station.close)
    for line in round_.lines:
        get_run_logger().info("%s %s on %s: %s", line.run_id or line.batch_id, line.state, line.host, line.words)
    return _end_state(round_.lines)


async def _batch(round_: Round, ledger: Ledger) -> None:
    """Settle one batch's undecided runs, unless somebody carries it out."""
    open_ = [entry for entry in past.runs(ledger) if entry.outcome is None]
    if not open_:
        return
    if past.is_held(ledger):
        round_.say(ledger.batch_id, "", "", "busy", "another process carries this batch out")
        return
    try:
        check_here(ledger, os.environ)
        with ledger.held():
            await _settle(round_, ledger, open_)
    except BadInput as error:
        round_.say(ledger.batch_id, "", "", "left", f"{error.where}: {error.field}: {error.problem}. {error.mend}")


async def _settle(round_: Round, ledger: Ledger, open_: Sequence[Entry]) -> None:
    spec, _ = ledger.reopen()
    night = night_of(ledger)
    tasks = {task.id: task for task in spec.tasks}
    for route in spec.routes:
        night.checked[route] = Checked(route, 0.0)  # nothing is started, so nothing is probed
    try:
        every = (_one(round_, night, entry, tasks[entry.task_id]) for entry in open_)
        for entry, fault in zip(open_, await asyncio.gather(*every, return_exceptions=True), strict=True):
            if isinstance(fault, Exception):  # a fault of ours in one run never costs the others
                get_run_logger().error("run %s", entry.run_id, exc_info=fault)
                round_.say(ledger.batch_id, entry.run_id, entry.host, "left", f"{type(fault).__name__}: {fault}")
            elif fault is not None:
                raise fault
        if any(entry.outcome for entry in open_):
            await delivered(night, [run for task in spec.tasks for run in night.ledger.attempts(task.id)])
            await publish(night, _report(night))
    finally:
        await in_thread(night.close)


async def _one(round_: Round, night: Night, entry: Entry, task: TaskSpec) -> None:
    """One undecided run: collect it if it is over, else say how it stands."""

    def say(state: Became, words: str) -> None:
        round_.say(night.ledger.batch_id, entry.run_id, entry.host, state, words)

    task = task.on(night.ledger.route(entry.run_id) or task.route)
    place = sweep.at(round_.places, night.batch.hosts[entry.host])
    if place.failure is not None:
        say("unheard", place.failure.failure.brief)
        return
    found = sweep.there(place, entry.run_id)
    lies = place.folder(entry.run_id)
    ending = night.wish(task.id) == "cancel"
    if found.lives and not ending:
        say("running", f"{found.state} for {age(found.started_s or 0)} in {lies}")
    elif found.state == "absent" and entry.handle is None:
        say("not begun", f"the host has no such run; --resume {night.ledger.batch_id} starts it")
    else:
        try:
            await in_thread(night.key, task.route.provider)  # without it our copy could not be masked
        except FailureError as error:
            over = await in_thread(_ended, place, entry.run_id) if ending else ""
            say("left", f"{error.failure.brief}; {over}it lies in {lies}")
            return
        if entry.handle is None:
            night.ledger.save(entry.run_id, "handle", _regained(place, entry, found))
        run = await attempt(night, task, entry.attempt, 0.0)
        if run is None or night.ledger.outcome(run.run_id) is None:
            say("left", f"{run.failure.brief if run and run.failure else ''}; it lies in {lies}")
        else:
            why = f": {run.failure.brief}" if run.failure else ""
            say("collected", f"{run.state}{why}" + (f", {whereabouts(run)}" if run.commits else ""))


def _ended(place: Place, run_id: str) -> str:
    """End a run that cannot be followed without its key; whether it did."""
    [(_, ending)] = followed(place, {run_id: Unread()}, end=True, give_up_s=GONE_S)
    return "it was ended; " if ending is not None else "nothing was heard of its end; "


def _regained(place: Place, entry: Entry, found: Found) -> RunHandle:
    """The handle of a run whose start was asked for, and whose answer nobody wrote down."""
    folder = place.folder(entry.run_id)
    return RunHandle(
        run_id=entry.run_id,
        host=entry.host,
        run_dir=folder,
        work_dir=f"{folder}/work",
        base_sha=found.base_sha or entry.plan["workspace"]["base_sha"],
        started_at=now() - timedelta(seconds=found.started_s or 0),
    )


def _report(night: Night) -> BatchReport:
    """The batch as it stands now: what is decided, what is left on hosts, what was never begun.

    Routes and tasks that nothing new is known of stay as the batch itself reported them.
    """
    before = past.report(night.ledger)
    runs = tuple(run for task in night.batch.tasks for run in _stand(night, task, before))
    unprobed = tuple(route.model_copy(update={"preflight_s": None}) for route in night.routes())
    undone = any(run.left_running or not run.run_id for run in runs)
    routes = before.routes if before else unprobed
    return batch_report(night, runs, exit_code=exit_code(runs, interrupted=undone), routes=routes)


def _stand(night: Night, task: TaskSpec, before: BatchReport | None) -> list[RunReport]:
    runs = night.ledger.attempts(task.id)
    plan = night.planner.resolve(task, len(runs) + 1, None)
    if night.ledger.planned(plan.run_id):
        runs.append(night.left(plan, Stages(0.0), None))
    if not runs and before is not None:
        runs = [run for run in before.runs if run.task_id == task.id]
    if not runs:
        seen = Evidence(source="host", seen="the batch ended before this task began")
        remedy = f"go on with it: python -m flows.batch --resume {night.ledger.batch_id}"
        runs.append(night.skipped(task, fail(FailureKind.CANCELLED, seen, remedy=remedy), "cancelled"))
    return runs


def _strangers(round_: Round, every: Sequence[Ledger]) -> None:
    """Name the runs on our hosts that nobody here knows, and bring home what can be."""
    known = sweep.known_runs(round_.state)
    repositories = sweep.repositories(every, HARNESSES)
    for place in round_.places:
        if place.failure is not None and not any(line.host == place.name for line in round_.lines):
            round_.say("", "", place.name, "unheard", place.failure.failure.brief)
        for found in sweep.unknown(place, known):
            state, words = _stranger(round_, place, found, repositories.get(found.mirror or ""))
            lies = f"{found.state}, {found.bytes / 1e6:.1f} MB in {place.folder(found.run_id)}"
            round_.say("", found.run_id, place.name, state, f"{lies}{words}")


def _stranger(round_: Round, place: Place, found: Found, like: RunPlan | None) -> tuple[Became, str]:
    if found.lives or like is None or found.base_sha is None:
        return "unknown", ""
    try:
        repo, own = home_of(like, round_.state, round_.search_path)
        got = adopt(place, found, repo if own else bare(repo.path, repo.search_path))
    except (CollectError, HostError) as error:
        return "unknown", f"; {error.failure.brief}"
    if not got.others:
        return "unknown", "; it committed nothing"
    return "adopted", f"; {many(len(got.commits), 'commit')} on {' '.join(got.others)} in {got.repo}"


def _end_state(lines: Sequence[Line]) -> State[Any]:
    """Completed unless something that should have come home did not."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.state] = counts.get(line.state, 0) + 1
    words = ", ".join(f"{number} {state}" for state, number in counts.items()) or "nothing to collect"
    bad = [line for line in lines if line.state in ("left", "unheard")]
    if bad:
        return Failed(message=f"{words}; {bad[0].run_id or bad[0].host}: {bad[0].words}", data=list(lines))
    return Completed(message=words, data=list(lines))


def bring_home(batch_id: str, state: Path | None, *, as_json: bool) -> int:
    """The flow from a terminal; returns the exit code: 0, or 1 when something did not come home.

    Raises:
        BadInput: no such batch.
    """
    directory = state_directory(state, os.environ)
    if batch_id:
        past.batch(directory, batch_id)  # refused before a server is started
    lines: list[Line] = by_hand(
        lambda: collect(batch_id=batch_id, state=str(directory), return_state=True),
        directory,
    )
    rows: list[Mapping[str, Any]] = [asdict(line) for line in lines]
    if as_json:
        print_json({"schema": 1, "runs": rows})
    else:
        show(rows, ("state", "run_id", "batch_id", "host", "words"), "" if rows else "nothing to collect")
    return EXIT_FAILED if any(line.state in ("left", "unheard") for line in lines) else EXIT_SUCCEEDED


if __name__ == "__main__":
    from flows.cli_runs import collect_main

    collect_main()

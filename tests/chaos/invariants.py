"""What must hold after any schedule. Pure: each takes what was seen and names every breach, or nothing."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest

from overnight.failures import FailureKind
from overnight.report import BatchReport, RunReport, count, exit_code, last_attempts
from tests.chaos.seen import Log, Seen
from tests.chaos.truth import untrue

SLACK_BYTES = 16 * 1024  # an agent that is killed between a write and its note of it has written that much more
HEAD_BYTES = 64 * 1024
_ATTEMPT = re.compile(r"t\d+\.\d+")


def outcomes(seen: Seen) -> Iterator[str]:
    """Every run ends in exactly one outcome, and it is true."""
    if seen.stuck:
        yield seen.stuck
    work = {each.task_id: each for each in seen.schedule.work}
    for run_id in sorted(attempts(seen) & set(seen.agents) - set(seen.outcomes)):
        yield f"{run_id} ran and was never decided"
    for run in _reported(seen):
        wrong = untrue(run, work[run.task_id], seen.agents.get(run.run_id), seen.hits)
        if wrong:
            yield wrong
        decided = seen.outcomes.get(run.run_id)
        if run.run_id and decided is not None and decided != run:
            yield f"{run.run_id} is {run.state} in the report and {decided.state} in the ledger"


def commits(seen: Seen) -> Iterator[str]:
    """Every commit made before the end is home, or named with its place."""
    for run_id, agent in sorted(seen.agents.items()):
        run = seen.outcomes.get(run_id)
        missing = [sha for sha in agent.commits if sha not in seen.home]
        if missing and not (run and _names_place(run)):
            yield f"{run_id}: {len(missing)} of {len(agent.commits)} commits are nowhere: {missing[0]}"
        if run and not missing and agent.commits and not _told(run, agent.commits):
            yield f"{run_id}: its {len(agent.commits)} commits are home and its report does not say so"


def _told(run: RunReport, made: tuple[str, ...]) -> bool:
    """Whether the report leads to the last commit; an earlier one is behind it."""
    shas = {commit.sha for commit in run.commits} | set(run.other_refs.values())
    return bool(shas & set(made)) or _names_place(run)


def _names_place(run: RunReport) -> bool:
    return run.failure is not None and any("lies in" in each.seen for each in run.failure.evidence)


def logs(seen: Seen) -> Iterator[str]:
    """Our copy of every output is what the agent wrote, byte for byte."""
    for log in seen.logs:
        run = seen.outcomes.get(log.run_id)
        if run is not None and run.state != "skipped":
            yield from _unlike(log, run, seen)


def _unlike(log: Log, run: RunReport, seen: Seen) -> Iterator[str]:
    ours, written, agent = log.ours or b"", log.written or b"", seen.agents.get(log.run_id)
    capped = run.failure is not None and run.failure.kind is FailureKind.LOG_LIMIT
    if capped:
        if ours[:HEAD_BYTES] != written[:HEAD_BYTES]:
            yield f"{log.run_id}: the head of a capped log is not what was written"
        return
    if log.there is not None and ours != log.there:
        where = _first_difference(ours, log.there)
        yield f"{log.run_id}: we hold {len(ours)} bytes, its host {len(log.there)}; {where}"
    ended = agent is not None and agent.ended is not None and not agent.problem
    more = len(ours) - len(written)
    if not ours.startswith(written) or more > (0 if ended else SLACK_BYTES):
        yield f"{log.run_id}: we hold {len(ours)} bytes, it wrote {len(written)}; {_first_difference(ours, written)}"


def _first_difference(one: bytes, other: bytes) -> str:
    at = next((at for at, (a, b) in enumerate(zip_longest(one, other)) if a != b), len(one))
    return f"they differ from byte {at} on"


def once(seen: Seen) -> Iterator[str]:
    """Never two processes for one run."""
    for run_id, agent in sorted(seen.agents.items()):
        if len(agent.boots) > 1:
            yield f"{run_id} was started {len(agent.boots)} times"


def leftovers(seen: Seen) -> Iterator[str]:
    """No process, lock, port or ref is left over."""
    yield from seen.leftovers
    known = {run_id for run_id in seen.planned if _is_attempt(seen, run_id)}
    branches = {f"refs/heads/overnight/{seen.batch_id}/{work.task_id}" for work in seen.schedule.work}
    for ref in sorted(seen.refs):
        owner = ref.removeprefix("refs/overnight/").split("/")[0]
        if ref not in branches | {"refs/heads/main"} and owner not in known:
            yield f"a ref of nobody: {ref}"


def secrets(seen: Seen) -> Iterator[str]:
    """No secret lies anywhere."""
    for place in seen.secrets:
        yield f"the key lies in {place}"


def report(seen: Seen) -> Iterator[str]:
    """The report adds up: tasks, attempts, counts, exit code, branches."""
    found = seen.report
    if found is None:
        yield "there is no report"
        return
    tasks = {work.task_id for work in seen.schedule.work}
    last = last_attempts(found.runs)
    if {run.task_id for run in last} != tasks:
        yield f"it tells of {sorted(run.task_id for run in last)}, the batch has {sorted(tasks)}"
    if found.counts != count(found.runs) or sum(found.counts.values()) != len(tasks):
        yield f"its counts {found.counts} are not those of its runs"
    cancelled = any(hit.kind == "cancel" for hit in seen.hits)
    if found.exit_code not in {exit_code(found.runs, interrupted=each) for each in {False, cancelled}}:
        yield f"its exit code {found.exit_code} is not that of its runs"
    if seen.exit_code is not None and seen.exit_code not in _true_codes(seen, found):
        yield f"the process ended with {seen.exit_code}, the report says {found.exit_code}"
    if any(run.left_running for run in found.runs):
        yield "it leaves runs running"
    yield from _attempts_add_up(seen, found.runs)


def _true_codes(seen: Seen, found: BatchReport) -> set[int]:
    """What the last process may have ended with: the report's code, or what it was made to say by a fault."""
    kinds = {hit.kind for hit in seen.hits}
    codes = {found.exit_code}
    if "cancel" in kinds:
        codes.add(0)  # `overnight cancel` says whether anything still runs
    if "twin" in kinds and seen.exit_code is not None:
        codes.add(seen.exit_code)  # the other one may have gone on with the batch, and wrote the report
    if kinds & {"kill-controller", "cancel"}:
        codes.add(-signal.SIGKILL)
    return codes


def _attempts_add_up(seen: Seen, runs: tuple[RunReport, ...]) -> Iterator[str]:
    for run_id, times in Counter(run.run_id for run in runs if run.run_id).items():
        if times > 1:
            yield f"{run_id} stands there {times} times"
    for task in seen.schedule.work:
        numbers = [run.attempt for run in runs if run.task_id == task.task_id and run.run_id]
        if numbers != list(range(1, len(numbers) + 1)) or len(numbers) > seen.schedule.attempts:
            yield f"{task.task_id} has the attempts {numbers}"
    for run in last_attempts(runs):
        tip = seen.refs.get(f"refs/heads/{run.branch}")
        if run.branch and tip != run.commits[-1].sha:
            yield f"{run.branch} is at {tip}, not at the last commit of {run.run_id}"


def _reported(seen: Seen) -> tuple[RunReport, ...]:
    return seen.report.runs if seen.report else ()


def attempts(seen: Seen) -> set[str]:
    """Run ids of attempts at tasks, planned or begun; not of probes."""
    return {run_id for run_id in {*seen.planned, *seen.agents} if _is_attempt(seen, run_id)}


def _is_attempt(seen: Seen, run_id: str) -> bool:
    return bool(_ATTEMPT.fullmatch(run_id.removeprefix(f"{seen.batch_id}.")))


INVARIANTS: Mapping[str, Callable[[Seen], Iterator[str]]] = {
    "outcomes": outcomes,
    "commits": commits,
    "logs": logs,
    "once": once,
    "leftovers": leftovers,
    "secrets": secrets,
    "report": report,
}


def breaches(seen: Seen) -> dict[str, list[str]]:
    """Each invariant -> what breaks it."""
    return {name: list(judge(seen)) for name, judge in INVARIANTS.items()}

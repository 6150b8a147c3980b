"""The last step of a task that a person has to approve: its commits are at home, its branch is not there yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from overnight.alarm import sounded
from overnight.attribution import attributed
from overnight.git import GitError, Repo
from overnight.morning import many
from overnight.night import Night, now
from overnight.outgoing import findings
from overnight.report import BatchReport, RunReport, count, exit_code, last_attempts


def awaiting(runs: Sequence[RunReport]) -> list[RunReport]:
    """The runs whose commits wait for a person's word."""
    return [run for run in last_attempts(runs) if run.approved is False and not run.left_running]


def as_it_stands(night: Night, runs: Sequence[RunReport]) -> BatchReport:
    """The batch before a person has said their word, for its pages."""
    return BatchReport(
        batch_id=night.ledger.batch_id,
        name=night.batch.name,
        started_at=night.ledger.reopen()[1],
        ended_at=now(),
        exit_code=exit_code(runs, interrupted=night.interrupt is not None),
        routes=night.routes(),
        runs=tuple(runs),
        counts=count(runs),
        source=night.batch.source,
        attribution=attributed(runs),
        alarm=sounded(runs),
    )


def offer(runs: Sequence[RunReport], search_path: str) -> str:
    """What would be delivered, as Markdown: each run's commits, its changed files and how to see the whole diff.

    Subjects and file names are an agent's words: they stand in blocks of code, where they cannot pose as ours.
    """
    parts = []
    for run in runs:
        tip, base = run.commits[-1].sha, run.base_sha or ""
        try:
            files = Repo(Path(run.repo or ""), search_path).changed_files(base, tip)
        except GitError as error:
            files = f"cannot be shown: {error}"
        lines = [f"### {run.task_id}: {run.state}, {many(len(run.commits), 'commit')}, {run.diffstat}", ""]
        lines += _code([*(f"{commit.sha[:10]} {commit.subject}" for commit in run.commits), "", *files.splitlines()])
        if run.guards:
            lines += ["", "What the guards found:", "", *_code(findings(run, 20))]
        lines += ["", f"`git -C {run.repo} diff {base[:12]} {tip[:12]}`", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _code(lines: Sequence[str]) -> list[str]:
    """A block of code that nothing in it can end: its fence is longer than any run of backticks there."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, fence]


def deliver(night: Night, run: RunReport) -> RunReport:
    """Make the branch of an approved run; the outcome on disk says so. Idempotent.

    A branch of that name which somebody went on with is left alone, and the
    commits stay where `other_refs` says.

    Raises:
        GitError: git failed on the repository at home.
    """
    task = next(task for task in night.batch.tasks if task.id == run.task_id)
    branch = night.planner.resolve(task, run.attempt, None).branch
    ours = f"refs/overnight/{night.ledger.batch_id}.{run.task_id}.*/head"
    made = Repo(Path(run.repo or ""), night.search_path).set_branch(branch, run.commits[-1].sha, ours)
    update: dict[str, Any] = {"approved": True}
    if made:
        head = f"refs/overnight/{run.run_id}/head"
        update |= {"branch": branch, "other_refs": {r: sha for r, sha in run.other_refs.items() if r != head}}
    delivered = run.model_copy(update=update)
    night.ledger.save(run.run_id, "outcome", delivered)
    night.tell(run.task_id, "done", f"approved, {many(len(run.commits), 'commit')} on {branch if made else 'our refs'}")
    return delivered

"""The last step of a task: a person's word where one is needed, the branch, and the way to a remote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from overnight.failures import BadInput
from overnight.forge import Forge, Offer, project_of, request
from overnight.git import GitError, Repo
from overnight.handover import Handed, held
from overnight.morning import many
from overnight.night import Night
from overnight.outgoing import findings
from overnight.outgoing import handed as handed_words
from overnight.printable import fenced, one_line
from overnight.push import Refused, address, push, shown
from overnight.report import RunReport, last_attempts
from overnight.spec import TaskSpec, is_url
from overnight.stack import why_kept


def awaiting(runs: Sequence[RunReport]) -> list[RunReport]:
    """The runs whose commits wait for a person's word."""
    return [run for run in last_attempts(runs) if run.approved is False and not run.left_running]


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
        commits = [f"{commit.sha[:10]} {commit.subject}" for commit in run.commits]
        lines += fenced("\n".join([*commits, "", files]))
        if run.guards:
            lines += ["", "What the guards found:", "", *fenced("\n".join(findings(run, 20)))]
        lines += ["", f"`git -C {run.repo} diff {base[:12]} {tip[:12]}`", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def is_due(night: Night, run: RunReport) -> bool:
    """Whether a run is to be pushed now: its task succeeded and wants it, nothing holds it, and it is not there yet."""
    wanted = _task(night, run).deliver.how != "branch" and run.state == "succeeded" and bool(run.commits)
    free = held(run.guards) != "refuse" and run.approved is not False
    return wanted and free and (run.handed is None or run.handed.state == "failed")


def hand_over(night: Night, run: RunReport, forge: Forge | BadInput | None, env: Mapping[str, str]) -> RunReport:
    """Push a run's commits, and open its pull request where that is asked; the outcome on disk says so. Idempotent.

    Never raises for what a remote does: the commits are safe, and the report names what went wrong.

    Args:
        forge: Where the task's pull request is made; what was wrong with its block; None when it needs none.
        env: The user's own environment; `push.INHERITED` of it is used.
    """
    task = _task(night, run)
    wish, repo = task.deliver, Repo(Path(run.repo or ""), night.search_path)
    remote = _remote(task)
    branch = wish.branch.format(batch=night.ledger.batch_id, task=task.id)
    record: dict[str, Any] = {"how": wish.how, "remote": shown(remote), "branch": branch, "sha": run.commits[-1].sha}
    try:
        _check_below(night, run)
        found = Handed(state="delivered", url=_sent(repo, remote, branch, run, task, forge, env), **record)
    except Refused as error:
        state: Literal["left alone", "failed"] = "left alone" if error.went_on else "failed"
        again = f"{error.mend}; then: overnight deliver {night.ledger.batch_id} {task.id}"
        found = Handed(state=state, problem=error.problem, mend=again, **record)
    except GitError as error:
        found = Handed(state="failed", problem=str(error), mend="see the repository here", **record)
    return _recorded(night, run, found)


def _check_below(night: Night, run: RunReport) -> None:
    """A push carries all that its commits stand on, which may be those of another task, and kept here.

    Raises:
        Refused: they are.
    """
    told = _task(night, run).below  # of one that another worker may have collected
    if told is not None and told.kept:
        raise _stands_on(told.kept)
    every = [other for task in night.batch.tasks for other in night.ledger.attempts(task.id)]
    by_commit = {commit.sha: other for other in every for commit in other.commits}
    below = by_commit.get(run.base_sha or "")
    while below is not None:
        if why := why_kept(below):
            raise _stands_on(f"commits of {below.task_id}, which {why}")
        below = by_commit.get(below.base_sha or "")


def _stands_on(what: str) -> Refused:
    return Refused(f"it stands on {what}", "look at that task first")


def unsent(night: Night, run: RunReport, why: str) -> RunReport:
    """The same for one whose delivery was not even tried."""
    task = _task(night, run)
    branch = task.deliver.branch.format(batch=night.ledger.batch_id, task=task.id)
    again = f"overnight deliver {night.ledger.batch_id} {task.id}"
    return _recorded(
        night,
        run,
        Handed(
            how=task.deliver.how,
            state="failed",
            remote=shown(_remote(task)),
            branch=branch,
            sha=run.commits[-1].sha,
            problem=why,
            mend=again,
        ),
    )


def _recorded(night: Night, run: RunReport, found: Handed) -> RunReport:
    handed = run.model_copy(update={"handed": found})
    night.ledger.save(run.run_id, "outcome", handed)
    night.tell(run.task_id, "deliver", "; ".join(handed_words(found)))
    return handed


def _remote(task: TaskSpec) -> str:
    return task.deliver.remote or (task.repo if is_url(task.repo) else "origin")


def _sent(
    repo: Repo,
    remote: str,
    branch: str,
    run: RunReport,
    task: TaskSpec,
    forge: Forge | BadInput | None,
    env: Mapping[str, str],
) -> str | None:
    """The page of the pull request; None where only a push was asked for."""
    if isinstance(forge, BadInput):
        raise Refused(f"{forge.where}: {forge.field} {forge.problem}", forge.mend)
    url = address(repo, remote, env)
    ours = f"refs/overnight/*.{run.task_id}.*/head"
    push(repo, url, branch, run.commits[-1].sha, ours, env, forge.login if forge else None)
    if task.deliver.how == "push" or forge is None:
        return None
    project = task.deliver.project or project_of(url)
    if project is None:
        raise Refused(f"no owner/name can be read from {shown(url)}; the branch is pushed", "write deliver.project")
    title = f"{task.id}: {one_line(run.commits[-1].subject)}"[:200]
    return request(forge, Offer(project, branch, merges_into(task), title, public(run), draft=task.deliver.draft))


def merges_into(task: TaskSpec) -> str | None:
    """The branch a task's pull request is for; None for the project's default branch."""
    if task.deliver.base or task.base == "HEAD" or re.fullmatch("[0-9a-f]{40}", task.base):
        return task.deliver.base
    return task.base.removeprefix("refs/heads/").removeprefix(f"{task.deliver.remote or 'origin'}/")


def public(run: RunReport) -> str:
    """What a pull request says: no path, host or log of ours. What an agent wrote stands in blocks of code."""
    lines = [
        f"{many(len(run.commits), 'commit')} by {run.harness} with {run.model} of {run.provider}, run by overnight."
    ]
    commits = [f"{each.sha[:10]} {one_line(each.subject)}" for each in run.commits]
    lines += ["", *fenced("\n".join([*commits, run.diffstat])), ""]
    if run.verify:
        passed = "passed" if run.verify.exit_code == 0 else "did not pass"
        lines += ["Its check " + passed + ":", "", *fenced(one_line(run.verify.command)), ""]
    else:
        lines += ["It had no check.", ""]
    if run.guards:
        lines += ["What the guards found in the diff:", "", *fenced("\n".join(findings(run, 20))), ""]
    return "\n".join(lines).rstrip()


def _task(night: Night, run: RunReport) -> TaskSpec:
    return next(task for task in night.batch.tasks if task.id == run.task_id)


def deliver(night: Night, run: RunReport) -> RunReport:
    """Make the branch of an approved run; the outcome on disk says so. Idempotent.

    A branch of that name which somebody went on with is left alone, and the
    commits stay where `other_refs` says.

    Raises:
        GitError: git failed on the repository at home.
    """
    task = _task(night, run)
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

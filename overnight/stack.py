"""Stacks: a task that starts from what another committed, which may have come home on another machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain

from overnight import errands
from overnight.below import Below
from overnight.failures import Evidence, FailureKind, HostError, WorkspaceError, fail
from overnight.git import GitError, Repo
from overnight.handover import held
from overnight.plan import RunPlan
from overnight.report import RunReport
from overnight.spec import HostSpec, TaskSpec
from overnight.station import Station

_AGAIN_S = (2.0, 8.0, 20.0)


def below_of(task: TaskSpec, tasks: Sequence[TaskSpec], runs: Mapping[str, Sequence[RunReport]]) -> Below:
    """What a stacked task starts from, once the task below it has succeeded.

    Args:
        runs: The attempts of every task of the batch, by its id.
    """
    known, under = {each.id: each for each in tasks}, [task]
    while under[-1].stacked:
        under.append(known[under[-1].after[0]])
    every = [runs[each.id][-1] for each in under[1:]]
    kept = next((f"commits of {run.task_id}, which {why}" for run in every if (why := why_kept(run))), "")
    bases = tuple(run.base_sha for run in every if run.base_sha)
    return Below(run_id=every[0].run_id, tip=every[0].commits[-1].sha, bases=bases, host=every[0].host, kept=kept)


def why_kept(run: RunReport) -> str:
    """Why a run's commits must not leave this machine; empty when they may."""
    if held(run.guards) == "refuse":
        return "a guard refused"
    return "wait for a person's word" if run.approved is False else ""


def stand(plan: RunPlan, repo: Repo, own: Station, hosts: Mapping[str, HostSpec], tell: Callable[[str], None]) -> None:
    """See that the commit a stacked run starts from is in the repository here; brought from its host if it is not.

    Every object of it is checked, as of all that comes home, and a ref of the run keeps it. Again changes nothing.

    Args:
        own: The run's own host. If that has the run already, nothing is missing.

    Raises:
        WorkspaceError: it is not to be had any more, with what was seen and what to do.
        HostError: the run's own host could not be reached.
    """
    below = plan.below
    if below is None:
        return
    try:
        if not repo.has(below.tip):
            if own.holds(plan.run_id):
                return
            _bring(below, plan, repo, own, hosts)
            tell(f"brought {below.tip[:12]} of {below.run_id} from {below.host}")
        repo.set_refs({f"refs/overnight/{plan.run_id}/base": below.tip})
    except (GitError, WorkspaceError, OSError) as error:  # OSError: the disk here is full, or not ours to write
        raise _gone(below, repo, hosts[below.host], error) from error


def _gone(below: Below, repo: Repo, host: HostSpec, error: Exception) -> WorkspaceError:
    why = error.failure.brief if isinstance(error, WorkspaceError) else str(error)
    seen = f"its base {below.tip} of {below.run_id} is not to be had in {repo.path}: {why}"
    remedy = (
        f"bring it to {repo.path} on this worker from the repository that has refs/overnight/{below.run_id}/head, "
        "or start both tasks again"
    )
    lies = Evidence(source="git", seen=seen, where=f"{below.host}:{host.directory}/runs/{below.run_id}")
    return WorkspaceError(fail(FailureKind.WORKSPACE, lies, remedy=remedy))


def _bring(below: Below, plan: RunPlan, repo: Repo, own: Station, hosts: Mapping[str, HostSpec]) -> None:
    """Another host than the run's own is waited for only a little: nobody else waits for that one."""
    if below.host == own.name:
        return _take(below, plan, repo, own)
    there = Station(below.host, hosts[below.host], lambda _: None)
    try:
        for pause in _AGAIN_S:
            with suppress(HostError):
                return _take(below, plan, repo, there)
            time.sleep(pause)
        return _take(below, plan, repo, there)
    except HostError as error:
        raise WorkspaceError(error.failure) from error
    finally:
        there.close()


def _take(below: Below, plan: RunPlan, repo: Repo, there: Station) -> None:
    folder = there.run_dir(below.run_id)
    words = (f"{folder}/work", f"{folder}/for-{plan.run_id}.git", below.tip, *repo.having(below.bases))
    with closing(there.workspaces.said(errands.BRING, *words)) as said:
        next(said)
        repo.take_pack(chain([next(said, b"")], said), plan.limits.max_collect_bytes)

"""What of ended batches lies on this machine and is needed no more: refs in repositories, and records."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from overnight import past
from overnight.failures import BadInput
from overnight.git import GitError, Repo
from overnight.ledger import Ledger
from overnight.past import Entry
from overnight.sweep import Place, Verdict

HERE = "this machine"


@dataclass(frozen=True)
class OldRef:
    """One of our refs, and what becomes of it."""

    verdict: Verdict
    repo: Repo
    name: str
    sha: str


@dataclass(frozen=True)
class OldRecord:
    """A batch's folder, and what becomes of it."""

    verdict: Verdict
    ledger: Ledger


def judge_refs(known: Mapping[str, Entry], keep: timedelta, now: datetime, search_path: str) -> list[OldRef]:
    """Say of every ref that we made for a decided run whether it may go: it is old, and its commit is in a branch.

    Asks git, changes nothing. What was not committed, and commits that no branch
    leads to, keep their refs. So do batches that somebody carries out. A
    repository that cannot be read is passed over: its runs say so.
    """
    made: list[OldRef] = []
    for entry in known.values():
        run = None if entry.is_probe else entry.outcome
        if run is None or run.repo is None or now - entry.settled_at < keep or past.is_held(entry.ledger):
            continue
        repo = Repo(Path(run.repo), search_path)
        try:
            made += [_ref(repo, name, sha) for name, sha in repo.refs(f"refs/overnight/{run.run_id}/").items()]
        except GitError:
            continue
    return made


def _ref(repo: Repo, name: str, sha: str) -> OldRef:
    branch = repo.branch_with(sha)
    why = f"its commit is in {branch}" if branch else "no branch leads to its commit"
    return OldRef(Verdict(HERE, f"{repo.path} {name}", 0, "may go" if branch else "kept", why), repo, name, sha)


def judge_records(
    ledgers: Iterable[Ledger], places: Sequence[Place], keep: timedelta, now: datetime
) -> list[OldRecord]:
    """Say of every batch folder whether it may go: all of it decided, old, and nothing of it on any host.

    A run's record is what lets it go from its host, so it goes last: while a
    host is not heard, all stay.
    """
    unheard = sorted(place.name for place in places if place.failure is not None)
    there = {found.run_id for place in places for found in place.found}
    return [_record(ledger, unheard, there, keep, now) for ledger in ledgers]


def _record(ledger: Ledger, unheard: Sequence[str], there: set[str], keep: timedelta, now: datetime) -> OldRecord:
    every = list(past.entries(ledger))
    lying = [entry.run_id for entry in every if entry.run_id in there]
    newest = max((entry.settled_at for entry in every), default=now)
    why = ""
    if past.is_held(ledger):
        why = "another process carries it out"
    elif any(entry.outcome is None for entry in every if not entry.is_probe):
        why = f"not decided yet: overnight collect {ledger.batch_id}"
    elif now - newest < keep:
        why = f"younger than {keep.total_seconds() / 86400:g} days"
    elif unheard or lying:
        why = f"{lying[0]} lies on its host" if lying else f"{', '.join(unheard)} could not be asked"
    size = 0 if why else sum(path.stat().st_size for path in ledger.directory.rglob("*") if path.is_file())
    verdict = Verdict(HERE, str(ledger.directory), size, "kept" if why else "may go", why or "all of it is decided")
    return OldRecord(verdict, ledger)


def drop_refs(refs: Sequence[OldRef]) -> list[Verdict]:
    """Remove those that may go, each only while it stands where it was judged."""
    return [_dropped(each) if each.verdict.verdict == "may go" else each.verdict for each in refs]


def _dropped(old: OldRef) -> Verdict:
    try:
        old.repo.drop_ref(old.name, old.sha)
    except GitError as error:
        return replace(old.verdict, verdict="failed", why=str(error))
    return replace(old.verdict, verdict="removed")


def drop_records(records: Sequence[OldRecord]) -> list[Verdict]:
    """Remove the folders that may go."""
    return [_forgotten(each) if each.verdict.verdict == "may go" else each.verdict for each in records]


def _forgotten(old: OldRecord) -> Verdict:
    try:
        with old.ledger.held():
            shutil.rmtree(old.ledger.directory)
    except (OSError, BadInput) as error:
        return replace(old.verdict, bytes=0, verdict="failed", why=str(error))
    return replace(old.verdict, verdict="removed")

"""From what a user typed to a batch on disk: everything that can be refused is refused here."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.forge_credentials import load_forge
from blocks.hosts import load_hosts
from blocks.task_form import TaskForm
from flows.conduct import decided
from flows.state import state_directory as state_directory
from overnight import batchfile, layers, lockfile
from overnight.failures import BadInput, FailureError
from overnight.form import PARAMETERS
from overnight.git import GitError, Repo
from overnight.harnesses import HARNESSES, take_up
from overnight.ledger import Ledger
from overnight.lockfile import ProviderLock
from overnight.night import now
from overnight.plan import Planner, RunPlan
from overnight.push import Refused, address
from overnight.spec import BatchSpec, is_url


@dataclass(frozen=True)
class Prepared:
    """A batch that was read and found good, hosts named by block not yet loaded."""

    batch: BatchSpec
    batch_id: str
    lock: ProviderLock
    lock_path: Path

    def asked(self, *, approve: bool, spread: bool) -> Prepared:
        """The same batch with what the form asks for beside what the file says.

        Raises:
            BadInput: a host of it cannot be spread to.
        """
        tasks = tuple(task.model_copy(update={"approve": task.approve or approve}) for task in self.batch.tasks)
        batch = self.batch.model_copy(update={"tasks": tasks, "spread": self.batch.spread or spread})
        _check_spread(batch)
        return replace(self, batch=batch)

    @property
    def plans(self) -> list[RunPlan]:
        """Every task's first attempt, as it will be run."""
        return Planner(self.lock, str(self.lock_path), HARNESSES, self.batch, self.batch_id).check()


def prepare(files: Sequence[Path], lock_path: Path | None, only: Sequence[str], environ: Mapping[str, str]) -> Prepared:
    """Read and check a batch without touching anything but the files named in it.

    Raises:
        BadInput: with file, field and mend.
    """
    take_up(environ)
    batch = batchfile.load(files, environ)
    return checked(batch.only(only) if only else batch, lock_path, environ)


def inline(name: str, tasks: Sequence[TaskForm], lock_path: Path | None, environ: Mapping[str, str]) -> Prepared:
    """The batch that was typed into a form, checked as a file would be.

    Raises:
        BadInput: with field and mend.
    """
    take_up(environ)
    lock = layers.in_use(lock_path, environ)
    entries = [task.entry(lock, f"tasks[{i}]") for i, task in enumerate(tasks)]
    hosts = {task.host.saved_as: task.host.described() for task in tasks}
    raw = {"name": name, "hosts": hosts, "tasks": entries}
    return checked(batchfile.complete(raw, PARAMETERS, Path.home(), {}), lock_path, environ)


def checked(
    batch: BatchSpec, lock_path: Path | None, environ: Mapping[str, str], batch_id: str | None = None
) -> Prepared:
    """A batch that was read, with everything a start needs looked at: plans, repositories, key files.

    Raises:
        BadInput: with field and mend.
    """
    path = lockfile.place(lock_path, environ)
    prepared = checked_plans(batch, layers.whole(path), path, batch_id)
    _check_spread(batch)
    _check_repositories(batch, environ.get("PATH", os.defpath))
    _check_remotes(batch, environ.get("PATH", os.defpath), environ)
    _check_key_files(batch)
    return prepared


def checked_plans(batch: BatchSpec, lock: ProviderLock, path: Path, batch_id: str | None = None) -> Prepared:
    """A batch whose tasks can all be planned; repositories and key files are not looked at.

    Raises:
        BadInput: with field and mend.
    """
    batch_id = batch_id or f"{batch.name}-{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    tasks = tuple(task.on(task.ordered(batch_id)[0]) for task in batch.tasks)
    batch = batch.model_copy(update={"tasks": tasks})
    prepared = Prepared(batch, batch_id, lock, path)
    _ = prepared.plans
    return prepared


def with_hosts(prepared: Prepared) -> Prepared:
    """The same batch with every `block: NAME` host loaded from the Prefect API.

    Raises:
        BadInput: a block is missing or malformed, or names a key file that is not here.
    """
    hosts = load_hosts(prepared.batch.hosts, prepared.batch.source)
    batch = prepared.batch.model_copy(update={"hosts": hosts})
    _check_key_files(batch)
    check_forges(batch)
    return replace(prepared, batch=batch)


def record(prepared: Prepared, state: Path, part: str = "") -> Ledger:
    """Write the batch to the state directory; from here on it can be resumed."""
    ledger = Ledger(state, prepared.batch_id, part)
    ledger.open_new(prepared.batch, prepared.lock.model_dump_json(by_alias=True, exclude_none=True, indent=1), now())
    return ledger


def check_here(ledger: Ledger, environ: Mapping[str, str]) -> None:
    """See that a recorded batch can be gone on with from this machine, which may be another than it was begun on.

    Without the repository its commits would count as lost, and be decided so.

    Raises:
        BadInput: names what is missing here, and where it has to be.
    """
    batch, _ = ledger.reopen()
    where, path = str(ledger.directory / "batch.json"), environ.get("PATH", os.defpath)
    undecided = [task for task in batch.tasks if not decided(ledger.attempts(task.id), task)]
    for task in undecided:
        try:
            if not is_url(task.repo):
                Repo(Path(task.repo), path).run("rev-parse", "--git-dir")
        except GitError:
            problem = f"there is no git repository {task.repo} on this machine"
            mend = "Bring it to that very path (a clone or a link will do), then go on"
            raise BadInput(where, f"tasks.{task.id}.repo", problem, mend) from None
    used = {route.host for task in undecided for route in (task.route, *task.routes)}
    for name, host in batch.hosts.items():
        if name in used and host.key_file is not None and not os.path.isfile(host.key_file):
            mend = f"Put a private key there that {name} lets in, then go on"
            raise BadInput(where, f"hosts.{name}.key_file", f"there is no file {host.key_file} on this machine", mend)


def _check_spread(batch: BatchSpec) -> None:
    """Workers on other machines must mean the same host, and know it by its key; each has its own repositories."""
    for name, host in batch.hosts.items() if batch.spread else ():
        if host.kind == "local":
            mend = "Give it by address and user: for another worker, local is another machine"
            raise BadInput(batch.source, f"hosts.{name}.kind", "is local, and spread is on", mend)
        if host.block is None and host.host_key is None:
            mend = "Pin it, e.g. with `overnight hosts add`: workers have no common known_hosts"
            raise BadInput(batch.source, f"hosts.{name}.host_key", "is missing, and spread is on", mend)


def _check_repositories(batch: BatchSpec, search_path: str) -> None:
    if shutil.which("git", path=search_path) is None and not all(is_url(task.repo) for task in batch.tasks):
        raise BadInput("this machine", "git", f"is not on PATH ({search_path})", "Install git")
    checked: set[tuple[str, str]] = set()
    for task in batch.tasks:
        if is_url(task.repo) or (task.repo, task.base) in checked:
            continue
        checked.add((task.repo, task.base))
        if not os.path.isdir(task.repo):  # Path.is_dir raises where a folder may not be entered
            raise BadInput(
                batch.source, f"{task.field}.repo", f"no folder {task.repo}", "Give a git repository or a URL"
            )
        repo = Repo(Path(task.repo), search_path)
        try:
            repo.run("rev-parse", "--git-dir")
        except GitError as error:
            problem = f"{task.repo} is no git repository"
            raise BadInput(batch.source, f"{task.field}.repo", problem, "Give a git repository or a URL") from error
        try:
            repo.resolve(task.base)
        except FailureError as error:
            problem = f"no commit {task.base!r} in {task.repo}"
            raise BadInput(batch.source, f"{task.field}.base", problem, "Name a branch, tag or commit of it") from error


def check_forges(batch: BatchSpec) -> None:
    """See that what pull requests need is saved, hours before they are made. Blocks on the network."""
    fields = {task.deliver.forge: f"{task.field}.deliver.forge" for task in batch.tasks if task.deliver.forge}
    for name, field in fields.items():
        load_forge(name, batch.source, field)


def _check_remotes(batch: BatchSpec, search_path: str, environ: Mapping[str, str]) -> None:
    for task in batch.tasks:
        remote = task.deliver.remote or "origin"
        if task.deliver.how == "branch" or is_url(task.repo):
            continue
        try:
            address(Repo(Path(task.repo), search_path), remote, environ)
        except Refused as error:
            raise BadInput(batch.source, f"{task.field}.deliver.remote", error.problem, error.mend) from error


def _check_key_files(batch: BatchSpec) -> None:
    for name, host in batch.hosts.items():
        if host.key_file is not None and not os.path.isfile(host.key_file):
            raise BadInput(batch.source, f"hosts.{name}.key_file", f"no file {host.key_file}", "Name a private key")

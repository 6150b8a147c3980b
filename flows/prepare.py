"""From what a user typed to a batch on disk: everything that can be refused is refused here."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.hosts import load_hosts
from overnight import batchfile, lockfile
from overnight.failures import BadInput, FailureError
from overnight.git import GitError, Repo
from overnight.harnesses import HARNESSES
from overnight.ledger import Ledger
from overnight.lockfile import ProviderLock
from overnight.night import now
from overnight.plan import Planner, RunPlan
from overnight.spec import BatchSpec, HostSpec, is_url


@dataclass(frozen=True)
class Prepared:
    """A batch that was read and found good, hosts named by block not yet loaded."""

    batch: BatchSpec
    batch_id: str
    lock: ProviderLock
    lock_path: Path

    @property
    def plans(self) -> list[RunPlan]:
        """Every task's first attempt, as it will be run."""
        return Planner(self.lock, str(self.lock_path), HARNESSES, self.batch, self.batch_id).check()


def prepare(files: Sequence[Path], lock_path: Path | None, only: Sequence[str], environ: Mapping[str, str]) -> Prepared:
    """Read and check a batch without touching anything but the files named in it.

    Raises:
        BadInput: with file, field and mend.
    """
    batch = batchfile.load(files, environ)
    if only:
        batch = batch.only(only)
    path = lock_path or lockfile.DEFAULT_LOCK
    batch_id = f"{batch.name}-{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    prepared = Prepared(batch, batch_id, lockfile.load(path), path)
    _ = prepared.plans
    _check_repositories(batch, environ.get("PATH", os.defpath))
    _check_key_files(batch)
    return prepared


def with_hosts(prepared: Prepared) -> Prepared:
    """The same batch with every `block: NAME` host loaded from the Prefect API.

    Raises:
        BadInput: a block is missing or malformed, or names a key file that is not here.
    """
    hosts = load_hosts(prepared.batch.hosts, prepared.batch.source)
    batch = prepared.batch.model_copy(update={"hosts": {name: _at_home(host) for name, host in hosts.items()}})
    _check_key_files(batch)
    return replace(prepared, batch=batch)


def record(prepared: Prepared, state: Path) -> Ledger:
    """Write the batch to the state directory; from here on it can be resumed."""
    ledger = Ledger(state, prepared.batch_id)
    ledger.open_new(prepared.batch, prepared.lock_path.read_text(encoding="utf-8"), now())
    return ledger


def state_directory(given: Path | None, environ: Mapping[str, str]) -> Path:
    """Where batches are kept: `--state`, else `$XDG_STATE_HOME/overnight`, else `~/.local/state/overnight`.

    Raises:
        BadInput: a file stands there.
    """
    directory = Path(environ.get("XDG_STATE_HOME") or "~/.local/state") / "overnight" if given is None else given
    directory = directory.expanduser().absolute()
    if directory.exists() and not directory.is_dir():
        raise BadInput("command line", "--state", f"{directory} is not a folder", "Name a folder")
    return directory


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


def _at_home(host: HostSpec) -> HostSpec:
    """A block is used on any machine, so `~` in it is the home of this one."""
    return host if host.key_file is None else host.model_copy(update={"key_file": host.key_file.expanduser()})


def _check_key_files(batch: BatchSpec) -> None:
    for name, host in batch.hosts.items():
        if host.key_file is not None and not os.path.isfile(host.key_file):
            raise BadInput(batch.source, f"hosts.{name}.key_file", f"no file {host.key_file}", "Name a private key")

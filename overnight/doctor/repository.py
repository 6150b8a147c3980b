"""What the repository to be worked on would add to an agent, read at the base commit and never checked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from overnight.doctor import onhost, shadows
from overnight.doctor.places import IN_REPOSITORY, Place
from overnight.doctor.records import Finding, Shadow
from overnight.doctor.values import Values
from overnight.failures import FailureError
from overnight.git import GitError, Repo
from overnight.lockfile import ProviderLock
from overnight.remote import Remote
from overnight.workspace import mirror_name

_QUICK_S = 20.0
_PINS = "refs/overnight/base"

Ask = Callable[[Sequence[str]], str]
"""Runs git with these arguments and returns its output. Raises GitError."""


@dataclass(frozen=True)
class RepositoryLook:
    """What a repository would bring. With `not_looked_at`, nobody could say."""

    repo: str
    shadows: tuple[Shadow, ...] = ()
    findings: tuple[Finding, ...] = ()
    not_looked_at: tuple[str, ...] = ()


def look_here(repo: Repo, base: str, lock: ProviderLock, values: Values) -> RepositoryLook:
    """A repository on this machine, at the commit that runs start from. Nothing of it is executed."""
    try:
        return _look(str(repo.path), lambda words: repo.run(*words), repo.resolve(base), lock, values)
    except (GitError, FailureError) as error:
        return RepositoryLook(str(repo.path), not_looked_at=(f"{repo.path} at {base}: {error}",))


def look_there(remote: Remote, url: str, lock: ProviderLock, values: Values) -> RepositoryLook:
    """One that only hosts can reach, in the mirror of an earlier run: at the commit that the newest run started from.

    Raises:
        HostError: the connection failed.
    """
    mirror = f"{remote.install().root}/mirrors/{mirror_name(url)}.git"

    def ask(words: Sequence[str]) -> str:
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
        done = remote.execute(["git", f"--git-dir={mirror}", *words], env=env, timeout_s=_QUICK_S)
        if done.code != 0:
            raise GitError(f"git {words[0]} there: exit code {done.code}")
        return done.out.decode("utf-8", "replace").strip()

    try:
        newest = ask(["for-each-ref", "--sort=-committerdate", "--count=1", "--format=%(objectname)", _PINS])
        if newest:
            return _look(url, ask, newest, lock, values)
    except (GitError, TimeoutError):
        pass  # there is no mirror, or none that answers
    why = f"{url}: no run was started from it on {remote.host.name} yet, so its files are not there to be read"
    return RepositoryLook(url, not_looked_at=(why,))


def _look(name: str, ask: Ask, commit: str, lock: ProviderLock, values: Values) -> RepositoryLook:
    found: list[Shadow] = []
    findings: list[Finding] = []
    places = {place.path: place for place in shadows.with_lock(IN_REPOSITORY, lock, "./") if place.path[:2] == "./"}
    there = ask(
        ["ls-tree", "-z", "--full-tree", "--name-only", commit, "--", *(path[2:].rstrip("/") for path in places)]
    )
    for path, place in places.items():
        if path[2:].rstrip("/") not in there.split("\0"):
            continue
        said = _read(ask, commit, place, values)
        brought = shadows.of_file(said, place, lock, values)
        found += brought
        findings += shadows.file_findings(said, place, brought, lock, values)
    return RepositoryLook(name, tuple(found), tuple(findings))


def _read(ask: Ask, commit: str, place: Place, values: Values) -> dict[str, Any]:
    """As the host's script says it of a file there."""
    if place.kind == "is-there":
        return onhost.about(place.path, place.path)
    # the commit's line first: output comes stripped, and lines would be counted wrongly
    answer = ask(["show", "-s", "--no-textconv", "--format=%H", commit, f"{commit}:{place.path[2:]}"])
    said = onhost.about(place.path, place.path)
    return onhost.read_text(answer.partition("\n")[2], vars(place), values.interest(), said)

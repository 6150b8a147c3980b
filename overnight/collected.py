"""What came home: counted in git, whatever the agent claimed."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from overnight.handover import Finding


class Commit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha: str
    subject: str
    author_date: datetime


class Leftovers(BaseModel):
    """Work the agent did not commit, saved as a commit of ours on `ref`. `files` are the first 50 of `count` paths.

    `ref` is `host:folder` where it still lies when it was too large to be
    brought home. `missed` is what git said of files that it could not save.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: str
    sha: str
    count: int
    files: tuple[str, ...]
    missed: tuple[str, ...] = ()


class Collected(BaseModel):
    """The result of collecting one run.

    `commits` are oldest first, `base..tip`. `repo` is the path on this machine
    that holds them. `branch` is None when there is no commit, or when a branch
    of that name could not be set without taking one from the user; then
    `others` says where `tip` is; so it does where `guards` hold or refuse the branch.
    `others` are refs (ref -> sha) of what the agent made beside the branch, commits
    that do not descend from the base among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str
    base_sha: str
    tip: str | None = None
    branch: str | None = None
    commits: tuple[Commit, ...] = ()
    diffstat: str = ""
    others: dict[str, str] = Field(default_factory=dict)
    leftovers: Leftovers | None = None
    guards: tuple[Finding, ...] = ()

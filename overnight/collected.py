"""What came home: counted in git, whatever the agent claimed."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class Commit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha: str
    subject: str
    author_date: datetime


class Leftovers(BaseModel):
    """Work the agent did not commit, saved as a commit of ours on `ref`. `files` are at most 50 paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: str
    sha: str
    count: int
    files: tuple[str, ...]


class Collected(BaseModel):
    """The result of collecting one run.

    `commits` are oldest first, `base..tip`. `repo` is the path on this machine
    that holds them. `branch` is None when there is no commit. `others` are
    further tips the agent made (ref -> sha), brought home beside the branch.
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

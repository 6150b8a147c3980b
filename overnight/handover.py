"""What may leave with a task, and where it goes: the guards on its diff, and its delivery."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Policy = Literal["note", "hold", "refuse"]
"""note: it stands in the report. hold: no branch before a person's word. refuse: no branch, whoever says so."""

Guard = Literal["paths", "size", "deleted_tests", "secrets", "own_key", "submodules", "symlinks", "workflows", "unread"]
GUARDS: tuple[Guard, ...] = get_args(Guard)
How = Literal["branch", "push", "pull_request"]

_CREDENTIALS = re.compile(r"://[^/@]*:[^/]*@|^https?://[^/]*@", re.IGNORECASE)
_HOLES = re.compile(r"\{(\w*)\}")


def _no_option(text: str) -> str:
    if text.startswith("-") or "\n" in text or not text:
        raise ValueError("is empty, begins with -, which git would take for an option, or holds a line end")
    return text


Word = Annotated[str, AfterValidator(_no_option)]


def _address(text: str) -> str:
    """A remote's name or URL, without credentials, which would reach argv and logs."""
    if _CREDENTIALS.search(text):
        raise ValueError("holds credentials; keep them in a credential helper, an SSH key, or the block of the forge")
    return _no_option(text)


def _template(text: str) -> str:
    """A branch name that is another one for each task, so that none can be named after somebody's own branch."""
    if (strange := set(_HOLES.findall(text)) - {"batch", "task"}) or "{task}" not in text:
        raise ValueError(f"must hold {{task}} and may hold {{batch}}{f', not {sorted(strange)}' if strange else ''}")
    if not re.fullmatch(r"(?!/)(?!.*(//|\.\.|@\{|\.lock$|/$|\.$))[^\s~^:?*\[\\\x00-\x20\x7f]+", text):
        raise ValueError("is no name that git would give a branch")
    return _no_option(text)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guards(_Entry):
    """What becomes of a task's branch when its diff holds something of this sort."""

    allow_paths: tuple[Word, ...] = Field(
        (), description="Globs as git's, e.g. `src/**`; what is changed elsewhere is found by `paths`. None allows all"
    )
    max_files: int = Field(300, ge=1, description="More changed files than that are found by `size`")
    max_added_lines: int = Field(20_000, ge=1, description="More added lines than that are found by `size`")
    max_file_bytes: int = Field(5_000_000, ge=1, description="A file larger than that is found by `size`")
    paths: Policy = Field("hold", description="Changes outside `allow_paths`")
    size: Policy = Field("note", description="A diff that is large")
    deleted_tests: Policy = Field("hold", description="Test files that were deleted or emptied")
    secrets: Policy = Field("hold", description="Added lines, of every commit, that look like a key or a password")
    own_key: Policy = Field("refuse", description="The very key that the run was given")
    submodules: Policy = Field("hold", description="Submodules that were added or moved")
    symlinks: Policy = Field("refuse", description="Symbolic links that lead out of the repository, or into .git")
    workflows: Policy = Field("hold", description="Files that a CI service would execute")

    def policy(self, guard: Guard) -> Policy:
        """A diff that could not be read is held: nobody knows what is in it."""
        found: Policy = "hold" if guard == "unread" else getattr(self, guard)
        return found


class Deliver(_Entry):
    """Where the commits of a task that succeeded go, once its guards let them."""

    how: How = Field("branch", description="`branch` leaves them here; `push`; `pull_request` pushes and opens one")
    remote: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="Name of a remote or a URL; default origin, or the URL that `repo` is"
    )
    branch: Annotated[str, AfterValidator(_template)] = Field(
        "overnight/{batch}/{task}", description="Its name there; holds {task}, may hold {batch}"
    )
    forge: str | None = Field(None, description="Saved Forge Credentials block; needed for a pull request")
    project: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)+$")] | None = Field(
        None, description="`owner/name` there; default is read from the remote's URL"
    )
    base: Word | None = Field(
        None, description="Branch to merge into; default the task's base, or the project's default branch"
    )
    draft: bool = Field(False, description="Open it as a draft")

    @model_validator(mode="after")
    def _complete(self) -> Deliver:
        if self.how == "pull_request" and self.forge is None:
            raise ValueError("a pull_request needs forge: NAME, a saved Forge Credentials block")
        return self


class Finding(_Entry):
    """What one guard found in a diff. `places` are the first of `count`, printable: a path, or `path:line` and more.

    No secret stands in it.
    """

    guard: Guard
    policy: Policy
    seen: str
    count: int
    places: tuple[str, ...] = ()


class Handed(_Entry):
    """What became of a delivery. `branch` is its name at `remote`, which is shown without credentials.

    delivered: it is there, as `sha`. left alone: somebody went on with that
    branch, or closed the pull request. failed: `problem` says why, `mend` what to do.
    """

    how: How
    state: Literal["delivered", "left alone", "failed"]
    remote: str
    branch: str
    sha: str
    url: str | None = Field(None, description="Page of the pull request")
    problem: str | None = None
    mend: str | None = None


def held(findings: tuple[Finding, ...]) -> Policy:
    """The strictest of their policies; note when there is none."""
    order = get_args(Policy)
    strictest: Policy = max((each.policy for each in findings), key=order.index, default="note")
    return strictest

"""One task of a batch, as an operator types it into the form of the deployment `batch`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks.ssh_host import SSHHost
from overnight import layers
from overnight.form import REPO_SHAPE, choices, chosen, name_from
from overnight.handover import Deliver, Guards
from overnight.lockfile import ProviderLock
from overnight.spec import Limits


def _with_choices(schema: dict[str, Any]) -> None:
    """The routes of the lock that is in force where the form is made."""
    schema["properties"]["route"]["enum"] = choices(layers.in_use(None, os.environ))


class TaskForm(BaseModel):
    """A task with its host and its route as choices. `host` is a saved block."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Task", json_schema_extra=_with_choices)

    instruction: str = Field(
        min_length=1, description="What the agent should do, e.g. Add structured logging to server.py, with a test"
    )
    repo: str = Field(
        min_length=1,
        description="A git repository: a path on the worker, e.g. /srv/git/app.git, or a URL the host can clone",
        json_schema_extra={"pattern": REPO_SHAPE},
    )
    host: SSHHost = Field(title="Host", description="The machine that runs the agent, a saved SSH Host block")
    route: str = Field(description="Agent, provider and model, as the lock names them")
    base: str = Field("HEAD", description="Branch, tag or commit the work starts from")
    verify: str = Field("", description="Command that must exit 0 in a fresh clone of what came home, e.g. make test")
    id: str = Field("", description="Part of the branch name; empty takes the instruction's first words")
    approve: bool = Field(False, description="Make the branch only after you approved the diff on this run's page")
    limits: Limits = Field(Limits(), description="When a run is stopped, and how often it is tried")
    verify_on: Literal["host", "here"] = Field(
        "host", description="Where the check runs; here is the worker's machine, as its user"
    )
    verify_twice: bool = Field(False, description="A check that failed runs once more on the same commit")
    guards: Guards = Field(Guards(), description="What becomes of the branch when the diff holds something of a sort")
    deliver: Deliver = Field(Deliver(), description="Where the commits go when the task succeeded")
    ask_for_commit: bool = Field(True, description="Append a line that asks the agent to commit")
    resume_session: bool = Field(
        False, description="The next attempt goes on with the agent's own session and work tree, where the agent can"
    )

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> TaskForm:
        """The task that a longer form describes."""
        return cls(**{field: given[field] for field in cls.model_fields})

    def entry(self, lock: ProviderLock, field: str, host: str = "") -> dict[str, Any]:
        """The same task as a batch file would hold it.

        Args:
            host: What the batch calls its host; empty for `saved_as`.

        Raises:
            BadInput: the route is not in the lock.
        """
        as_written = {"instruction", "repo", "base", "approve", "ask_for_commit", "resume_session"}
        return {
            **self.model_dump(include=as_written | {"verify_on", "verify_twice"}),
            "id": self.id or name_from(self.instruction),
            "verify": self.verify or None,
            "route": {"host": host or self.host.saved_as, **chosen(self.route, lock, f"{field}.route")},
            "limits": self.limits.model_dump(),
            "guards": self.guards.model_dump(),
            "deliver": self.deliver.model_dump(),
        }

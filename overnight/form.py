"""The parameter forms of the Prefect pages, turned into what a batch file would say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from overnight.failures import BadInput
from overnight.lockfile import DEFAULT_LOCK, ProviderLock, load, suggest
from overnight.route import Route
from overnight.spec import Limits

PARAMETERS = "parameters"
"""What messages call the form, as they call a file by its path."""

_BETWEEN = " / "
_STANDS_IN = ("scripted", "rehearsal")  # what needs no account comes last in a list of choices


def choices(lock: ProviderLock) -> list[str]:
    """Every `harness / provider / model` that the lock can start, by provider; the rehearsal's last.

    A provider whose address is still the user's to set cannot be started.
    """
    found = [
        (provider, harness, model)
        for provider, entry in lock.providers.items()
        for harness, wiring in entry.harnesses.items()
        if not entry.endpoints[wiring.endpoint].is_yours
        for model in entry.models
    ]
    found.sort(key=lambda route: (any(part.startswith(_STANDS_IN) for part in route[:2]), route))
    return [_BETWEEN.join((harness, provider, model)) for provider, harness, model in found]


def chosen(choice: str, lock: ProviderLock, field: str) -> dict[str, str]:
    """The parts of a choice, as a batch file's `route` names them.

    Raises:
        BadInput: it is none of `choices(lock)`.
    """
    known = choices(lock)
    if choice not in known:
        raise BadInput(PARAMETERS, field, f"the lock has no route {choice!r}", suggest(choice, known))
    return dict(zip(("harness", "provider", "model"), choice.split(_BETWEEN), strict=True))


def choice_of(route: Route) -> str:
    """The choice that a form would show for a route."""
    return _BETWEEN.join((route.harness, route.provider, route.model))


def name_from(instruction: str) -> str:
    """A task's id from its first words, when nobody gave one."""
    words = re.findall(r"[a-z0-9]+", instruction.lower())[:6]
    return "-".join(words)[:40].strip("-") or "task"


def _with_choices(schema: dict[str, Any], form: type[TaskForm]) -> None:
    schema["properties"]["route"]["enum"] = choices(load(form.choices_from))


class TaskForm(BaseModel):
    """One task of a batch that is typed into the form. Its routes are those of the lock at `choices_from`."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Task", json_schema_extra=_with_choices)
    choices_from: ClassVar[Path] = DEFAULT_LOCK

    instruction: str = Field(
        description="What the agent should do", examples=["Add structured logging to server.py"], min_length=1
    )
    repo: str = Field(
        description="A git repository: a path on the worker's machine, or a URL the host can clone",
        examples=["/srv/git/app.git"],
        min_length=1,
    )
    host: str = Field(description="Name of a saved SSH Host block", examples=["box"], min_length=1)
    route: str = Field(
        description="harness / provider / model, as the lock names them", examples=["claude-code / zai / glm-5.2"]
    )
    base: str = Field("HEAD", description="Branch, tag or commit the work starts from")
    verify: str = Field("", description="Command that must exit 0 in a fresh clone of what came home; empty for none")
    id: str = Field("", description="Part of the branch name; empty takes the instruction's first words")
    approve: bool = Field(False, description="Make the branch only after you approved the diff on this page")
    limits: Limits = Field(Limits(), description="When a run is stopped, and how often it is tried")

    def entry(self, lock: ProviderLock, field: str) -> dict[str, Any]:
        """The same task as a batch file would hold it.

        Raises:
            BadInput: the route is not in the lock.
        """
        return {
            "id": self.id or name_from(self.instruction),
            "instruction": self.instruction,
            "repo": self.repo,
            "base": self.base,
            "verify": self.verify or None,
            "approve": self.approve,
            "route": {"host": self.host, **chosen(self.route, lock, f"{field}.route")},
            "limits": self.limits.model_dump(),
        }


def batch_of(
    name: str, tasks: list[dict[str, Any]], hosts: Mapping[str, Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """A batch file's content. A host that is not described is a saved block of that name."""
    named = {task["route"]["host"] for task in tasks}
    return {"name": name, "hosts": {host: hosts.get(host, {"block": host}) for host in named}, "tasks": tasks, **more}

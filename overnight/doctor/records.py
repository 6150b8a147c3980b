"""What the doctor saw, as other tools read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from overnight.failures import FailureKind
from overnight.report import RouteReport

_MISSING = FailureKind.HARNESS_MISSING
Weight = Literal["error", "warning", "note"]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Record):
    """One thing that is wrong, or could be. `id` is a trap of the lock, a failure kind, or a word of the doctor's own.

    `error` breaks runs, `warning` may, `note` misleads a person and no run of
    ours. Nothing in it is secret.
    """

    id: str
    weight: Weight
    seen: str
    where: str = Field("", description="File and line, variable, or place in the lock")
    mend: str = ""


class Shadow(Record):
    """Something on a host, or in a repository, that would reach an agent without anybody having given it.

    `same_as` says whose value it is, as far as a salted fingerprint tells: `the
    key of zai`, `the lock's value`, or empty for another value. `ignored` says
    what keeps it from our runs; empty when nothing does.
    """

    source: str = Field(description="login shell of bash, ~/.claude/settings.json, ./.mcp.json, keyring ...")
    line: int | None = Field(None, description="Where in the file, when it was found by reading it")
    name: str = Field(description="A variable, or what else it carries: hooks, a login, an MCP server")
    harnesses: tuple[str, ...] = Field((), description="Whom it would reach; empty for any")
    same_as: str = ""
    wins: Literal["over-environment", "when-missing", "adds", "shell-only", "unverified"]
    ignored: str = ""


class Installed(Record):
    """A copy of an agent on a host. `chosen` is the one that runs use."""

    harness: str
    path: str
    version: str | None
    chosen: bool


class HostLook(Record):
    """One host as it was found. `facts` are by name, with their unit in it: `disk_free_bytes`, `clock_ahead_s`."""

    host: str
    seconds: float
    facts: dict[str, str | float | int | bool | None] = Field(default_factory=dict)
    installed: tuple[Installed, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    findings: tuple[Finding, ...] = ()
    not_looked_at: tuple[str, ...] = Field((), description="What could not be read, and why")


class Call(Record):
    """One question that was asked, and how it was answered. `varied` is what differed from the route as it is."""

    by: Literal["here", "host", "agent", "login"] = Field(
        description="Direct from this machine, direct from the host, the agent as runs start it, the agent as a person"
    )
    varied: str = ""
    kind: FailureKind | None = Field(None, description="None when it went well")
    status: int | None = None
    seen: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.kind is None


class Mend(Record):
    """What made the difference. `patch` is laid over the lock; it is empty where the lock is not what is wrong."""

    factor: str
    works: str
    fails: str
    patch: dict[str, Any] = Field(default_factory=dict)
    route: dict[str, str] = Field(default_factory=dict, description="What to write in the batch instead")
    proven: bool = Field(description="Whether the agent itself got through with it, on the host")

    def __str__(self) -> str:
        return f"works with {self.works}, fails with {self.fails}, everything else equal"


class Diagnosis(Record):
    """One route as the doctor found it."""

    route: RouteReport
    layer: str = Field("", description="Where the fault lies; empty for a route that is open")
    words: str = Field("", description="Why that layer, by which answers disagree")
    mend: Mend | None = None
    calls: tuple[Call, ...] = ()
    findings: tuple[Finding, ...] = ()
    unverified: tuple[str, ...] = Field((), description="Facts of the lock this route rests on that nobody verified")
    transcript: str = Field("", description="SHA-256 of what the agent printed")
    log: str = Field("", description="Folder with what the agent printed, on this machine")


class Remembered(Record):
    """A cause that a night of this state directory had, and whether its place shows the same kind now."""

    cause: str
    kind: FailureKind
    last_at: datetime
    nights: int
    tasks: int
    again: bool = Field(description="False: it was looked for where it had been, and not seen this time")


class Checkup(Record):
    """Everything one visit of the doctor found. A host that could not be looked at is in no `hosts`."""

    hosts: tuple[HostLook, ...] = ()
    diagnoses: tuple[Diagnosis, ...]
    remembered: tuple[Remembered, ...] = ()

    @property
    def routes(self) -> tuple[RouteReport, ...]:
        return tuple(each.route for each in self.diagnoses)

    def where_installed(self) -> Checkup:
        """The same without routes whose agent is not on the host, unless nothing else is left."""
        kept = [each for each in self.diagnoses if not each.route.failure or each.route.failure.kind is not _MISSING]
        return self.model_copy(update={"diagnoses": tuple(kept)}) if kept else self

    def shown(self) -> dict[str, Any]:
        """As JSON data; `routes` are shaped as in a batch's report."""
        data = self.model_dump(mode="json")
        return {"schema": 1, "routes": [each.pop("route") for each in data["diagnoses"]], **data}

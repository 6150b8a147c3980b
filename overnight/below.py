"""What a stacked task starts from: the commits of another one's run, and where they are."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]


class Below(BaseModel):
    """The run that an attempt stands on, as it was collected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # it becomes a part of a path on the host
    run_id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="The run whose commits it starts from")
    tip: Sha = Field(description="The last of them")
    bases: tuple[Sha, ...] = Field((), description="What that run started from, and the runs it stood on itself")
    host: str = Field(description="Where that run lies, by its name in the batch")
    kept: str = Field("", description="Why its commits must not be pushed; empty when they may")

"""Why a run was ended by us, and what was seen of it at that moment."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from overnight.failures import Failure

Rule = Literal[
    "proof",
    "endless",
    "quota-probe",
    "max_tokens",
    "max_usd",
    "max_turns",
    "budget",
    "first_event_s",
    "quiet_s",
    "turn_s",
    "no_change_s",
    "linger_s",
]
"""What ended it: a cause proven by its own words (`proof`), an agent that would go on for ever (`endless`), a probe
that told an empty account from a rate limit (`quota-probe`), a cap of the run or of the batch, or the clock that ran
out."""


class Stop(BaseModel):
    """One decision to end a run. `at_s` is the age of the run, `failure` None for one that was done and lingered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Rule
    at_s: float
    named_at: datetime
    failure: Failure | None = None


class Audit(BaseModel):
    """How the monitor judged one run, so that its kills can be held against it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Rule | None = Field(None, description="The rule by which we ended it; null when we did not")
    at_s: float | None = Field(None, description="Age of the run when that was decided")
    running: tuple[str, ...] = Field((), description="The run's processes when it was last looked at")
    progress_after: bool = Field(False, description="Whether it did something of use after we had decided to end it")
    spared: int = Field(0, description="How often a clock ran out and a look at the host showed it at work")

"""The unit that can be shut: one harness on one host, with one model of one provider."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Route(BaseModel):
    """Where a task goes. Hashable; a batch probes each distinct route once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(description="A name under `hosts`")
    harness: str = Field(description="The agent's command line, as the lock names it")
    provider: str = Field(description="Who serves the model, as the lock names it")
    model: str = Field(description="Exact model id from the lock")

    def __str__(self) -> str:
        return f"{self.harness} on {self.host} with {self.model} of {self.provider}"

    @property
    def names(self) -> dict[str, str]:
        """What fills the gaps in a remedy."""
        return {"host": self.host, "harness": self.harness, "provider": self.provider, "model": self.model}

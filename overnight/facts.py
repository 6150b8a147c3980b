"""What every entry of the lock is made of: a fact says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Confidence = Literal["official", "measured", "third-party", "inferred", "unverified"]
Speaks = Literal["anthropic", "openai-responses"]
"""The APIs that a harness can be wired to."""
CHATS: Mapping[Speaks, str] = {"anthropic": "/v1/messages", "openai-responses": "/v1/responses"}
"""Where each takes its requests, below a base URL."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Header(StrEnum):
    """How a key travels on the wire."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"

    @property
    def wire(self) -> str:
        """The header as HTTP shows it."""
        return "Authorization: Bearer" if self is Header.BEARER else "x-api-key"

    def carry(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if self is Header.BEARER else {"x-api-key": key}


class Entry(BaseModel):
    """Frozen; a key that the schema does not know is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(Entry):
    """Where a fact comes from. `unverified` facts are used and reported as such."""

    source: str = Field(description="Document, page or measurement", min_length=1)
    date: date
    confidence: Confidence


class Fact(Entry):
    provenance: Provenance

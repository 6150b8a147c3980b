"""Tokens by what they are charged as."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Usage(BaseModel):
    """What an answer of a model, or many, used. Every token stands in one of the four."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fresh: int = Field(0, description="Input that came from no cache")
    output: int = Field(0, description="With what the model thought, where it is charged")
    cache_read: int = Field(0, description="Input that was read from a cache")
    cache_write: int = Field(0, description="Input that was written to a cache")

    @property
    def total(self) -> int:
        return self.fresh + self.output + self.cache_read + self.cache_write

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            fresh=self.fresh + other.fresh,
            output=self.output + other.output,
            cache_read=self.cache_read + other.cache_read,
            cache_write=self.cache_write + other.cache_write,
        )

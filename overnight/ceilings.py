"""How much is asked of a provider at the most: by all keys of it together, and by each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from overnight.choice import Number, Whole
from overnight.facts import Entry

# as short and as long as a lease of Prefect can be (3.8.8)
SHORTEST_S, LONGEST_S = 60, 86_400


class Ceiling(Entry):
    """None is no limit. A run stands for one request at a time; an agent with sub-agents may ask more."""

    concurrent: Whole | None = Field(None, description="Requests at the same time")
    requests: Whole | None = Field(None, description="Requests within any `per_s` seconds")
    per_s: Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S), Number] = Field(
        SHORTEST_S, description="The window of `requests`, in seconds: a minute to a day"
    )

    def over(self, other: Ceiling) -> Ceiling:
        """What is given here, and what the other one says of the rest."""
        window = self if self.requests is not None else other
        return Ceiling(concurrent=self.concurrent or other.concurrent, requests=window.requests, per_s=window.per_s)


class Ceilings(Ceiling):
    """For all keys together, and for each."""

    each_key: Ceiling = Field(Ceiling(), description="The same, for each key of the provider alone")

    @property
    def most_at_once(self) -> int | None:
        """Runs at the same time that one key may come to."""
        given = [each.concurrent for each in (self, self.each_key) if each.concurrent is not None]
        return min(given, default=None)


def in_place_of(published: Ceilings | None, wanted: Ceilings | None) -> Ceilings:
    """What holds: the numbers of a batch, in place of those that the lock has."""
    lower, upper = published or Ceilings(), wanted or Ceilings()
    return Ceilings(**upper.over(lower).model_dump(), each_key=upper.each_key.over(lower.each_key))

"""What a provider charges, and when it charges more: facts of the lock."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone
from typing import Annotated, Literal

from pydantic import Field, model_validator

from overnight.facts import Fact
from overnight.usage import Usage

_MILLION = 1_000_000
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Rates(Fact):
    """Prices per million tokens. What has no rate has no price: it is never taken for free."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="As the provider charges")
    fresh: Rate = Field(description="Input that came from no cache")
    output: Rate
    cache_read: Rate | None = None
    cache_write: Rate | None = None

    def price(self, used: Usage) -> float | None:
        """The price of these tokens; None when some of them have no rate."""
        total = 0.0
        for name in Usage.model_fields:
            count, rate = getattr(used, name), getattr(self, name)
            if count and rate is None:
                return None
            total += count * (rate or 0.0) / _MILLION
        return total


class Peak(Fact):
    """Hours in which a provider takes more than at others, every week the same.

    `ends` at or before `begins` is on the next day. `times` is against the
    other hours: of the price, or of what is taken off a plan's quota.
    """

    begins: Clock
    ends: Clock = Field(description="The first minute that is none of it any more")
    utc_offset: str = Field(pattern=r"^[+-](0\d|1[0-4]):[0-5]\d$", description="Of the clock it is told by")
    weekdays: tuple[Annotated[int, Field(ge=1, le=7)], ...] = Field(
        (1, 2, 3, 4, 5, 6, 7), description="On which it begins; Monday is 1"
    )
    times: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    of: Literal["price", "quota"]
    models: tuple[str, ...] = Field((), description="Empty for all")
    note: str = ""

    @model_validator(mode="after")
    def _some_day(self) -> Peak:
        if not self.weekdays:
            raise ValueError("weekdays is empty")
        return self

    def end(self, at: datetime) -> datetime | None:
        """When the peak ends in which this moment lies; None outside. `at` must be aware."""
        hours, minutes = map(int, self.utc_offset[1:].split(":"))
        ahead = timedelta(hours=hours, minutes=minutes) * (-1 if self.utc_offset[0] == "-" else 1)
        zone = timezone(ahead)
        first, last = time.fromisoformat(self.begins), time.fromisoformat(self.ends)
        today = at.astimezone(zone).date()
        for day in (today - timedelta(days=1), today):
            begins = datetime.combine(day, first, zone)
            ends = datetime.combine(day + timedelta(days=last <= first), last, zone)
            if day.isoweekday() in self.weekdays and begins <= at < ends:
                return ends.astimezone(at.tzinfo)
        return None

    def __str__(self) -> str:
        some = f" for {', '.join(self.models)}" if self.models else ""
        days = "" if len(self.weekdays) == 7 else f" on weekdays {','.join(map(str, self.weekdays))}"
        return f"{self.times:g} times the {self.of} {self.begins}-{self.ends} UTC{self.utc_offset}{days}{some}"

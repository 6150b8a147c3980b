"""What a run cost, and who says so. A price that nobody gave is not made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from overnight.lockfile import Model, Provider
from overnight.peak import price_times
from overnight.tariff import Rates
from overnight.usage import Usage


class Cost(BaseModel):
    """What is known of the cost of one attempt, or why nothing is.

    `source`: `provider` is its own figure, `rates` the tokens at the lock's
    rates. A list price that a harness makes up for another vendor's model is
    neither, and never stands here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["provider", "rates", "unknown"]
    why: str = Field(description="Where the figure comes from, or why there is none")
    usd: float | None = Field(None, description="Null where it is not known, or not charged in USD")
    amount: float | None = Field(None, description="As charged")
    currency: str | None = None
    as_of: date | None = Field(None, description="Date of the rates")
    at_most: bool = Field(False, description="It ran in dearer hours for a part, and all of it is counted as these")


@dataclass(frozen=True)
class Tariff:
    """Who charges a run, for what, and whether its harness is one that knows the price."""

    name: str
    provider: Provider
    harness: str
    model: str

    @property
    def knows(self) -> bool:
        """Whether the harness is the provider's own, so that what it says of the cost is the price."""
        return self.harness in self.provider.priced_by

    def cost(
        self, used: Mapping[str, Usage], tokens: int | None, said_usd: float | None, began: datetime, ended: datetime
    ) -> Cost:
        """What a run cost.

        Args:
            used: By model id; an empty one is the route's model.
            said_usd: The harness's own figure.
            began: With `ended`, the hours it ran in; they may be dearer than others.
        """
        if self.knows and said_usd is not None:
            why = f"{self.harness}'s own figure, which is {self.name}'s price"
            return Cost(source="provider", why=why, usd=said_usd, amount=said_usd, currency="USD")
        if not used:
            told = "it told its tokens as one sum" if tokens else "it told of no tokens"
            return _unknown(told)
        return self._by_rates(used, began, ended)

    def _by_rates(self, used: Mapping[str, Usage], began: datetime, ended: datetime) -> Cost:
        amount, dates, sources, currencies = 0.0, [], [], set()
        for model, usage in used.items():
            rates = self._rates(model or self.model)
            if rates is None:
                return _unknown(f"the lock has no rates for {model or self.model} of {self.name}")
            price = rates.price(usage)
            if price is None:
                return _unknown(f"the lock has no rate for cached input of {model or self.model}")
            amount += price
            dates.append(rates.provenance.date)
            sources.append(rates.provenance.source)
            currencies.add(rates.currency)
        if len(currencies) != 1:
            return _unknown("its models are charged in different currencies")
        times, all_of_it = price_times(self.provider, self.model, began, ended)
        peak = f", {times:g} times for peak hours" if times != 1 else ""
        return Cost(
            source="rates",
            why=f"tokens at the rates of {min(dates)} from {', '.join(dict.fromkeys(sources))}{peak}",
            usd=amount * times if currencies == {"USD"} else None,
            amount=amount * times,
            currency=currencies.pop(),
            as_of=min(dates),
            at_most=not all_of_it,
        )

    def _rates(self, model: str) -> Rates | None:
        known: dict[str, Model] = self.provider.models
        found = known.get(model) or next((each for each in known.values() if model in each.answers_as), None)
        return found.rates if found else None

    @property
    def has_rates(self) -> bool:
        return self._rates(self.model) is not None


def _unknown(why: str) -> Cost:
    return Cost(source="unknown", why=why)

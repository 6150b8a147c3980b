"""Whether a cap would hold where a task goes. One that would do nothing is refused, with what holds there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from overnight.failures import BadInput
from overnight.lockfile import OVERLAY, Provider, suggest
from overnight.route import Route
from overnight.spec import Budget, BudgetCaps, Limits

TellsUsage = Literal["each-answer", "at-end", "one-sum", "never"]
"""When a harness says what it used: as it goes, at its end, at its end as one sum that no rate can price, never."""


class Capped(Protocol):
    """The part of a harness that caps need."""

    @property
    def NAME(self) -> str: ...
    @property
    def CAPS(self) -> frozenset[str]: ...
    @property
    def TELLS_USAGE(self) -> TellsUsage: ...


@dataclass(frozen=True)
class Caps:
    """What holds on one route."""

    route: Route
    harness: Capped
    provider: Provider

    @property
    def priced(self) -> bool:
        """Whether the cost of a run is known once it has ended."""
        if self.harness.NAME in self.provider.priced_by:
            return True
        return self.provider.models[self.route.model].rates is not None and self._split

    @property
    def _split(self) -> bool:
        return self.harness.TELLS_USAGE in ("each-answer", "at-end")

    def own(self, cap: str) -> bool:
        """Whether the harness's own flag holds it. A price it makes up for a foreign model would end a run too early
        or too late, so of money only the provider's own harness is believed.
        """
        foreign = cap == "max_usd" and self.harness.NAME not in self.provider.priced_by
        return cap in self.harness.CAPS and not foreign

    def watched(self, cap: str) -> bool:
        """Whether we can hold it by what the harness tells as it goes."""
        if self.harness.TELLS_USAGE != "each-answer":
            return False
        return cap != "max_usd" or self.provider.models[self.route.model].rates is not None


def check_limits(caps: Caps, limits: Limits, where: str, field: str, others: Mapping[str, Capped]) -> None:
    """Refuse a cap of a run that nobody could hold.

    Raises:
        BadInput: with what holds there instead.
    """
    for cap in ("max_usd", "max_turns", "max_tokens"):
        if getattr(limits, cap) is None or caps.own(cap) or caps.watched(cap):
            continue
        harness, route = caps.harness, caps.route
        if cap == "max_usd" and harness.TELLS_USAGE == "each-answer":
            problem = f"the cost of {route.model} by {route.provider} is not known while it runs, so it would not hold"
            raise BadInput(where, f"{field}.{cap}", problem, f"Use max_tokens, or {_rates(route)}")
        able = [name for name, other in others.items() if cap in other.CAPS or other.TELLS_USAGE == "each-answer"]
        problem = f"harness {harness.NAME} has no such cap and tells no usage as it goes, so it would not hold"
        raise BadInput(where, f"{field}.{cap}", problem, f"Leave it out, or use {' or '.join(able)}")


def check_budget(budget: Budget, routes: Iterable[Caps], where: str) -> None:
    """Refuse a budget that could never be used up, because what would fill it is not told.

    Raises:
        BadInput: a provider that no task goes to, or a cap without a figure.
    """
    found = list(routes)
    check_providers(budget.providers, {caps.route.provider for caps in found}, where, "budget.providers")
    for caps in found:
        provider = caps.route.provider
        _check_figures(budget, "budget", caps, budget, where)
        if provider in budget.providers:
            _check_figures(budget.providers[provider], f"budget.providers.{provider}", caps, budget, where)


def check_providers(named: Iterable[str], known: Collection[str], where: str, field: str) -> None:
    """Refuse the name of a provider that no task of the batch goes to.

    Raises:
        BadInput: with the nearest known names.
    """
    for name in named:
        if name not in known:
            raise BadInput(where, f"{field}.{name}", "no task goes to this provider", suggest(name, known))


def _check_figures(each: BudgetCaps, field: str, caps: Caps, budget: Budget, where: str) -> None:
    name, route = caps.harness.NAME, caps.route
    if each.max_tokens is not None and caps.harness.TELLS_USAGE == "never":
        problem = f"{name} never tells what it used, so the runs of {route} would not count"
        raise BadInput(where, f"{field}.max_tokens", problem, "Leave it out, or give them another harness")
    if each.max_usd is not None and not caps.priced and not _tokens_hold(budget, route.provider):
        problem = f"the cost of {route.model} by {route.provider} with {name} is not known, so it would not count"
        mend = f"Add max_tokens, which holds there, or {_rates(route)}"
        raise BadInput(where, f"{field}.max_usd", problem, mend)


def _tokens_hold(budget: Budget, provider: str) -> bool:
    own = budget.providers.get(provider)
    return budget.max_tokens is not None or (own is not None and own.max_tokens is not None)


def _rates(route: Route) -> str:
    return f"put rates into {OVERLAY} at providers.{route.provider}.models.{route.model}"

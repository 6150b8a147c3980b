"""A price comes from the provider, from rates with a date, or from nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight import lockfile
from overnight.ceilings import Ceilings
from overnight.cost import Cost, Tariff
from overnight.failures import BadInput
from overnight.lockfile import Model, Provider, ProviderLock
from overnight.plan import Planner
from overnight.report import RunReport
from overnight.route import Route
from overnight.spec import Budget, BudgetCaps, Limits
from overnight.totals import cost_lines, cost_of, money, spent
from overnight.usage import Usage
from tests.overnight.samples import batch, planner, report, run, task

LOCK = lockfile.load()
SUNDAY = datetime(2026, 11, 29, 7, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, 6, tzinfo=UTC)  # 14:00 in Beijing, when DeepSeek's second peak begins
HOUR = timedelta(hours=1)
USED = {"": Usage(fresh=1_000_000, output=100_000, cache_read=2_000_000)}
MILLION = {"": Usage(fresh=1_000_000)}


def tariff(provider: str, model: str, harness: str = "claude-code") -> Tariff:
    return Tariff(provider, LOCK.providers[provider], harness, model)


def cost(of: Tariff, used: dict[str, Usage] = USED, said: float | None = None, began: datetime = SUNDAY) -> Cost:
    return of.cost(used, sum(each.total for each in used.values()), said, began, began + HOUR)


def test_the_provider_s_own_harness_is_believed() -> None:
    found = cost(tariff("anthropic", "claude-opus-5"), said=1.25)
    assert (found.source, found.usd, found.currency) == ("provider", 1.25, "USD")


def test_a_price_that_a_harness_makes_up_for_a_foreign_model_is_no_cost() -> None:
    found = cost(tariff("zai", "glm-5.1"), said=1.25)
    assert (found.source, found.usd, found.amount) == ("unknown", None, None)
    assert "no rates for glm-5.1 of zai" in found.why


def test_tokens_are_priced_by_sort_and_the_rates_say_whence_they_are() -> None:
    found = cost(tariff("anthropic", "claude-opus-5", "goose"))
    assert found.usd == pytest.approx(5 + 2.5 + 1)
    assert (found.source, str(found.as_of)) == ("rates", "2026-11-29")
    assert "platform.claude.com" in found.why


def test_a_sort_without_a_rate_is_not_free() -> None:
    found = cost(tariff("deepseek", "deepseek-flash"), {"": Usage(fresh=10, cache_write=1)})
    assert (found.source, found.why) == ("unknown", "the lock has no rate for cached input of deepseek-flash")


def test_another_model_that_the_harness_used_beside_is_priced_as_itself_or_makes_the_cost_unknown() -> None:
    used = {"claude-opus-5": Usage(fresh=1_000_000), "claude-haiku-4-5-20251001": Usage(fresh=1_000_000)}
    assert cost(tariff("anthropic", "claude-opus-5", "pi"), used).usd == pytest.approx(6)
    foreign = cost(tariff("anthropic", "claude-opus-5", "pi"), {**used, "gpt-9": Usage(fresh=1)})
    assert (foreign.source, "gpt-9" in foreign.why) == ("unknown", True)


@pytest.mark.parametrize(
    ("used", "tokens", "why"), [({}, 500, "it told its tokens as one sum"), ({}, None, "it told of no tokens")]
)
def test_what_was_not_told_is_not_known(used: dict[str, Usage], tokens: int | None, why: str) -> None:
    found = tariff("anthropic", "claude-opus-5", "goose").cost(used, tokens, None, SUNDAY, SUNDAY)
    assert (found.source, found.why) == ("unknown", why)


@pytest.mark.parametrize(
    ("began", "usd", "at_most"),
    [
        (MONDAY - 1.5 * HOUR, 0.15, False),  # from 12:30 in Beijing, between the two peaks
        (SUNDAY, 0.15, False),
        (MONDAY, 0.3, False),
        (MONDAY - HOUR / 2, 0.3, True),
        (MONDAY + 3.5 * HOUR, 0.3, True),
    ],
)
def test_peak_hours_multiply_the_price(began: datetime, usd: float, at_most: bool) -> None:
    found = cost(tariff("deepseek", "deepseek-flash"), MILLION, began=began)
    assert found.usd == pytest.approx(usd)
    assert found.at_most == at_most


def test_another_currency_is_not_turned_into_dollars() -> None:
    rates = LOCK.providers["deepseek"].models["deepseek-flash"].rates
    assert rates is not None
    model = Model(rates=rates.model_copy(update={"currency": "CNY"}), provenance=rates.provenance)
    provider = LOCK.providers["deepseek"].model_copy(update={"models": {"m": model}})
    found = Tariff("deepseek", provider, "pi", "m").cost(MILLION, 1, None, SUNDAY, SUNDAY)
    assert (found.usd, found.currency) == (None, "CNY")
    assert found.amount == pytest.approx(0.15)
    whole = spent([run(tokens=1, cost=found)])
    assert (whole.usd, list(whole.other), whole.unknown) == (0.0, ["CNY"], 0)
    assert cost_lines(report(run(tokens=1, cost=found)).model_copy(update={"spent": whole})) == [
        "cost: 0.15 CNY for 1 attempt; 1 tokens"
    ]


def known(usd: float, **changes: Any) -> RunReport:
    priced = Cost(source="rates", why="tokens at the rates of a page", usd=usd, amount=usd, currency="USD")
    return run(tokens=100, usd=usd, cost=priced, **changes)


def test_a_sum_says_of_how_many_it_is_one() -> None:
    why = "the lock has no rates for glm-5.1 of zai"
    dark = run(run_id="x.b.1", task_id="b", tokens=50, cost=Cost(source="unknown", why=why))
    never = run(run_id="", task_id="c")
    mute = known(0.5, run_id="x.d.1", task_id="d", provider="deepseek", peak="2 times the price")
    runs = [known(1.5), dark, never, mute.model_copy(update={"tokens": None})]
    whole = report(*runs).model_copy(update={"spent": spent(runs)})
    assert cost_lines(whole) == [
        "cost: 2.00 USD for 2 of 3 attempts, not known of 1; 150 tokens (1 told none)",
        "  deepseek: 0.50 USD for 1 attempt; 0 tokens (1 told none)",
        "  zai: 1.50 USD for 1 of 2 attempts, not known of 1; 150 tokens",
        f"  not known of 1 attempt: {why}",
        "peak hours: 1 attempt began in them; deepseek takes 2 times the price",
    ]
    assert cost_of(dark) == f"cost not known: {why}"
    assert cost_lines(report(never).model_copy(update={"spent": spent([never])})) == []


def test_small_amounts_stay_visible() -> None:
    assert [money(each) for each in (0.0, 0.00042, 0.01, 12.345)] == ["0.00", "0.00042", "0.01", "12.35"]


def with_rates(provider: str, model: str) -> ProviderLock:
    """The lock with the rates of Claude Opus 5 for another model."""
    entry = LOCK.providers[provider]
    rates = LOCK.providers["anthropic"].models["claude-opus-5"].rates
    models = {**entry.models, model: entry.models[model].model_copy(update={"rates": rates})}
    changed: Provider = entry.model_copy(update={"models": models})
    return LOCK.model_copy(update={"providers": {**LOCK.providers, provider: changed}})


def plans(harness: str, provider: str, model: str, lock: ProviderLock = LOCK, **limits: Any) -> Planner:
    route = Route(host="box", harness=harness, provider=provider, model=model)
    return planner(batch(task(route=route, limits=Limits(**limits))), lock)


def argv(found: Planner) -> tuple[str, ...]:
    return found.check()[0].argv


def test_the_cli_s_own_spend_cap_is_used_only_where_its_price_is_one() -> None:
    assert "--max-budget-usd=2.0" in argv(plans("claude-code", "anthropic", "claude-opus-5", max_usd=2.0))
    foreign = argv(plans("claude-code", "zai", "glm-5.1", with_rates("zai", "glm-5.1"), max_usd=2.0))
    assert not [each for each in foreign if "budget" in each]


@pytest.mark.parametrize(
    ("harness", "provider", "model", "limits", "problem", "mend"),
    [
        ("claude-code", "zai", "glm-5.1", {"max_usd": 2}, "is not known while it runs", "Use max_tokens"),
        ("goose", "zai", "glm-5.1", {"max_tokens": 5}, "tells no usage as it goes", "claude-code"),
        ("codex", "moonshot", "kimi-k3", {"max_turns": 5}, "tells no usage as it goes", "goose"),
        ("copilot", "zai", "glm-5.1", {"max_usd": 5}, "tells no usage as it goes", "claude-code"),
    ],
)
def test_a_cap_that_nobody_could_hold_is_refused(
    harness: str, provider: str, model: str, limits: dict[str, Any], problem: str, mend: str
) -> None:
    with pytest.raises(BadInput) as caught:
        plans(harness, provider, model, **limits).check()
    assert problem in caught.value.problem
    assert mend in caught.value.mend


def budgeted(found: Planner, budget: Budget) -> Planner:
    return replace(found, batch=found.batch.model_copy(update={"budget": budget}))


@pytest.mark.parametrize(
    ("budget", "field", "mend"),
    [
        (Budget(max_usd=5), "budget.max_usd", "Add max_tokens, which holds there"),
        (Budget(providers={"zai": BudgetCaps(max_usd=5)}), "budget.providers.zai.max_usd", "Add max_tokens"),
        (Budget(providers={"zia": BudgetCaps(max_tokens=5)}), "budget.providers.zia", "Did you mean zai?"),
    ],
)
def test_a_budget_that_could_never_fill_is_refused(budget: Budget, field: str, mend: str) -> None:
    with pytest.raises(BadInput) as caught:
        budgeted(plans("claude-code", "zai", "glm-5.1"), budget).check()
    assert (caught.value.field, mend in caught.value.mend) == (field, True)


def test_a_ceiling_for_a_provider_that_no_task_goes_to_is_refused() -> None:
    found = plans("claude-code", "zai", "glm-5.1")
    batch = found.batch.model_copy(update={"providers": {"zia": Ceilings(concurrent=2)}})
    with pytest.raises(BadInput) as caught:
        replace(found, batch=batch).check()
    assert (caught.value.field, "Did you mean zai?" in caught.value.mend) == ("providers.zia", True)


@pytest.mark.parametrize(
    "budget", [Budget(max_usd=5, max_tokens=9), Budget(max_usd=5, providers={"zai": BudgetCaps(max_tokens=9)})]
)
def test_with_a_token_cap_beside_it_a_spend_cap_may_stand(budget: Budget) -> None:
    assert budgeted(plans("claude-code", "zai", "glm-5.1"), budget).check()


def test_a_harness_that_never_tells_its_tokens_cannot_be_budgeted_by_them() -> None:
    with pytest.raises(BadInput, match="never tells"):
        budgeted(plans("copilot", "zai", "glm-5.1"), Budget(max_tokens=9)).check()

"""A budget is a function of what was told: no order, repetition or restart changes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.budget import Reading, reached, tally
from overnight.spec import BudgetCaps

NOTHING = BudgetCaps()
_figure = st.none() | st.integers(0, 1000)
_readings = st.lists(
    st.builds(
        Reading,
        run_id=st.sampled_from("abcdef"),
        provider=st.just("zai"),
        tokens=_figure,
        # eighths, so that sums are exact in any order
        usd=st.none() | st.integers(0, 800).map(lambda eighths: eighths / 8),
    ),
    max_size=30,
)
_caps = st.builds(
    BudgetCaps,
    max_tokens=st.none() | st.integers(1, 4000),
    max_usd=st.none() | st.integers(1, 2000).map(lambda eighths: eighths / 8),
)


@given(_caps, st.lists(_readings, max_size=4), st.randoms())
def test_neither_order_nor_repetition_matters(caps: BudgetCaps, parts: list[list[Reading]], random: object) -> None:
    told = [reading for part in parts for reading in part]
    shuffled = [*told, *told]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random, typed as object here
    assert reached(caps, "budget", shuffled) == reached(caps, "budget", told)


@given(_caps, _readings, _readings)
def test_a_restart_in_the_middle_gives_what_one_start_gives(
    caps: BudgetCaps, before: list[Reading], after: list[Reading]
) -> None:
    kept = list(tally(before).values())
    assert reached(caps, "budget", [*kept, *after]) == reached(caps, "budget", [*before, *after])


@given(_caps, _readings, _readings)
def test_a_cap_that_is_reached_stays_reached(caps: BudgetCaps, told: list[Reading], more: list[Reading]) -> None:
    if reached(caps, "budget", told) is not None:
        assert reached(caps, "budget", [*told, *more]) is not None


@given(_caps, _readings)
def test_it_is_reached_exactly_when_a_known_sum_is_at_its_cap(caps: BudgetCaps, told: list[Reading]) -> None:
    most: dict[str, list[tuple[int, float]]] = {}
    for each in told:
        most.setdefault(each.run_id, []).append((each.tokens or 0, each.usd or 0.0))
    tokens = sum(max(count for count, _ in each) for each in most.values())
    usd = sum(max(amount for _, amount in each) for each in most.values())
    full = (caps.max_tokens is not None and tokens >= caps.max_tokens) or (
        caps.max_usd is not None and usd >= caps.max_usd
    )
    assert (reached(caps, "budget", told) is not None) == full


@given(_readings)
def test_without_a_cap_nothing_is_ever_reached(told: list[Reading]) -> None:
    assert reached(NOTHING, "budget", told) is None


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (BudgetCaps(max_tokens=300), "budget.max_tokens 300 is reached: 350 tokens of 2 attempts"),
        (BudgetCaps(max_usd=0.5), "budget.max_usd 0.5 is reached: 0.50 USD of 1 attempts, 1 more not known"),
    ],
)
def test_the_words_say_what_is_not_in_the_figure(caps: BudgetCaps, words: str) -> None:
    told = [Reading("a", "zai", 100, 0.5), Reading("b", "zai", 250, None), Reading("b", "zai", 200, None)]
    assert str(reached(caps, "budget", told)) == words

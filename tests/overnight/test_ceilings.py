"""What is asked of a provider at the most: what the lock says, and what a batch says in its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from overnight.ceilings import Ceiling, Ceilings, in_place_of

_whole = st.none() | st.integers(1, 1000)
_one: dict[str, Any] = {"concurrent": _whole, "requests": _whole, "per_s": st.floats(60, 86_400)}
_ceilings = st.builds(Ceilings, **_one, each_key=st.builds(Ceiling, **_one))


@given(_ceilings, _ceilings)
def test_the_batchs_numbers_stand_in_place_of_the_locks_and_the_rest_stays(lock: Ceilings, batch: Ceilings) -> None:
    found = in_place_of(lock, batch)
    for got, below, above in ((found, lock, batch), (found.each_key, lock.each_key, batch.each_key)):
        assert got.concurrent == (above.concurrent or below.concurrent)
        assert got.requests == (above.requests or below.requests)
        if got.requests is not None:
            assert got.per_s == (above if above.requests else below).per_s, "a number keeps its window"


def test_without_any_number_nothing_is_a_limit() -> None:
    assert in_place_of(None, None) == Ceilings()
    assert Ceilings().most_at_once is None


@pytest.mark.parametrize(("in_all", "each", "most"), [(5, 2, 2), (2, 5, 2), (None, 3, 3), (4, None, 4)])
def test_one_key_comes_to_no_more_than_the_smaller_number(in_all: int | None, each: int | None, most: int) -> None:
    assert Ceilings(concurrent=in_all, each_key=Ceiling(concurrent=each)).most_at_once == most


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrent": 0},
        {"concurrent": True},
        {"concurrent": "few"},
        {"requests": 1.5},
        {"per_s": 59},
        {"per_s": 86_401},
    ],
)
def test_a_number_is_a_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Ceilings.model_validate(wrong)

"""Calls to a Prefect API that goes away and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import disable_run_logger

from flows import patience

AWAY = httpx.ConnectError("All connection attempts failed")


def answered(status: int) -> PrefectHTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/api")
    return PrefectHTTPStatusError(f"{status}", request=request, response=httpx.Response(status, request=request))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(patience, "AGAIN_S", 0.0)
    with disable_run_logger():
        yield


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "here"

    return call


async def test_a_call_is_made_again_while_the_api_is_away() -> None:
    call = failing(AWAY, answered(503), answered(500))

    async def asked() -> str:
        return call()

    assert await patience.patiently(asked) == "here"
    assert patience.patiently_here(failing(AWAY, AWAY)) == "here"


@pytest.mark.parametrize("error", [answered(409), ValueError("ours")], ids=repr)
async def test_a_refusal_is_not_asked_again(error: Exception) -> None:
    async def refused() -> str:
        raise error

    with pytest.raises(type(error)):
        await patience.patiently(refused)
    with pytest.raises(type(error)):
        patience.patiently_here(failing(error))


def test_an_api_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AWAY_S", -1.0)
    with pytest.raises(httpx.ConnectError):
        patience.patiently_here(failing(AWAY))

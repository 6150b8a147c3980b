"""Retries as Prefect's own engine carries them out."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from overnight.failures import FailureKind, HostError, RouteError
from tasks import collect, dispatch, preflight
from tasks.retries import mends_the_wire
from tests.overnight.samples import proven

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]


def _calls(error: Exception) -> int:
    """How often the engine calls a task that raises `error`, with the rule our tasks use."""
    calls: list[None] = []

    @task(retries=3, retry_delay_seconds=0, retry_condition_fn=mends_the_wire, cache_policy=NO_CACHE)
    async def once_or_more() -> None:
        calls.append(None)
        raise error

    @flow
    async def trying() -> None:
        once_or_more.submit().wait()

    asyncio.run(trying())
    return len(calls)


@pytest.mark.parametrize("kind", [FailureKind.AUTH_REJECTED, FailureKind.WRONG_HEADER, FailureKind.KEY_MISSING])
def test_auth_is_called_exactly_once(kind: FailureKind) -> None:
    assert _calls(RouteError(proven(kind))) == 1


def test_a_host_out_of_reach_is_tried_again() -> None:
    assert _calls(HostError(proven(FailureKind.HOST_UNREACHABLE))) == 4


def test_a_refused_ssh_key_is_called_exactly_once() -> None:
    assert _calls(HostError(proven(FailureKind.HOST_AUTH))) == 1


def test_a_fault_of_ours_is_called_exactly_once() -> None:
    assert _calls(KeyError("a bug")) == 1


def test_the_rule_is_a_plain_function_or_prefect_would_never_call_it() -> None:
    assert inspect.isfunction(mends_the_wire)


@pytest.mark.parametrize("ours", [preflight.preflight, dispatch.dispatch, collect.collect])
def test_our_tasks_use_the_rule(ours: object) -> None:
    assert getattr(ours, "retry_condition_fn", None) is mends_the_wire
    assert getattr(ours, "retries", 0) > 0

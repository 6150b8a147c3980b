"""Faults that begin in the middle of a night: whom they hit, and whom they spare."""

from __future__ import annotations

from typing import Any

import httpx

from overnight.lockfile import Header
from overnight.rehearsal.faults import parse_fault
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.rehearsal.conftest import KEY
from tests.overnight.rehearsal.test_provider import CHAT, asking

PROBE = "Reply with the single word x1."
WORK: dict[str, Any] = {"tools": [{"name": "Bash", "input_schema": {"properties": {}}}]}
LATER = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]}]


def statuses(fault: str, *bodies: dict[str, Any]) -> list[int]:
    with EmulatedProvider([Site("one", KEY, fault=parse_fault(fault))]) as provider:
        url, carried = f"{provider.url('one')}{CHAT}", Header.BEARER.carry(KEY)
        return [httpx.post(url, json=body, headers=carried, timeout=30).status_code for body in bodies]


def test_a_fault_that_spares_probes_hits_the_work_alone() -> None:
    asked = (asking(), asking(PROBE, **WORK), asking(**WORK), asking())
    assert statuses("rate-limited,spares_probes=yes", *asked) == [200, 200, 429, 200]


def test_a_lasting_fault_of_a_later_turn_hits_all_that_comes_after() -> None:
    later = asking(**WORK) | {"messages": [*asking()["messages"], *LATER]}
    asked = (asking(**WORK), later, asking(**WORK), asking())
    assert statuses("rate-limited,turn=2,lasting=yes", *asked) == [200, 429, 429, 429]
    assert statuses("rate-limited,turn=2", *asked) == [200, 429, 200, 200]

"""A plan that walks into a trap of the lock is told so; no plan of the project's own lock does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight import lockfile
from overnight.doctor.trapped import trapped
from overnight.harnesses import HARNESSES
from overnight.lockfile import ProviderLock
from overnight.plan import Planner, RunPlan
from overnight.route import Route
from overnight.spec import BatchSpec, HostSpec, Limits, TaskSpec

LOCK = lockfile.load()
ROUTES = [
    Route(host="box", harness=harness, provider=name, model=next(iter(provider.models)))
    for name, provider in LOCK.providers.items()
    for harness, wiring in provider.harnesses.items()
    if provider.models and not provider.endpoints[wiring.endpoint].is_yours
]


def planned(lock: ProviderLock, route: Route) -> RunPlan:
    task = TaskSpec(
        id="t",
        repo="/repo",
        base="main",
        instruction="Add a greeting",
        route=route,
        limits=Limits(),
        verify=None,
        ask_for_commit=False,
        field="tasks[0]",
    )
    batch = BatchSpec(
        name="t", source="t.yaml", author="A <a@b.c>", hosts={"box": HostSpec(kind="local")}, tasks=(task,)
    )
    return Planner(lock, "lock.json", HARNESSES, batch, "b1").probe(task, "n", "Reply with n.")


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_no_route_of_the_projects_lock_is_a_trap(route: Route) -> None:
    assert trapped(planned(LOCK, route), LOCK, shut=True) == []


@pytest.mark.parametrize(("shut", "weight"), [(True, "error"), (False, "warning")])
def test_a_variable_that_retries_for_ever(tmp_path: Path, *, shut: bool, weight: str) -> None:
    raw = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
    entry = raw["harnesses"]["claude-code"]
    entry["env"]["CLAUDE_CODE_RETRY_WATCHDOG"] = "1"
    del entry["absent"]["CLAUDE_CODE_RETRY_WATCHDOG"]
    (tmp_path / "lock.json").write_text(json.dumps(raw))
    lock = lockfile.load(tmp_path / "lock.json")
    route = next(each for each in ROUTES if each.harness == "claude-code")
    [found] = trapped(planned(lock, route), lock, shut=shut)
    assert (found.id, found.weight) == ("retries-without-end", weight)
    assert "CLAUDE_CODE_RETRY_WATCHDOG" in found.where

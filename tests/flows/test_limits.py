"""Slots that batches share over a real Prefect server: who holds them, and how they come back."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows.limits import host_limit, provider_limit
from flows.private_server import PrivateServer, private_server
from tests.flows.small import Small, small
from tests.flows.world import ROOT

pytestmark = pytest.mark.full

HOLDER = """
import asyncio, sys
from types import SimpleNamespace
from prefect import flow
from flows.limits import rooms

night = SimpleNamespace(
    wish=lambda _: None,
    ledger=SimpleNamespace(living=set),
    lock=SimpleNamespace(concurrency=lambda: {"p": 5}),
    batch=SimpleNamespace(hosts={"box": SimpleNamespace(slots=1)}),
)
task = SimpleNamespace(id="t", route=SimpleNamespace(host="box", provider="p"))

@flow
async def hold():
    async with rooms() as room:
        for _ in range(int(sys.argv[1])):
            async with room.slot(night, task):
                print("held", flush=True)
                await asyncio.to_thread(sys.stdin.readline)

asyncio.run(hold())
"""
LATE = f"""
import asyncio
from prefect.client.orchestration import PrefectClient
from flows import limits

limits._LOOK_S = 0.5
ask = PrefectClient.increment_concurrency_slots_with_lease

async def asked_late(*args, **named):
    print("asked", flush=True)
    granted = await ask(*args, **named)
    await asyncio.sleep(2)
    return granted

PrefectClient.increment_concurrency_slots_with_lease = asked_late
{HOLDER}"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("limits")) as made:
        yield made


@pytest.fixture(scope="module")
def server(here: Small) -> Iterator[PrivateServer]:
    with private_server(here.state, here.env) as running:
        yield running


@contextmanager
def holder(
    server: PrivateServer, here: Small, times: int = 1, program: str = HOLDER
) -> Iterator[subprocess.Popen[str]]:
    env = {**server.environment(here.env), "PREFECT_LOGGING_LEVEL": "ERROR"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "env": env}
    with subprocess.Popen([sys.executable, "-c", program, str(times)], **pipes) as process:  # type: ignore[call-overload]  # as it names them
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_heard(process: subprocess.Popen[str], within_s: float = 0.1) -> bool:
    """Whether it has said something, or has ended."""
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], within_s)[0])


def goes_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def taken(server: PrivateServer) -> int:
    with server.client() as client:
        slots: int = client.get(f"/v2/concurrency_limits/{host_limit('box')}").raise_for_status().json()["active_slots"]
        return slots


def test_a_slot_is_handed_on_and_then_given_back(server: PrivateServer, here: Small) -> None:
    with holder(server, here, times=20) as process:
        for _ in range(20):
            assert says(process) == "held"
            assert taken(server) == 1
            goes_on(process)
        assert process.wait(60) == 0
    assert taken(server) == 0


def test_a_slot_that_is_granted_late_is_not_lost(server: PrivateServer, here: Small) -> None:
    with holder(server, here, program=LATE) as process:
        assert [says(process), says(process)] == ["asked", "held"]
        goes_on(process)
        assert process.wait(60) == 0
    assert taken(server) == 0


def test_a_limit_that_somebody_sets_to_0_lets_nothing_start(server: PrivateServer, here: Small) -> None:
    with server.client() as client:
        limit = f"/v2/concurrency_limits/{provider_limit('p')}"
        client.patch(limit, json={"limit": 0}).raise_for_status()
        with holder(server, here) as process:
            assert not is_heard(process, 6)
            client.patch(limit, json={"limit": 5}).raise_for_status()
            assert says(process) == "held"
            goes_on(process)
            assert process.wait(60) == 0


def test_a_killed_holder_gives_its_slot_back(server: PrivateServer, here: Small) -> None:
    with holder(server, here) as first, holder(server, here) as second:
        pair = {first: second, second: first}
        while not (talking := [each for each in pair if is_heard(each)]):
            pass
        [holds] = talking
        assert says(holds) == "held"
        assert not is_heard(pair[holds], 3), "the other one waits"
        assert taken(server) == 1
        holds.kill()
        assert says(pair[holds]) == "held", "once the lease of the killed one ran out"
        goes_on(pair[holds])
        assert pair[holds].wait(60) == 0
    assert taken(server) == 0

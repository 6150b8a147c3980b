"""Slots that batches share over a real Prefect server: who holds them, and how they come back."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flows.limits import host_limit
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


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("limits")) as made:
        yield made


@pytest.fixture(scope="module")
def server(here: Small) -> Iterator[PrivateServer]:
    with private_server(here.state, here.env) as running:
        yield running


def holder(server: PrivateServer, here: Small, times: int = 1) -> subprocess.Popen[str]:
    env = {**server.environment(here.env), "PREFECT_LOGGING_LEVEL": "ERROR"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "env": env}
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(times)], **pipes)  # type: ignore[call-overload,no-any-return]  # as it names them


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

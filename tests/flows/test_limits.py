"""Slots that batches share over a real Prefect server: who holds them, and how they come back."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows.limits import host_limit, key_limit, provider_limit, requests_limit
from flows.private_server import PrivateServer, private_server
from overnight.ceilings import Ceiling, Ceilings
from overnight.redact import fingerprint
from tests.flows.small import Small, small
from tests.flows.world import ROOT
from tests.overnight.nights import KEY

pytestmark = pytest.mark.full

HOLDER = """
import asyncio, sys
from types import SimpleNamespace
from prefect import flow
from flows import pace
from flows.limits import rooms
from overnight.ceilings import Ceilings

pace._COUNT_S = 0.2
asked = {"p": Ceilings.model_validate_json(sys.argv[4])}
night = SimpleNamespace(
    wish=lambda _: None,
    ledger=SimpleNamespace(living=set),
    lock=SimpleNamespace(providers={"p": SimpleNamespace(limits=Ceilings(concurrent=5))}),
    batch=SimpleNamespace(hosts={"box": SimpleNamespace(slots=int(sys.argv[3]))}, providers=asked),
    spending=SimpleNamespace(further=lambda _: int(sys.argv[5])),
    key=lambda _: sys.argv[2],
    tell=lambda *words: print(*words, flush=True),
)
task = SimpleNamespace(id="t", route=SimpleNamespace(host="box", provider="p"))

async def before(room):
    pass

@flow
async def hold():
    async with rooms() as room:
        await before(room)
        for _ in range(int(sys.argv[1])):
            async with room.slot(night, task, adopted=False):
                print("held", flush=True)
                await asyncio.to_thread(sys.stdin.readline)

asyncio.run(hold())
"""
RESUMED = HOLDER.replace(
    "    pass\n",
    """    living = {"t"}
    night.ledger.living = living.copy
    print("finds", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with room.slot(night, task, adopted=True):
        living.clear()
        print("follows", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
""",
)
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
    server: PrivateServer,
    here: Small,
    times: int = 1,
    *,
    program: str = HOLDER,
    key: str = "sk-1",
    slots: int = 1,
    asked: Ceilings = Ceilings(),  # noqa: B008  # frozen
    further: int = 0,
    errors: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A batch that takes a slot `times` times, one after the other, and says so each time."""
    env = {**server.environment(here.env), "PREFECT_LOGGING_LEVEL": "ERROR"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
    words = [sys.executable, "-c", program, str(times), key, str(slots), asked.model_dump_json(), str(further)]
    with subprocess.Popen(words, **pipes, text=True, cwd=ROOT, env=env) as process:
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


def taken(server: PrivateServer, limit: str = host_limit("box")) -> int:
    with server.client() as client:
        slots: int = client.get(f"/v2/concurrency_limits/{limit}").raise_for_status().json()["active_slots"]
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


def test_a_resumed_batch_waits_for_no_slot_of_its_killed_start_also_when_all_that_lived_has_ended(
    server: PrivateServer, here: Small
) -> None:
    with holder(server, here) as other:
        assert says(other) == "held"
        with holder(server, here, program=RESUMED) as resumed:
            assert says(resumed) == "finds"
            goes_on(resumed)
            assert says(resumed) == "follows"
            goes_on(resumed)
            assert says(resumed) == "held"
            for each in (resumed, other):
                goes_on(each)
                assert each.wait(60) == 0


def test_a_run_that_lives_is_followed_while_prefect_answers_nothing(server: PrivateServer, here: Small) -> None:
    with holder(server, here, program=RESUMED) as resumed:
        assert says(resumed) == "finds"
        with here.mute_server():
            goes_on(resumed)
            assert is_heard(resumed, 30)
            assert says(resumed) == "follows"
        for said in ("held", ""):
            goes_on(resumed)
            assert says(resumed) == said
        assert resumed.wait(60) == 0


def test_a_limit_that_somebody_sets_to_0_lets_nothing_start_and_is_no_error(server: PrivateServer, here: Small) -> None:
    with server.client() as client:
        limit = f"/v2/concurrency_limits/{provider_limit('p')}"
        if client.patch(limit, json={"limit": 0}).is_error:  # no batch has made it
            client.post("/v2/concurrency_limits/", json={"name": provider_limit("p"), "limit": 0}).raise_for_status()
        with holder(server, here, errors=subprocess.PIPE) as process:
            assert not is_heard(process, 6)
            client.patch(limit, json={"limit": 5}).raise_for_status()
            assert says(process) == "held"
            goes_on(process)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""


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


def test_each_key_has_slots_of_its_own(server: PrivateServer, here: Small) -> None:
    one = Ceilings(each_key=Ceiling(concurrent=1))
    with (
        holder(server, here, slots=3, asked=one) as first,
        holder(server, here, slots=3, asked=one, key="sk-2") as other,
    ):
        assert [says(first), says(other)] == ["held", "held"]
        with holder(server, here, slots=3) as same:  # whatever its own batch says of the key
            assert not is_heard(same, 6)
            goes_on(first)
            assert first.wait(60) == 0
            assert says(same) == "held"
            assert taken(server) == 2


def test_the_requests_of_a_while_hold_across_batches_also_those_of_a_killed_one(
    server: PrivateServer, here: Small
) -> None:
    asked = Ceilings(each_key=Ceiling(requests=3))
    window = requests_limit(key_limit("p", fingerprint("sk-3", "p")))
    with holder(server, here, 9, slots=5, asked=asked, key="sk-3") as first:
        for _ in range(2):
            assert says(first) == "held"
            goes_on(first)
        assert says(first) == "held"
        first.kill()
    assert taken(server, window) == 3, "no run gives a request back"
    with holder(server, here, slots=5, asked=asked, key="sk-3") as second:
        assert says(second) == f"t queue waits for {window}: 3 requests in 60 s"
        assert not is_heard(second, 5)
        assert says(second) == "held", "once the first ones are a minute old"
    others = requests_limit(key_limit("p", fingerprint("sk-4", "p")))
    with holder(server, here, slots=5, asked=asked, key="sk-4", further=1) as other:
        assert says(other) == "held"
        while taken(server, others) != 2:  # it counts while it runs
            assert not is_heard(other)


def test_what_an_agent_asks_further_counts_in_the_window(server: PrivateServer, here: Small) -> None:
    batch = json.loads(here.batch("asks", [{"id": "six", "instruction": "Go six steps"}]).read_text())
    path = here.directory / "asks.yaml"
    path.write_text(json.dumps({**batch, "providers": {"rehearsal": {"requests": 40, "each_key": {"requests": 5}}}}))
    done = here.run(path)
    assert done.code == 0, done
    of_all = requests_limit(provider_limit("rehearsal"))
    assert taken(server, of_all) == 7, "six steps, and the last word"
    of_key = requests_limit(key_limit("rehearsal", fingerprint(KEY, "rehearsal")))
    assert taken(server, of_key) == 5, "what is over the number is not counted"

"""Every rehearsal fault through a whole night's stages, over SSH: fault -> kind, and an evidence that names a sign.

The same table runs with our own small agent, and with the real Claude Code.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from overnight.failures import FailureKind, HostError, RouteError
from overnight.preflight import Checked
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Shell, Tape, Wait
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.spec import HostSpec
from tests.overnight.nights import COMMIT, KEY, TAPES, Evening, carry_out, loopback, make_lock, make_repo

pytestmark = pytest.mark.full  # many real processes: too slow for the fast tier

K = FailureKind
PATIENCE_S = {
    "scripted": 1.5,
    **dict.fromkeys(("claude-code", "codex", "copilot", "opencode", "pi"), 15.0),
}
SLOW = Tape("Work slowly", (Shell("echo one > one.txt"), Wait(0.2), Shell(COMMIT)))


@dataclass(frozen=True)
class Case:
    """A provider that is not well, what preflight must call it, and what the strongest sighting must name."""

    name: str
    kind: FailureKind | None
    sign: str = ""
    fault: Fault | None = None
    key: str = KEY
    wrong_variable: bool = False
    models: tuple[str, ...] = ("rehearsal-large",)


CASES = (
    Case("right key", None),
    Case("key in the wrong variable", K.WRONG_HEADER, "rejects x-api-key, accepts the same key", wrong_variable=True),
    Case("wrong key", K.AUTH_REJECTED, "HTTP 401, code 1000", key="sk-some-other-key-0123456789"),
    Case("unknown model", K.MODEL_UNKNOWN, "HTTP 400, code 1211", models=("rehearsal-small",)),
    Case("429", K.RATE_LIMITED, "HTTP 429, code 1302", Fault(FaultKind.RATE_LIMITED, retry_after_s=7)),
    Case("no balance", K.BILLING, "HTTP 429, code 1113", Fault(FaultKind.NO_BALANCE)),
    Case("window used up", K.QUOTA_WINDOW, "HTTP 429, code 1308", Fault(FaultKind.WINDOW_USED_UP)),
    Case("too many at once", K.RATE_LIMITED, "HTTP 429, code 1303", Fault(FaultKind.CODED, code="1303")),
    Case("plan expired", K.PLAN_EXPIRED, "HTTP 429, code 1309", Fault(FaultKind.CODED, code="1309")),
    Case("token not valid", K.AUTH_REJECTED, "HTTP 401, code 1002", Fault(FaultKind.CODED, code="1002")),
    Case("no such model here", K.MODEL_UNKNOWN, "HTTP 404, code not_found_error", Fault(FaultKind.MODEL_NOT_FOUND)),
    Case("page of a firewall", K.NOT_THE_API, "HTTP 403: <!DOCTYPE html>", Fault(FaultKind.FIREWALL_PAGE)),
    Case("no capacity", K.OVERLOADED, "HTTP 529, code 1305", Fault(FaultKind.OVERLOADED)),
    Case("page instead of an answer", K.NOT_THE_API, "HTTP 200: <!DOCTYPE html>", Fault(FaultKind.HTML_PAGE)),
    Case("hang after accept", K.PROVIDER_MUTE, "", Fault(FaultKind.HANG)),
    Case("stall in the stream", K.PROVIDER_MUTE, "", Fault(FaultKind.STALL)),
)


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [Site(f"{n}", KEY, models=case.models, fault=case.fault) for n, case in enumerate(CASES)]
    with EmulatedProvider([*sites, Site("well", KEY)], [*TAPES, SLOW]) as running:
        yield running


@dataclass
class World:
    """One host for the module, with or without the real agents on its path."""

    directory: Path
    host: LoopbackHost
    spec: HostSpec
    home: Path
    number: int = field(default=0)

    def evening(self, url: str, **more: object) -> Evening:
        self.number += 1
        place = self.directory / str(self.number)
        make_repo(place / "repo")
        harness = str(more.pop("harness", "scripted"))
        wrong = bool(more.pop("wrong_variable", False))
        probe_s = PATIENCE_S[harness]
        lock = make_lock(place / "lock.json", url, probe_s=probe_s, wrong_variable=wrong)
        return Evening(place, str(place / "repo"), self.spec, lock, harness=harness, **more)  # type: ignore[arg-type]  # as a test says


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("faults")
    with loopback(directory) as (host, spec):
        yield World(directory, host, spec, directory / "home")


@pytest.fixture(scope="module")
def real_world(tmp_path_factory: pytest.TempPathFactory, real_agent: Callable[[str], Agent]) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("real")
    folders = {str(real_agent(name).path.parent) for name in PATIENCE_S if name != "scripted"}
    with loopback(directory, path=sorted(folders)) as (host, spec):
        yield World(directory, host, spec, directory / "home")


def preflight(world: World, provider: EmulatedProvider, number: int, harness: str) -> Checked:
    case = CASES[number]
    evening = world.evening(
        provider.url(str(number)), harness=harness, key=case.key, wrong_variable=case.wrong_variable
    )
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id=f"{harness[0]}{number}") as night:
        return night.preflight(task)


def judged(case: Case, found: Checked) -> None:
    if case.kind is None:
        assert found.failure is None
        assert found.version
        return
    assert found.failure is not None
    assert found.failure.kind is case.kind, found.failure.evidence
    assert case.sign in found.failure.evidence[0].seen
    assert KEY not in repr(found)


@pytest.fixture(scope="module")
def scripted(world: World, provider: EmulatedProvider) -> Iterator[list[Future[Checked]]]:
    """All preflights at once, as a night does them."""
    with ThreadPoolExecutor(4) as pool:
        yield [pool.submit(preflight, world, provider, n, "scripted") for n in range(len(CASES))]


@pytest.fixture(scope="module")
def claude(real_world: World, provider: EmulatedProvider) -> Iterator[list[Future[Checked]]]:
    with ThreadPoolExecutor(4) as pool:
        order = sorted(range(len(CASES)), key=lambda n: CASES[n].kind is not K.PROVIDER_MUTE)  # the slow ones first
        futures = {n: pool.submit(preflight, real_world, provider, n, "claude-code") for n in order}
        yield [futures[n] for n in range(len(CASES))]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_preflight_names_it_with_our_own_agent(scripted: list[Future[Checked]], number: int) -> None:
    judged(CASES[number], scripted[number].result(60))


@pytest.mark.full
@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_preflight_names_it_with_the_real_claude_code(claude: list[Future[Checked]], number: int) -> None:
    judged(CASES[number], claude[number].result(120))


def test_a_rate_limit_keeps_the_time_the_provider_named(scripted: list[Future[Checked]]) -> None:
    number = next(n for n, case in enumerate(CASES) if case.name == "429")
    failure = scripted[number].result(60).failure
    assert failure is not None
    assert (failure.retry_after_s, failure.shuts_route) == (7, False)


def test_a_host_that_is_down_is_for_the_wire_to_mend(world: World, provider: EmulatedProvider) -> None:
    evening = world.evening(provider.url("well"))
    evening.host = evening.host.model_copy(update={"port": 1})
    task = evening.task("t", "Add a greeting")
    with evening.night(task) as night:
        night.stations["box"].remote.host._patience_s = 0.5  # type: ignore[attr-defined]  # the wait is not what is tested
        with pytest.raises(HostError) as caught:
            night.preflight(task)
    assert caught.value.failure.kind is K.HOST_UNREACHABLE
    assert "127.0.0.1:1" in repr(caught.value.failure.evidence)


def test_a_host_that_shows_another_key_is_an_answer(world: World, provider: EmulatedProvider, tmp_path: Path) -> None:
    evening = world.evening(provider.url("well"))
    other = " ".join(make_key(tmp_path / "other").split()[:2])
    evening.host = evening.host.model_copy(update={"host_key": other})
    task = evening.task("t", "Add a greeting")
    with evening.night(task) as night:
        found = night.preflight(task)
    assert found.failure is not None
    assert (found.failure.kind, found.failure.shuts_route) == (K.HOST_KEY_MISMATCH, True)
    assert "SHA256:" in repr(found.failure.evidence)


def test_an_agent_that_ends_well_without_a_commit(world: World, provider: EmulatedProvider) -> None:
    evening = world.evening(provider.url("well"))
    task = evening.task("t", "Do nothing")
    with evening.night(task, batch_id="idle") as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert (run.state, run.failure.kind, run.claims) == (
        "failed",
        K.NO_COMMIT,
        "it reported success; there is no commit",
    )
    assert "0 commits since" in run.failure.evidence[0].seen


def started_pid(world: World, run_id: str) -> int:
    record = world.home / ".overnight" / "runs" / run_id / "started.json"
    deadline = time.monotonic() + 30
    while not record.exists():
        assert time.monotonic() < deadline, "the run never started"
        time.sleep(0.02)
    pid: int = json.loads(record.read_text())["pid"]
    return pid


def test_an_agent_that_is_killed_keeps_its_commits(world: World, provider: EmulatedProvider) -> None:
    evening = world.evening(provider.url("well"))
    script = f'```script\n{{"sh": "{COMMIT}"}}\n{{"say": "committed"}}\n{{"sleep": 60}}\n```'
    task = evening.task("t", script)
    with evening.night(task, batch_id="killed") as night:

        def strike() -> None:
            pid = started_pid(world, "killed.t.1")
            out = evening.state / "batches" / "killed" / "runs" / "killed.t.1" / "out"
            while b"committed" not in (out.read_bytes() if out.exists() else b""):
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)

        threading.Thread(target=strike, daemon=True).start()
        run = carry_out(night, task)
    assert run.failure is not None
    assert (run.state, run.failure.kind) == ("failed", K.HARNESS_CRASHED)
    assert "9 (SIGKILL)" in repr(run.failure.evidence)
    assert [c.subject for c in run.commits] == ["Add greeting"]


def test_a_key_that_turns_bad_in_the_middle_ends_the_run_and_shuts_the_route(
    world: World, provider: EmulatedProvider
) -> None:
    evening = world.evening(provider.url("well"))
    first, second = evening.task("t", "Work slowly"), evening.task("u", "Work slowly")
    with evening.night(first, second, batch_id="revoked") as night:
        night.preflight(first)
        assert night.shut_by(first.route) is None
        provider.set_fault("well", Fault(FaultKind.KEY_REFUSED, turn=2))
        try:
            run = carry_out(night, first)
        finally:
            provider.set_fault("well", None)
        shut = night.shut_by(second.route)
    assert run.failure is not None
    assert shut is not None
    assert (run.failure.kind, shut.kind) == (K.AUTH_REJECTED, K.AUTH_REJECTED)
    assert "401" in repr(run.failure.evidence)
    assert run.leftovers is not None
    assert run.leftovers.files == ("one.txt",)
    assert any("SHUT by a run" in line for line in evening.told)


@pytest.mark.parametrize(
    ("harness", "fault", "kind", "sign"),
    [
        ("claude-code", FaultKind.KEY_REFUSED, K.AUTH_REJECTED, "401"),
        ("codex", FaultKind.KEY_REFUSED, K.AUTH_REJECTED, "401"),
        ("opencode", FaultKind.KEY_REFUSED, K.AUTH_REJECTED, "401"),
        ("opencode", FaultKind.EMPTY, K.PROVIDER_ERROR, "answers in a row held no token"),
        ("pi", FaultKind.NO_BALANCE, K.BILLING, "1113"),
        ("copilot", FaultKind.NO_BALANCE, K.BILLING, "1113"),
    ],
)
def test_a_real_agent_is_ended_where_it_would_try_again(
    real_world: World, provider: EmulatedProvider, harness: str, fault: FaultKind, kind: FailureKind, sign: str
) -> None:
    evening = real_world.evening(provider.url("well"), harness=harness)
    task = evening.task("t", "Work slowly")
    with evening.night(task, batch_id=f"{fault}-{harness[:2]}") as night:
        night.preflight(task)
        provider.set_fault("well", Fault(fault, turn=2))
        try:
            run = carry_out(night, task)
        finally:
            provider.set_fault("well", None)
        shut = night.shut_by(task.route)
    assert run.failure is not None
    assert run.failure.kind is kind
    assert sign in repr(run.failure.evidence)
    assert (shut is not None) == run.failure.shuts_route


def test_a_command_that_is_not_there_is_an_answer_and_asks_nobody(world: World, provider: EmulatedProvider) -> None:
    evening = world.evening(provider.url("well"), harness="claude-code")
    task = evening.task("t", "Add a greeting")
    before = len(provider.calls)
    with evening.night(task, batch_id="missing") as night:
        found = night.preflight(task)
        with pytest.raises(RouteError):
            night.dispatch(night.planner.resolve(task, 1, None))
    assert found.failure is not None
    assert found.failure.kind is K.HARNESS_MISSING
    assert len(provider.calls) == before

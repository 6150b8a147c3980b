"""A host that goes away and comes back: its task keeps its slot, and nothing is decided or begun twice over it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from prefect import flow

from flows import outage
from flows.attempts import in_slots
from flows.conduct import Conductor
from overnight.night import Night
from overnight.preflight import Checked
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.report import RunReport
from overnight.spec import HostSpec, TaskSpec
from tasks.dispatch import dispatch
from tests.overnight.nights import COMMIT, KEY, PYTHON, TAPES, Evening, git, make_lock, make_repo, script
from tests.sshd import free_port, wait_until

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]


class Box:
    """A host that can be away; it comes back with its key, on its port."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        (directory / "home").mkdir(parents=True)
        self.public = make_key(directory / "key")
        self.shown = " ".join(make_key(directory / "host").split()[:2])
        self.up = ExitStack()

    def comes(self) -> None:
        terms = {"home": self.directory / "home", "host_key": self.directory / "host", "port": self.port}
        self.up.enter_context(LoopbackHost("dev", [self.public], **terms))  # type: ignore[arg-type]  # as it names them

    def goes(self) -> None:
        self.up.close()

    @property
    def spec(self) -> HostSpec:
        key = self.directory / "key"
        given = {"port": self.port, "user": "dev", "key_file": key, "host_key": self.shown, "path": (PYTHON,)}
        return HostSpec(address="127.0.0.1", **given)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


@pytest.fixture
def evening(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evening:
    make_repo(tmp_path / "repo")
    monkeypatch.setattr(outage, "LOOK_S", 0.2)
    monkeypatch.setattr("flows.attempts.dispatch", dispatch.with_options(retries=0))
    evening = Evening(tmp_path, str(tmp_path / "repo"), box.spec, tmp_path / "lock.json")
    evening.limits = evening.limits.model_copy(update={"attempts": 1})
    return evening


def carried_out(evening: Evening, *tasks: TaskSpec) -> tuple[list[RunReport], list[str]]:
    """All tasks with one slot between them; and who held it, in the order they got it."""
    held: list[str] = []
    room = asyncio.Semaphore(1)

    @asynccontextmanager
    async def slot(_night: Night, task: TaskSpec, _adopted: bool) -> AsyncIterator[None]:
        async with room:
            held.append(task.id)
            yield

    @flow
    async def night_flow() -> list[RunReport]:
        with evening.night(*tasks) as night:
            for task in tasks:
                night.settle(Checked(task.route, 0.0))
            return await Conductor(night, in_slots(slot), decided).run()

    async def decided(_run: RunReport) -> None:
        pass

    return asyncio.run(night_flow()), held


def _comes_when_missed(evening: Evening, box: Box) -> None:
    wait_until(lambda: missed(evening), 240)
    box.comes()


def missed(evening: Evening) -> bool:
    return any("waiting for box" in line for line in evening.told)


def test_a_task_waits_for_its_host_in_its_slot_and_then_begins(evening: Evening, box: Box) -> None:
    marks = evening.directory / "marks"
    work = script(f'{{"sh": "echo x >> {marks}; {COMMIT}"}}')
    with EmulatedProvider([Site("well", KEY)], TAPES) as provider:
        make_lock(evening.lock, provider.url("well"))
        back = threading.Thread(target=_comes_when_missed, args=(evening, box))
        back.start()
        try:
            [first, second], held = carried_out(evening, evening.task("a", work), evening.task("b", work))
        finally:
            back.join()
            box.goes()
    assert [(run.state, run.attempt) for run in (first, second)] == [("succeeded", 1)] * 2
    assert held == ["a", "b"], "the second got its slot when the first was known"
    assert missed(evening)
    assert marks.read_text() == "x\nx\n"
    assert git(Path(evening.repo), "log", "--format=%s", "main..overnight/b1/a") == "Add greeting"


def test_a_host_that_stays_away_is_waited_for_once(evening: Evening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "AWAY_S", 2.0)
    with EmulatedProvider([Site("well", KEY)], TAPES) as provider:
        make_lock(evening.lock, provider.url("well"))
        began = time.monotonic()
        runs, held = carried_out(evening, evening.task("a", "x"), evening.task("b", "x"))
    assert held == ["a"], "the second never began, and waited for nothing"
    assert len([line for line in evening.told if "waiting for box" in line]) == 1
    assert time.monotonic() - began >= 2
    assert [(run.state, run.attempt) for run in runs] == [("failed", 1), ("skipped", 0)]
    assert {run.failure.kind for run in runs if run.failure} == {"host-unreachable"}
    assert [each.because for each in runs[1].passed_over] == ["away"]

"""Whole nights over SSH with a planted trouble: the morning must tell just that, and the night make the best of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from overnight.breaker import BreakerFile
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Call, Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.report import BatchReport, RunReport, last_attempts
from tests import sshd
from tests.flows.small import LIMITS
from tests.flows.world import Done, finished, start_batch
from tests.overnight.nights import KEY, MODEL, PYTHON, TAPES, git, make_lock, make_repo, script

pytestmark = pytest.mark.full
WORK = "Add a greeting"


@dataclass
class Planted:
    """Two hosts over SSH, `loop` and `box`, and two providers, `first` and `second`, that can be spoilt."""

    directory: Path
    provider: EmulatedProvider
    hosts: dict[str, dict[str, Any]]

    def route(self, host: str = "loop", provider: str = "first") -> dict[str, str]:
        return {"host": host, "harness": "scripted", "provider": provider, "model": MODEL}

    def start(self, tasks: Sequence[dict[str, Any]], **whole: Any) -> subprocess.Popen[str]:
        defaults = {"repo": str(self.directory / "repo"), "base": "main", "limits": LIMITS, "ask_for_commit": False}
        batch = {"schema": 1, "name": "night", "hosts": self.hosts, "defaults": defaults, "tasks": tasks, **whole}
        path = self.directory / "night.yaml"
        path.write_text(json.dumps(batch))
        env = {"PATH": os.environ["PATH"], "HOME": str(self.directory / "home"), "LANG": "C.UTF-8"}
        keys = {"OVERNIGHT_KEY_FIRST": KEY, "OVERNIGHT_KEY_SECOND": KEY}
        options: list[str | Path] = ["--state", self.directory / "state", "--lock", self.directory / "lock.json"]
        return start_batch([path, *options, "--json", self.directory / "report.json"], {**env, **keys})

    def run(self, tasks: Sequence[dict[str, Any]], **whole: Any) -> tuple[BatchReport, Done]:
        done = finished(self.start(tasks, **whole))
        return self.report(), done

    def report(self) -> BatchReport:
        return BatchReport.model_validate_json((self.directory / "report.json").read_text())

    def asked(self, site: str) -> list[Call]:
        """The agents' requests for work."""
        return [call for call in self.provider.calls_of(site) if call.tools and not call.is_probe]


@contextmanager
def planted(directory: Path, slots: int = 2) -> Iterator[Planted]:
    for name in ("home", "loop-home", "sshd"):
        (directory / name).mkdir()
    make_repo(directory / "repo")
    with ExitStack() as stack:
        provider = stack.enter_context(EmulatedProvider([Site("first", KEY), Site("second", KEY)], TAPES))
        public = make_key(directory / "key")
        loop = stack.enter_context(LoopbackHost("dev", [public], home=directory / "loop-home"))
        box = stack.enter_context(sshd.serving(directory / "sshd")).address()
        same = {"path": [PYTHON], "slots": slots}
        there = {"address": loop.address, "port": loop.port, "user": "dev", "key_file": str(directory / "key")}
        real = {"address": box.address, "port": box.port, "user": box.user, "key_file": str(box.key_file)}
        hosts = {
            "loop": {**there, "host_key": loop.host_key, **same},
            "box": {**real, "host_key": box.host_key, "directory": str(directory / "box-home"), **same},
        }
        path = make_lock(directory / "lock.json", provider.url("first"))
        lock = json.loads(path.read_text())
        lock["providers"] = {name: copy.deepcopy(lock["providers"]["rehearsal"]) for name in ("first", "second")}
        for endpoint in lock["providers"]["second"]["endpoints"].values():
            endpoint["url"] = provider.url("second")
        path.write_text(json.dumps(lock))
        yield Planted(directory, provider, hosts)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Planted]:
    with planted(tmp_path) as made:
        yield made


def of(report: BatchReport, task: str) -> list[RunReport]:
    return [run for run in report.runs if run.task_id == task]


def how(run: RunReport) -> tuple[str, str | None]:
    """How an attempt ended, and of what."""
    return run.state, run.failure.kind if run.failure else None


def when(true: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Do something, from a thread, as soon as something is true."""

    def wait() -> None:
        deadline = time.monotonic() + 100
        while not true() and time.monotonic() < deadline:
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_used_up_window_is_waited_for(here: Planted) -> None:
    opens: list[datetime] = []

    def use_up() -> None:
        opens.append(datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=40))
        window = Fault(FaultKind.WINDOW_USED_UP, resets_at=opens[0], spares_probes=True)
        here.provider.set_fault("first", window)
        when(lambda: datetime.now(UTC) >= opens[0], lambda: here.provider.set_fault("first", None))

    when(lambda: len(here.provider.calls) > 0, use_up)
    limits = {**LIMITS, "attempts": 2}
    tasks = [{"id": f"t{i}", "instruction": WORK, "route": here.route(), "limits": limits} for i in range(4)]
    report, done = here.run(tasks)
    assert done.code == 0, done.err
    assert report.counts["succeeded"] == 4
    assert {route.state for route in report.routes} == {"open"}
    [refused] = [run for run in report.runs if run.failure]
    assert (refused.task_id, refused.failure and refused.failure.kind) == ("t0", "quota-window")
    well = [call.at for call in here.asked("first") if not call.faulty]
    assert 0 <= (min(well) - opens[0]).total_seconds() < 20, "it is tried as soon as the provider said"
    for words in ("open until", "half-open, one task tries it", "closed, it answers again"):
        assert f"breaker: {words}" in done.err


def test_a_window_that_preflight_finds_used_up_is_waited_for(here: Planted) -> None:
    opens = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=45)
    here.provider.set_fault("first", Fault(FaultKind.WINDOW_USED_UP, resets_at=opens))
    when(lambda: datetime.now(UTC) >= opens, lambda: here.provider.set_fault("first", None))
    late = opens + timedelta(seconds=90)
    tasks = [{"id": f"t{i}", "instruction": WORK, "route": here.route()} for i in range(2)]
    report, done = here.run(tasks, deadline=late.isoformat(timespec="seconds"))
    assert done.code == 0, done.err
    assert [(run.task_id, run.attempt, run.state) for run in report.runs] == [
        ("t0", 1, "succeeded"),
        ("t1", 1, "succeeded"),
    ]
    [route] = report.routes
    assert (route.state, any("quota-window" in note for note in route.notes)) == ("open", True)
    assert (min(call.at for call in here.asked("first")) - opens).total_seconds() >= 0
    assert done.err.count("half-open, one task tries it") == 2, "the route's breaker, and its provider's"


def test_a_provider_that_dies_at_half_time_costs_only_what_can_go_nowhere_else(here: Planted) -> None:
    first, both = here.route(), [here.route(), here.route(provider="second")]
    well, task = ["a0", "a1"], {"instruction": WORK, "after": ["a0", "a1"]}
    tasks: list[dict[str, Any]] = [{"id": id, "instruction": WORK, "route": first} for id in well]
    tasks += [{"id": f"b{i}", **task, "route": first} for i in range(4)]
    tasks += [{"id": f"c{i}", **task, "route": both, "priority": -1} for i in range(3)]
    tasks += [{"id": f"d{i}", **task, "route": first, "priority": -2} for i in range(2)]

    def dies() -> None:
        here.provider.set_fault("first", Fault(FaultKind.SERVER_ERROR, spares_probes=True))

    when(lambda: len(here.asked("first")) == 2 * len(well), dies)
    soon = datetime.now(UTC) + timedelta(seconds=100)
    report, done = here.run(tasks, deadline=soon.isoformat(timespec="seconds"))
    assert done.code == 1, done.err
    last = {run.task_id: run for run in last_attempts(report.runs)}
    assert {id for id, run in last.items() if run.state == "succeeded"} == {*well, "c0", "c1", "c2"}
    for i in range(3):
        run = last[f"c{i}"]
        assert (run.provider, run.branch is not None) == ("second", True)
        [passed] = run.passed_over
        assert (passed.because, passed.failure and passed.failure.kind) == ("breaker", "provider-error")
    for i in range(4):
        assert how(last[f"b{i}"]) == ("failed", "provider-error")
    # how many canaries there were in time is the machine's matter
    assert how(last["d0"]) in [("failed", "provider-error"), ("skipped", "provider-error"), ("skipped", "deadline")]
    assert how(last["d1"]) in [("skipped", "provider-error"), ("skipped", "deadline")]
    assert BreakerFile(here.directory / "state").read()["provider first"].opened >= 1


def test_a_poisoned_host_gives_its_tasks_to_another(here: Planted) -> None:
    here.hosts["box"]["min_free_bytes"] = 10**15
    both = [here.route("box"), here.route("loop")]
    tasks: list[dict[str, Any]] = [{"id": f"t{i}", "instruction": WORK, "route": both} for i in range(2)]
    tasks += [{"id": "stuck", "instruction": WORK, "route": here.route("box")}]
    report, done = here.run(tasks)
    assert done.code == 1, done.err
    assert {route.host: route.state for route in report.routes} == {"box": "shut", "loop": "open"}
    for i in range(2):
        [run] = of(report, f"t{i}")
        assert (run.state, run.host) == ("succeeded", "loop")
        [passed] = run.passed_over
        assert (passed.route.host, passed.because) == ("box", "shut")
        assert passed.failure
        assert passed.failure.kind == "disk-full"
        first = Path(str(run.log), "events.jsonl").read_text().splitlines()[0]
        assert json.loads(first)["event"] == "route"
    [stuck] = of(report, "stuck")
    assert how(stuck) == ("skipped", "disk-full")
    told = (here.directory / "state" / "batches" / report.batch_id / "report.md").read_text()
    assert f"Not scripted on box with {MODEL} of first, which was shut: disk-full" in told


def test_a_slow_model_is_never_ended(here: Planted) -> None:
    here.provider.set_fault("first", Fault(FaultKind.SLOW, wait_s=5, spares_probes=True))
    limits = {**LIMITS, "first_event_s": 3, "quiet_s": 900, "total_s": 1000}
    tasks = [{"id": f"t{i}", "instruction": WORK, "route": here.route(), "limits": limits} for i in range(3)]
    report, done = here.run(tasks)
    assert done.code == 0, done.err
    ended = [(run.task_id, run.attempt, run.state) for run in report.runs]
    assert ended == [(f"t{i}", 1, "succeeded") for i in range(3)]
    assert report.kills == ()


def test_what_runs_at_the_deadline_is_ended_and_its_commits_come_home(here: Planted) -> None:
    work = script('{"sh": "echo one > one && git add -A && git commit -qm One"}', '{"sh": "sleep 300"}')
    tasks: list[dict[str, Any]] = [{"id": "long", "instruction": work, "route": here.route()}]
    tasks += [{"id": "next", "instruction": WORK, "route": here.route(), "after": ["long"]}]
    soon = datetime.now(UTC) + timedelta(seconds=60)
    report, done = here.run(tasks, deadline=soon.isoformat(timespec="seconds"), wrap_up_s=1)
    assert done.code == 1, done.err
    [long], [after] = of(report, "long"), of(report, "next")
    assert (*how(long), len(long.commits)) == ("cancelled", "deadline", 1)
    assert long.failure
    assert long.failure.evidence[0].source == "clock"
    assert "the deadline" in long.failure.evidence[0].seen
    assert how(after) == ("skipped", "deadline")


def test_a_stacked_task_starts_from_what_the_other_committed(here: Planted) -> None:
    below = script('{"sh": "echo below > below && git add -A && git commit -qm Below"}')
    above = script('{"sh": "cat below > above && git add -A && git commit -qm Above"}')
    tasks: list[dict[str, Any]] = [
        {"id": "above", "instruction": above, "route": here.route("box"), "after": ["below"], "stacked": True},
        {"id": "below", "instruction": below, "route": here.route("loop")},
    ]
    report, done = here.run(tasks)
    assert done.code == 0, done.err
    [run] = of(report, "above")
    subjects = git(here.directory / "repo", "log", "--format=%s", str(run.branch)).splitlines()
    assert subjects == ["Above", "Below", "base"]
    assert [commit.subject for commit in run.commits] == ["Above"]

"""Runs that fall silent for every reason, on a real host, named by the whole way: clock, look, fresh call."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from overnight.failures import FailureKind
from overnight.night import Night, Stages
from overnight.rehearsal.badways import mute, unreachable
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.report import RunReport
from overnight.spec import Limits, TaskSpec
from tests.overnight.nights import COMMIT, KEY, PYTHON, TAPES, Evening, loopback, make_lock, make_repo, script

pytestmark = pytest.mark.full
K, F = FailureKind, FaultKind
DONE = json.dumps({"raw": json.dumps({"type": "result", "ok": True, "tokens": 5})})
_PATIENCE_S = 60.0  # a look that comes late shows a busy machine, which is not what these tests are about
LIMITS = Limits(first_event_s=5, quiet_s=6, total_s=90, grace_s=0.5)


@dataclass(frozen=True)
class Case:
    """One run: what the agent does, how its provider fails, and what it must be called."""

    name: str
    kind: FailureKind | None
    says: str
    steps: tuple[str, ...] = ('{"ask": true}',)
    fault: Fault | None = None
    url: str = ""
    limits: Limits = LIMITS


CASES = (
    Case("no-answer", K.PROVIDER_MUTE, "no-answer: ", fault=Fault(F.HANG)),
    Case("headers-only", K.PROVIDER_MUTE, "answer-stopped: ", fault=Fault(F.HEADERS_ONLY)),
    Case("stall", K.PROVIDER_MUTE, "answer-stopped: ", fault=Fault(F.STALL)),
    Case("drip", K.PROVIDER_MUTE, "dripping: ", fault=Fault(F.DRIP, every_s=1)),
    Case("connecting", K.NETWORK, "connecting: ", url="unreachable"),
    Case("tls", K.NETWORK, "tls-handshake: ", url="mute"),
    Case("sleeping", K.TOOL_STUCK, "tool-sleeps: ", ('{"sh": "sleep 80"}',)),
    Case("locked", K.TOOL_STUCK, "tool-waits-for-a-lock: ", ('{"sh": "flock .l sleep 80 & sleep 1; flock .l true"}',)),
    Case("reading", K.TOOL_STUCK, "tool-waits-for-input: ", ('{"sh": "mkfifo .in; cat 0<> .in"}',)),
    Case("frozen", K.WENT_QUIET, "frozen: ", ('{"kill": "STOP"}',)),
    Case("pausing", K.WENT_QUIET, "idle: ", ('{"sleep": 80}',)),
    Case("revoked", K.AUTH_REJECTED, "asked again directly: HTTP 401", ('{"sleep": 80}',), fault=Fault(F.KEY_REFUSED)),
    Case("empty", K.BILLING, "1113", ('{"sleep": 80}',), fault=Fault(F.NO_BALANCE)),
    Case(
        "circling",
        K.LOOPING,
        "the same call of Bash with the same result",
        ('{"sh": "sleep 1; echo again"}',) * 40,
        limits=LIMITS.model_copy(update={"total_s": 12}),
    ),
    Case(
        "stuck-to-the-end",
        K.TOOL_STUCK,
        "tool-waits-for-a-lock: ",
        ('{"sh": "flock .l sleep 80 & sleep 1; flock .l true"}',),
        limits=LIMITS.model_copy(update={"total_s": 14, "quiet_s": None}),
    ),
    Case(
        "testing", None, "", ('{"sh": "timeout 25 sh -c \\"while :; do :; done\\" || true"}', f'{{"sh": "{COMMIT}"}}')
    ),
    Case("polling", None, "", ('{"sh": "for i in $(seq 16); do sleep 1; done"}', f'{{"sh": "{COMMIT}"}}')),
    Case("lingering", None, "", (f'{{"sh": "{COMMIT}"}}', DONE, '{"sleep": 80}')),
    Case("slow", None, "", fault=Fault(F.SLOW, wait_s=4)),
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunReport, str]]:
    """Every case carried out beside the others: its report, and what its ledger says."""
    directory = tmp_path_factory.mktemp("silent")
    sites = [Site(case.name, KEY, fault=case.fault) for case in CASES]
    with ExitStack() as up:
        patch = up.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("overnight.silence.LINGER_S", 4.0)
        patch.setattr("overnight.guard.LOOK_S", _PATIENCE_S)
        provider = up.enter_context(EmulatedProvider(sites, TAPES))
        ways = {"unreachable": up.enter_context(unreachable()), "mute": up.enter_context(mute())}
        ways["mute"] = ways["mute"].replace("http:", "https:")
        _, spec = up.enter_context(loopback(directory))
        urls = {case.name: ways.get(case.url) or provider.url(case.name) for case in CASES}
        evening = Evening(directory, str(make_repo(directory / "repo").path), spec, _lock(directory, urls))
        tasks = [_task(evening, case) for case in CASES]
        night = up.enter_context(evening.night(*tasks, batch_id="silent"))
        with ThreadPoolExecutor(len(CASES)) as pool:
            runs = list(pool.map(lambda pair: _carry_out(night, *pair), zip(CASES, tasks, strict=True)))
        logs = [(night.ledger.run_dir(run.run_id) / "events.jsonl").read_text() for run in runs]
    return {case.name: found for case, *found in zip(CASES, runs, logs, strict=True)}  # type: ignore[misc]  # a pair


def _lock(directory: Path, urls: Mapping[str, str]) -> Path:
    path = make_lock(directory / "lock.json", "http://127.0.0.1:9", probe_s=5)
    lock = json.loads(path.read_text())
    pattern = lock["providers"].pop("rehearsal")
    for name, url in urls.items():
        lock["providers"][name] = copy.deepcopy(pattern)
        for endpoint in lock["providers"][name]["endpoints"].values():
            endpoint["url"] = url
    path.write_text(json.dumps(lock))
    return path


def _task(evening: Evening, case: Case) -> TaskSpec:
    instruction = "Add a greeting" if case.steps == ('{"ask": true}',) else script(*case.steps)
    task = evening.task(case.name, instruction)
    patient = case.limits.model_copy(update={"quiet_s": None})  # its own waits are longer than a test can wait
    return task.model_copy(update={"route": task.route.model_copy(update={"provider": case.name}), "limits": patient})


def _carry_out(night: Night, case: Case, task: TaskSpec) -> RunReport:
    plan, stages = night.planner.resolve(task, 1, None), Stages(0.0)
    plan, stages.handle = night.dispatch(plan)
    stages.watched = night.monitor(replace(plan, limits=case.limits))
    stages.collected = night.collect(plan, stages.handle)
    return night.report(plan, stages, None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_silent_run_is_called_what_it_is(case: Case, reports: dict[str, tuple[RunReport, str]]) -> None:
    run, _ = reports[case.name]
    if case.kind is None:
        assert run.failure is None, run.failure
        assert run.state == "succeeded"
        return
    assert run.failure is not None
    words = [str(seen) for seen in run.failure.evidence]
    assert run.failure.kind is case.kind, words
    assert case.says in "\n".join(words)


def test_a_start_that_waits_for_a_child_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.guard.LOOK_S", _PATIENCE_S)
    launcher = tmp_path / "bin" / "python3"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\ncase "$*" in *print*) exec {PYTHON}/python3 "$@";; esac\nsleep 80\n')
    launcher.chmod(0o755)
    with EmulatedProvider([Site("rehearsal", KEY)]) as provider, loopback(tmp_path, path=[str(launcher.parent)]) as up:
        repo, lock = (
            str(make_repo(tmp_path / "repo").path),
            make_lock(tmp_path / "lock.json", provider.url("rehearsal")),
        )
        evening = Evening(tmp_path, repo, up[1], lock)
        case = Case("start", K.SILENT_START, "")
        task = _task(replace(evening, limits=LIMITS), replace(case, name="rehearsal"))
        with evening.night(task, batch_id="start") as night:
            run = _carry_out(night, case, task)
    assert run.failure is not None
    words = "\n".join(str(seen) for seen in run.failure.evidence)
    assert run.failure.kind is K.SILENT_START, words
    assert "start-child: it waits for a process it started before its first event; sleep 80" in words


def test_a_command_at_work_is_spared(reports: dict[str, tuple[RunReport, str]]) -> None:
    audit = reports["testing"][0].monitor
    assert audit is not None
    assert audit.rule is None
    assert audit.spared >= 1


def test_a_process_that_would_not_go_is_ended_and_its_work_counts(reports: dict[str, tuple[RunReport, str]]) -> None:
    run, _ = reports["lingering"]
    assert run.monitor is not None
    assert (run.monitor.rule, run.state, len(run.commits)) == ("linger_s", "succeeded", 1)


def test_what_was_running_is_recorded_before_the_end(reports: dict[str, tuple[RunReport, str]]) -> None:
    run, log = reports["sleeping"]
    assert run.monitor is not None
    assert run.monitor.rule == "quiet_s"
    assert any("sleep 80" in command for command in run.monitor.running)
    assert "sleep 80" in log


def test_a_provider_that_answers_a_fresh_call_is_said_to(reports: dict[str, tuple[RunReport, str]]) -> None:
    failure = reports["pausing"][0].failure
    assert failure is not None
    asked = [seen.seen for seen in failure.evidence if seen.source == "probe"]
    assert len(asked) == 2
    assert "so it is neither the key nor the provider" in asked[0]
    assert asked[1] == "asked again by the agent: it got through"

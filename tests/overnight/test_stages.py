"""A command that was seen waiting is the cause of a run without a commit only if it never came to a good end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from overnight.events import Act, AgentEvent, Exited
from overnight.failures import Evidence, FailureKind
from overnight.guard import Guard
from overnight.harnesses import HARNESSES
from overnight.ladder import Standing
from overnight.runcopy import RunCopy
from overnight.rungs import Rung
from overnight.stages import Stages, Watched, diagnose, run_report
from overnight.stop import Rule, Stop
from overnight.watch import Watch
from tests.overnight.samples import AT, LOCK, collected, plan

K = FailureKind
STARTED, WELL = AgentEvent(Act.TOOL_STARTED), AgentEvent(Act.TOOL_ENDED, ok=True, text="done")
BADLY, DONE = AgentEvent(Act.TOOL_ENDED, ok=False), AgentEvent(Act.RESULT, ok=True, text="Done")
WAITING = Standing(Rung.TOOL_SLEEP, (Evidence(source="host", seen="sleep 600 (pid 9)", at_s=100.0),))


def named(*later: AgentEvent, survivors: int = 0, rule: Rule | None = None) -> FailureKind:
    guard = Guard(Watch(plan(), HARNESSES["scripted"], LOCK.providers["zai"].errors))
    guard.stuck = WAITING
    guard.watch.transcript.add_events(5.0, [AgentEvent(Act.INIT), STARTED])
    guard.watch.transcript.add_events(200.0, [*later, DONE])
    guard.watch.transcript.ending = Exited(0, None, 201.0, survivors=survivors)
    if rule is not None:
        guard.stop = Stop(rule=rule, at_s=201.0, named_at=datetime.now(UTC))
    stages = Stages(0.0, watched=Watched(guard, None, 201.0, AT), collected=collected())
    found = diagnose(plan(), stages)
    assert found is not None
    return found.kind


def test_a_command_that_was_given_up_is_the_cause() -> None:
    assert named(BADLY) is K.TOOL_STUCK
    assert named() is K.TOOL_STUCK
    assert named(WELL, survivors=1) is K.TOOL_STUCK
    assert named(WELL, rule="linger_s") is K.TOOL_STUCK


@pytest.mark.parametrize("later", [(WELL,), (BADLY, STARTED, WELL), (WELL, STARTED, BADLY)])
def test_a_command_that_only_took_long_is_not(later: tuple[AgentEvent, ...]) -> None:
    assert named(*later) is K.NO_COMMIT


def test_what_is_missing_of_its_output_is_in_the_report(tmp_path: Path) -> None:
    copy = RunCopy(tmp_path)
    copy.append("out", b"begun")
    copy.skip("out", 105)
    copy.close()
    [gap] = run_report(plan(), Stages(0.0), "failed", None, str(tmp_path)).gaps
    assert gap.startswith("100 bytes of out, from 5 on, are missing")

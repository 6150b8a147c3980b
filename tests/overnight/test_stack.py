"""A task stacked on what somebody else collected, into another repository, from another host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overnight import stack
from overnight.below import Below
from overnight.failures import FailureKind
from overnight.handover import Finding
from overnight.night import Night
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.ssh import LoopbackHost
from overnight.report import RunReport
from overnight.spec import HostSpec, TaskSpec
from overnight.stack import below_of
from tests.overnight.nights import Evening, carry_out, git, loopback, make_lock, make_repo, script
from tests.sshd import free_port

pytestmark = pytest.mark.full

LOWEST, LOWER, UPPER = (
    script(f'{{"sh": "{command} && git add -A && git commit -qm {name}"}}')
    for name, command in (("Lowest", "echo 0 > a"), ("Lower", "cat a a > b"), ("Upper", "cat b b > c"))
)


def tower(evening: Evening) -> tuple[TaskSpec, TaskSpec, TaskSpec]:
    """Three tasks, each stacked on the one before."""
    lowest, lower, upper = evening.task("lowest", LOWEST), evening.task("lower", LOWER), evening.task("upper", UPPER)
    on = {"stacked": True}
    return (
        lowest,
        lower.model_copy(update={**on, "after": ("lowest",)}),
        upper.model_copy(update={**on, "after": ("lower",)}),
    )


@pytest.fixture(scope="module")
def collected(
    host: tuple[LoopbackHost, HostSpec], provider: EmulatedProvider, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[RunReport]]:
    """The two lower ones, collected by another worker into its own repository."""
    directory = tmp_path_factory.mktemp("another")
    make_repo(directory / "repo")
    theirs = Evening(
        directory, str(directory / "repo"), host[1], make_lock(directory / "lock.json", provider.url("well"))
    )
    lowest, lower, upper = tower(theirs)
    with theirs.night(lowest, lower, batch_id="below") as night:
        runs = {"lowest": [carry_out(night, lowest)]}
        below = below_of(lower, (lowest, lower, upper), runs)
        return runs | {"lower": [carry_out(night, lower.model_copy(update={"below": below}))]}


def upper(evening: Evening, collected: dict[str, list[RunReport]]) -> Below:
    return below_of(tower(evening)[2], tower(evening), collected)


@contextmanager
def a_night(
    evening: Evening, below: Below, batch_id: str, there: HostSpec, **limits: Any
) -> Iterator[tuple[Night, TaskSpec]]:
    """The highest task on its own host, `box`; its repository here has the base, and none of what was collected."""
    caps = evening.limits.model_copy(update=limits)
    asked = tower(evening)[2].model_copy(update={"below": below, "limits": caps})
    with evening.night(asked, batch_id=batch_id) as night:
        night.batch = night.batch.model_copy(update={"hosts": {"box": evening.host, "there": there}})
        yield night, asked


def stacked(evening: Evening, below: Below, batch_id: str, there: HostSpec, **limits: Any) -> RunReport:
    """The same, carried out."""
    with a_night(evening, below, batch_id, there, **limits) as (night, asked):
        return carry_out(night, asked)


def test_the_commits_below_are_brought_from_another_host(
    evening: Evening, collected: dict[str, list[RunReport]], tmp_path: Path
) -> None:
    [lowest], [lower] = collected.values()
    below, there = upper(evening, collected).model_copy(update={"host": "there"}), evening.host
    assert (below.tip, below.bases) == (lower.commits[-1].sha, (lowest.commits[-1].sha, lowest.base_sha))
    with loopback(tmp_path / "other") as (_, evening.host), a_night(evening, below, "other", there) as (night, asked):
        night.dispatch(night.planner.resolve(asked, 1, None))
        assert git(tmp_path / "repo", "rev-parse", "refs/overnight/other.upper.1/base") == below.tip, "kept meanwhile"
        run = carry_out(night, asked)
    assert (run.state, run.base_sha, [each.subject for each in run.commits]) == ("succeeded", below.tip, ["Upper"])
    log = git(tmp_path / "repo", "log", "--format=%s", str(run.branch)).splitlines()
    assert log == ["Upper", "Lower", "Lowest", "base"]
    assert any(f"brought {below.tip[:12]} of below.lower.1 from there" in line for line in evening.told)
    assert not list(Path(str(there.key_file)).parent.glob("home/.overnight/runs/*/for-*")), "nothing is left there"


def refused(run: RunReport, evening: Evening) -> str:
    """What was seen, of a run that no agent was started for."""
    assert run.failure is not None
    assert (run.state, run.failure.kind) == ("failed", FailureKind.WORKSPACE)
    assert f"refs/overnight/{run.base_sha or 'below.lower.1'}/head" in run.failure.remedy
    runs = Path(str(evening.host.key_file)).parent / "home" / ".overnight" / "runs"
    assert not (runs / run.run_id / "started.json").exists()
    return run.failure.evidence[0].seen


def test_what_is_gone_from_its_host_is_named_before_an_agent_starts(
    evening: Evening, collected: dict[str, list[RunReport]]
) -> None:
    below = upper(evening, collected)
    runs = Path(str(evening.host.key_file)).parent / "home" / ".overnight" / "runs"
    (runs / "below.lower.1").rename(runs / "away")
    try:
        seen = refused(stacked(evening, below, "gone", evening.host), evening)
    finally:
        (runs / "away").rename(runs / "below.lower.1")
    assert below.tip in seen
    assert "there is no repository in" in seen
    amended = below.model_copy(update={"tip": "0" * 39 + "1"})
    assert "is not in" in refused(stacked(evening, amended, "amended", evening.host), evening)
    large = stacked(evening, below, "large", evening.host, max_collect_bytes=10)
    assert "the pack was refused" in refused(large, evening)


def test_a_host_below_that_is_away_is_not_waited_for_for_ever(
    evening: Evening, collected: dict[str, list[RunReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_AGAIN_S", ())
    below = upper(evening, collected).model_copy(update={"host": "there"})
    away = evening.host.model_copy(update={"port": free_port()})
    assert "host-unreachable" in refused(stacked(evening, below, "away", away), evening)


def test_what_is_kept_below_is_told_to_all_that_stands_on_it(
    evening: Evening, collected: dict[str, list[RunReport]]
) -> None:
    assert upper(evening, collected).kept == ""
    finding = Finding(guard="size", policy="refuse", seen="too much", count=1)
    refused = [collected["lowest"][0].model_copy(update={"guards": (finding,)})]
    assert upper(evening, {**collected, "lowest": refused}).kept == "commits of lowest, which a guard refused"

"""A host's disk that is nearly full: nothing is begun on it, and what was begun is not lost over it."""

from __future__ import annotations

import pytest

from overnight.failures import FailureKind, HostError
from overnight.night import Night
from overnight.room import check_room
from tests.overnight.nights import COMMIT, Evening, carry_out, script

COMMITS = script(f'{{"sh": "{COMMIT}"}}')
MORE_THAN_ANY_DISK = 10**18


def lacks_room(night: Night) -> None:
    """From now on the host's disk counts as too full."""
    station = night.stations["box"]
    station.spec = station.spec.model_copy(update={"min_free_bytes": MORE_THAN_ANY_DISK})


def test_the_floor_itself_is_room_enough() -> None:
    check_room(100, 100, "box")
    with pytest.raises(HostError) as short:
        check_room(412_000_000, 1_000_000_000, "box")
    failure = short.value.failure
    assert failure.kind is FailureKind.DISK_FULL
    assert failure.evidence[0].seen == "412 MB are free where runs lie, min_free_bytes is 1000 MB"
    assert failure.remedy.startswith("make room on box: overnight gc")


@pytest.mark.full
def test_a_route_on_a_full_disk_is_shut_before_anything_runs(evening: Evening) -> None:
    evening.host = evening.host.model_copy(update={"min_free_bytes": MORE_THAN_ANY_DISK})
    task = evening.task("t", COMMITS)
    with evening.night(task) as night:
        found = night.preflight(task)
        root = night.stations["box"].remote.install().root
        begun = night.stations["box"].remote.execute(["ls", f"{root}/runs"]).out.decode()
    assert found.failure is not None
    assert (found.failure.kind, found.failure.evidence[0].where) == (FailureKind.DISK_FULL, "box")
    assert "b1." not in begun


@pytest.mark.full
def test_it_is_looked_at_before_each_start(evening: Evening) -> None:
    first, second = evening.task("first", COMMITS), evening.task("second", COMMITS)
    with evening.night(first, second, batch_id="filling") as night:
        assert carry_out(night, first).state == "succeeded"
        lacks_room(night)
        run = carry_out(night, second)
        held = night.stations["box"].holds("filling.second.1")
    assert run.failure is not None
    assert (run.state, run.failure.kind) == ("failed", FailureKind.DISK_FULL)
    assert "are free where runs lie" in run.failure.brief
    assert not held


@pytest.mark.full
def test_what_was_begun_is_found_again_however_full_it_is(evening: Evening) -> None:
    task = evening.task("t", COMMITS)
    with evening.night(task, batch_id="full") as night:
        night.dispatch(night.planner.resolve(task, 1, None))
        (night.ledger.run_dir("full.t.1") / "handle.json").unlink()
        lacks_room(night)
        run = carry_out(night, task)
    assert (run.state, len(run.commits)) == ("succeeded", 1)

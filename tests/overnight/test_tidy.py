"""What of ended batches goes from this machine, and what no run needs on a host: nothing while it is referred to."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from overnight import past, sweep, tidy
from overnight.report import RunReport
from overnight.sweep import Place, Spare, Verdict
from overnight.workspace import mirror_name
from tests.overnight.nights import SEARCH_PATH, Evening, carry_out, git, script
from tests.overnight.test_sweep import looked

NOTHING, LONG, DAYS_3 = timedelta(0), timedelta(days=14), timedelta(days=3)
WORKS = script('{"sh": "echo x > x && git add -A && git commit -qm x && echo y > y"}')

pytestmark = pytest.mark.full


@pytest.fixture
def decided(evening: Evening) -> tuple[Evening, RunReport]:
    """One task done, its commit in a branch, one file not committed."""
    task = evening.task("a", WORKS)
    with evening.night(task, batch_id=f"b{evening.directory.name.replace('_', '-')}") as night:
        return evening, carry_out(night, task)


def refs(evening: Evening) -> list[str]:
    return git(Path(evening.repo), "for-each-ref", "--format=%(refname)", "refs/overnight").split()


def judged(evening: Evening, keep: timedelta = NOTHING) -> list[tidy.OldRef]:
    return tidy.judge_refs(sweep.known_runs(evening.state), keep, datetime.now(UTC), SEARCH_PATH)


def test_refs_whose_commits_are_in_a_branch_go_and_uncommitted_work_stays(
    decided: tuple[Evening, RunReport],
) -> None:
    evening, run = decided
    spot = f"refs/overnight/{run.run_id}"
    assert set(refs(evening)) == {f"{spot}/head", f"{spot}/base", f"{spot}/wip"}
    assert judged(evening, LONG) == []
    found = judged(evening)
    assert {each.name: each.verdict.verdict for each in found} == {
        f"{spot}/base": "may go",
        f"{spot}/head": "may go",
        f"{spot}/wip": "kept",
    }
    assert set(refs(evening)) == {f"{spot}/head", f"{spot}/base", f"{spot}/wip"}, "judging changes nothing"
    tidy.drop_refs(found)
    assert refs(evening) == [f"{spot}/wip"]
    assert git(Path(evening.repo), "log", "--format=%s", f"main..{run.branch}") == "x"


def test_a_ref_that_no_branch_leads_to_stays(decided: tuple[Evening, RunReport]) -> None:
    evening, run = decided
    git(Path(evening.repo), "branch", "-qD", str(run.branch))
    head = next(each for each in judged(evening) if each.name.endswith("/head"))
    assert (head.verdict.verdict, head.verdict.why) == ("kept", "no branch leads to its commit")


def test_a_ref_that_moved_meanwhile_stays(decided: tuple[Evening, RunReport]) -> None:
    evening, _ = decided
    found = [each for each in judged(evening) if each.name.endswith("/head")]
    git(Path(evening.repo), "update-ref", found[0].name, "main")
    assert [verdict.verdict for verdict in tidy.drop_refs(found)] == ["failed"]
    assert found[0].name in refs(evening)


def test_a_batch_that_somebody_runs_and_a_repository_that_went_keep_all(decided: tuple[Evening, RunReport]) -> None:
    evening, _ = decided
    (ledger,) = past.ledgers(evening.state)
    with ledger.held():
        assert judged(evening) == []
    Path(evening.repo).rename(evening.directory / "moved")
    assert judged(evening) == []


def test_a_record_goes_last(decided: tuple[Evening, RunReport]) -> None:
    evening, run = decided
    ledgers, now = past.ledgers(evening.state), datetime.now(UTC)

    def why(places: list[Place], keep: timedelta = NOTHING) -> str:
        return tidy.judge_records(ledgers, places, keep, now)[0].verdict.why

    with looked(evening) as place:
        assert why([place], LONG) == "younger than 14 days"
        assert why([place]) == f"{run.run_id} lies on its host"
        with ledgers[0].held():
            assert why([place]) == "another process carries it out"
        sweep.remove(place, [Verdict("box", run.run_id, 1, "may go", "")])
    with looked(evening) as place:
        silent = Place("far", place.station, failure=OSError("mute"))  # type: ignore[arg-type]  # any will do
        assert why([place, silent]) == "far could not be asked"
        [old] = tidy.judge_records(ledgers, [place], NOTHING, now)
        assert (old.verdict.verdict, old.verdict.bytes > 0) == ("may go", True)
        assert [verdict.verdict for verdict in tidy.drop_records([old])] == ["removed"]
    assert past.ledgers(evening.state) == []
    assert judged(evening) == [], "a run without a record is nobody's to judge"


def test_an_undecided_batch_keeps_its_record(decided: tuple[Evening, RunReport]) -> None:
    evening, run = decided
    (ledger,) = past.ledgers(evening.state)
    (ledger.run_dir(run.run_id) / "outcome.json").unlink()
    [old] = tidy.judge_records([ledger], [], NOTHING, datetime.now(UTC))
    assert old.verdict.why == f"not decided yet: overnight collect {ledger.batch_id}"


def test_mirrors_and_supervisors_that_no_run_needs_go_from_the_host(decided: tuple[Evening, RunReport]) -> None:
    evening, _ = decided
    with looked(evening) as place:
        root = Path(place.root)
        old = root / "lib" / "supervisor-0123456789abcdef.py"
        old.write_text("# of another version")
        mirror = root / "mirrors" / f"{mirror_name(evening.repo)}.git"
        git(mirror.parent, "init", "-q", "--bare", "unused.git")
        for path in (old, *(root / "mirrors" / "unused.git").rglob("*"), root / "mirrors" / "unused.git"):
            os.utime(path, (time.time() - 200_000,) * 2)
    with looked(evening) as place:
        names = {"lib/supervisor-0123456789abcdef.py", "mirrors/unused.git"}
        found = {spare.name for spare in place.spare}  # the host is other tests', too
        assert names <= found
        assert f"mirrors/{mirror.name}" not in found
        known = sweep.known_runs(evening.state)

        def verdicts(keep: timedelta) -> dict[str, Verdict]:
            made = sweep.judge(place, known, keep, datetime.now(UTC), SEARCH_PATH)
            return {each.run_id: each for each in made if each.run_id in names}

        assert {each.verdict for each in verdicts(DAYS_3).values()} == {"kept"}
        assert {each.verdict for each in sweep.remove(place, list(verdicts(NOTHING).values()))} == {"removed"}
        assert not old.exists()
        left = {path.name for path in (root / "mirrors").iterdir()}
        assert (mirror.name in left, "unused.git" in left) == (True, False)
        [refused] = place.station.remote.inventory(spare=[f"mirrors/{mirror.name}"])["removed"]
        assert refused["problem"] == "a run needs it by now"


def test_what_was_used_a_moment_ago_stays_whatever_is_asked() -> None:
    place = Place("box", station=None, spare=(Spare("mirrors/a.git", 7, 3600.0),))  # type: ignore[arg-type]  # not asked
    [verdict] = sweep.judge(place, {}, NOTHING, datetime.now(UTC), SEARCH_PATH)
    assert (verdict.verdict, verdict.bytes) == ("kept", 0)

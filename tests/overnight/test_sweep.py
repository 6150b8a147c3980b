"""What may go from a host, and above all what may not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from overnight import past, sweep
from overnight.adopt import adopt
from overnight.collected import Leftovers
from overnight.harnesses import HARNESSES
from overnight.hosts.local import LocalHost
from overnight.ledger import Ledger
from overnight.remote import Remote
from overnight.report import RunReport
from overnight.spec import HostSpec
from overnight.sweep import Found, Place, Verdict
from overnight.workspace import home_of
from tests.overnight.following import shell
from tests.overnight.nights import SEARCH_PATH, Evening, carry_out, git, script
from tests.sshd import wait_until

NOTHING, LONG = timedelta(0), timedelta(days=14)
NONE = "a" * 40
COMMITS = script('{"sh": "echo x > x && git add -A && git commit -qm x"}')


@contextmanager
def looked(evening: Evening) -> Iterator[Place]:
    (place,) = sweep.look(sweep.hosts(past.ledgers(evening.state)))
    try:
        yield place
    finally:
        place.station.close()


def judged(evening: Evening, place: Place, keep: timedelta = NOTHING) -> dict[str, Verdict]:
    known = sweep.known_runs(evening.state)
    return {v.run_id: v for v in sweep.judge(place, known, keep, datetime.now(UTC), SEARCH_PATH)}


@pytest.fixture
def decided(evening: Evening) -> tuple[Evening, RunReport]:
    """One task done, its check passed, its commit at home."""
    task = evening.task("a", COMMITS, verify="test -e x")
    with evening.night(task, batch_id=f"b{evening.directory.name.replace('_', '-')}") as night:
        night.preflight(task)
        return evening, carry_out(night, task)


class TestRemoving:
    def test_what_is_at_home_goes_with_its_check_its_probe_and_its_pin(
        self, decided: tuple[Evening, RunReport]
    ) -> None:
        evening, run = decided
        assert run.state == "succeeded"
        with looked(evening) as place:
            mine = {each.run_id for each in place.found if each.run_id.startswith(run.run_id.removesuffix(".a.1"))}
            assert len(mine) == 3
            assert {v.verdict for v in judged(evening, place, LONG).values() if v.run_id in mine} == {"kept"}
            verdicts = judged(evening, place)
            assert {verdicts[name].verdict for name in mine} == {"may go"}
            assert verdicts[run.run_id].bytes > 100_000
            done = sweep.remove(place, [verdicts[name] for name in sorted(mine)])
            assert {v.verdict for v in done} == {"removed"}
        with looked(evening) as place:
            assert not mine & {each.run_id for each in place.found}
            assert run.run_id not in place.station.remote.inventory()["pins"]
        assert git(Path(evening.repo), "log", "--format=%s", f"main..{run.branch}") == "x"

    @pytest.mark.parametrize("state", ["starting", "running", "orphaned"])
    def test_what_lives_stays(self, decided: tuple[Evening, RunReport], state: str) -> None:
        evening, run = decided
        with looked(evening) as place:
            living = tuple(replace(each, state=state) for each in place.found)  # type: ignore[arg-type]  # one of them
            verdict = judged(evening, replace(place, found=living))[run.run_id]
        assert (verdict.verdict, verdict.why) == ("kept", f"it is {state}")

    def test_commits_that_are_no_longer_at_home_keep_it(self, decided: tuple[Evening, RunReport]) -> None:
        evening, run = decided
        with looked(evening) as place:
            shutil.rmtree(Path(evening.repo) / ".git" / "objects")
            assert "cannot be seen in" in judged(evening, place)[run.run_id].why
            shutil.rmtree(evening.repo)
            verdict = judged(evening, place)[run.run_id]
            assert (verdict.verdict, verdict.bytes) == ("kept", 0)

    def test_commits_that_no_ref_leads_to_any_more_keep_it(self, decided: tuple[Evening, RunReport]) -> None:
        evening, run = decided
        repo = Path(evening.repo)
        git(repo, "branch", "-qD", str(run.branch))
        with looked(evening) as place:
            assert judged(evening, place)[run.run_id].verdict == "may go", "our own ref still leads to it"
            git(repo, "update-ref", "-d", f"refs/overnight/{run.run_id}/head")
            verdict = judged(evening, place)[run.run_id]
        assert (verdict.verdict, verdict.why) == ("kept", f"1 commit of it went from {repo}")

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"repo": None}, "its commits did not come home"),
            ({"leftovers": Leftovers(ref="box:/x", sha="a" * 40, count=1, files=("f",))}, "not committed"),
            (
                {"leftovers": Leftovers(ref="refs/o/wip", sha="a" * 40, count=1, files=("f",), missed=("g",))},
                "not comm",
            ),
            ({"other_refs": {"refs/overnight/x": NONE}}, "1 commit of it went from"),
        ],
    )
    def test_what_is_on_the_host_alone_stays(
        self, decided: tuple[Evening, RunReport], change: Mapping[str, object], why: str
    ) -> None:
        evening, run = decided
        ledger = past.batch(evening.state, run.run_id.removesuffix(".a.1"))[0]
        ledger.save(run.run_id, "outcome", run.model_copy(update=change))
        with looked(evening) as place:
            verdict = judged(evening, place)[run.run_id]
        assert verdict.verdict == "kept"
        assert why in verdict.why

    def test_what_is_undecided_unknown_or_just_being_run_stays(self, decided: tuple[Evening, RunReport]) -> None:
        evening, run = decided
        (ledger,) = past.batch(evening.state, run.run_id.removesuffix(".a.1"))
        with looked(evening) as place:
            with ledger.held():
                assert judged(evening, place)[run.run_id].why == "its batch is being run by another process"
            (ledger.run_dir(run.run_id) / "outcome.json").unlink()
            assert judged(evening, place)[run.run_id].why == f"not decided yet: overnight collect {ledger.batch_id}"
            shutil.rmtree(ledger.directory)
            verdicts = judged(evening, place)
        assert verdicts[run.run_id].why == "no batch of this state directory knows it"
        assert verdicts[f"{run.run_id}.verify"].verdict == "kept"


def test_an_unknown_run_is_brought_home_once_its_repository_is_known(decided: tuple[Evening, RunReport]) -> None:
    evening, run = decided
    other = evening.task("other", COMMITS)
    (ledger,) = past.batch(evening.state, run.run_id.removesuffix(".a.1"))
    with evening.night(other, batch_id="present"):
        shutil.rmtree(ledger.directory)
    git(Path(evening.repo), "branch", "-D", str(run.branch))
    like = sweep.repositories(past.ledgers(evening.state), HARNESSES)
    with looked(evening) as place:
        found = next(e for e in sweep.unknown(place, sweep.known_runs(evening.state)) if e.run_id == run.run_id)
        assert found.mirror is not None
        for _ in range(2):
            got = adopt(place, found, home_of(like[found.mirror], evening.state, SEARCH_PATH)[0])
            assert list(got.others) == [f"refs/overnight/adopted/{run.run_id}/head"]
            assert [commit.subject for commit in got.commits] == ["x"]
    assert git(Path(evening.repo), "branch", "--list", "overnight/*") == ""


class TestHosts:
    def test_one_machine_of_two_batches_is_one(self, evening: Evening) -> None:
        with (
            evening.night(evening.task("a", "x"), batch_id="one"),
            evening.night(evening.task("a", "x"), batch_id="two"),
        ):
            pass
        assert len(sweep.hosts(past.ledgers(evening.state))) == 1

    def test_two_machines_of_one_name_are_two(self, evening: Evening) -> None:
        with evening.night(evening.task("a", "x"), batch_id="one"):
            pass
        evening.host = evening.host.model_copy(update={"port": 1})
        with evening.night(evening.task("a", "x"), batch_id="two"):
            pass
        assert len(sweep.hosts(past.ledgers(evening.state))) == 2

    def test_a_host_that_is_not_heard_is_a_place_with_a_failure(self, tmp_path: Path) -> None:
        (place,) = sweep.look({"box": HostSpec(kind="local", python="python-none", directory=str(tmp_path))})
        assert place.failure is not None
        assert sweep.judge(place, {}, NOTHING, datetime.now(UTC), SEARCH_PATH) == []
        place.station.close()


class TestInventory:
    """The program on the host, on this machine."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / ".overnight"

    def states(self, remote: Remote) -> dict[str, str]:
        return {each["run_id"]: each["state"] for each in remote.inventory()["runs"]}

    def test_a_living_run_is_never_removed(self, remote: Remote, root: Path) -> None:
        remote.start(shell("r", "sleep 600"))
        wait_until(lambda: self.states(remote) == {"r": "running"})
        (answer,) = remote.inventory(["r"])["removed"]
        assert (answer["problem"], answer["bytes"]) == ("it is running", 0)
        assert (root / "runs" / "r" / "claim").exists()

    def test_folders_that_may_not_be_written_go_too(self, remote: Remote, root: Path) -> None:
        remote.start(shell("r", "mkdir -p ../tmp/mod/pkg; echo x > ../tmp/mod/pkg/f; chmod -R a-w ../tmp/mod"))
        wait_until(lambda: self.states(remote) == {"r": "finished"})
        (answer,) = remote.inventory(["r"])["removed"]
        assert answer["problem"] == ""
        assert answer["bytes"] > 0
        assert list((root / "runs").iterdir()) == []

    def test_what_a_cut_off_removal_left_goes_with_the_next(self, remote: Remote, root: Path) -> None:
        remote.install()
        (root / "runs" / ".gone-r" / "work").mkdir(parents=True)
        assert self.states(remote) == {}
        assert remote.inventory(["none"])["removed"] == [{"run_id": "none", "bytes": 0, "problem": ""}]
        assert list((root / "runs").iterdir()) == []

    def test_login_files_may_print_what_they_like(self, tmp_path: Path) -> None:
        noisy = tmp_path / "noisy"
        noisy.write_text(f'#!/bin/sh\necho Welcome!\nexec {sys.executable} "$@"\n')
        noisy.chmod(0o755)
        remote = Remote(LocalHost(home=tmp_path), python=str(noisy))
        assert remote.inventory() == {"runs": [], "pins": {}, "spare": []}
        remote.close()


def test_what_the_host_did_not_tell_is_absent() -> None:
    place = Place("box", station=None, found=())  # type: ignore[arg-type]  # nothing is asked of it
    assert sweep.there(place, "r").state == "absent"
    assert not Found("r", "lost", "", 0, None, None).lives


def test_records_of_the_doctor_are_known(tmp_path: Path, evening: Evening) -> None:
    with evening.night(evening.task("a", "x")) as night:
        night.ledger.save("b1.probe-nonce1.1", "plan", night.planner.resolve(night.batch.tasks[0], 1, None).shown())
    (evening.state / past.DOCTOR).mkdir()
    (evening.state / "batches").rename(evening.state / past.DOCTOR / "batches")
    assert list(sweep.known_runs(evening.state)) == ["b1.probe-nonce1.1"]
    assert Ledger(evening.state / past.DOCTOR, "b1").directory.exists()

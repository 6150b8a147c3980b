"""A task's commits on their way to a remote: what is due, what is said, and that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overnight.below import Below
from overnight.collected import Commit
from overnight.delivery import hand_over, is_due, merges_into, public
from overnight.failures import BadInput
from overnight.forge import Forge
from overnight.handover import Deliver, Finding, Handed
from overnight.morning import markdown, summary
from overnight.night import Night
from overnight.page import html
from overnight.report import EXIT_FAILED, RunReport, Verify
from overnight.spec import HostSpec
from tests.overnight.forges import TOKEN, FakeForge, forge
from tests.overnight.nights import Evening, commit, git, make_lock, make_repo
from tests.overnight.samples import AT, full_run, report, task

ENV = {"HOME": "/nonexistent"}
HELD = Finding(guard="secrets", policy="hold", seen="1 added line looks like a secret", count=1, places=("a.py:1",))


@contextmanager
def a_night(tmp_path: Path, **wish: Any) -> Iterator[tuple[Night, RunReport, Path]]:
    """A night that is over but for its delivery, its run, and the bare repository that `origin` is."""
    repo = make_repo(tmp_path / "repo").path
    remote = tmp_path / "remotes" / "acme" / "app.git"
    remote.mkdir(parents=True)
    git(remote, "init", "-q", "--bare", "-b", "main")
    git(remote, "config", "http.receivepack", "true")
    git(repo, "remote", "add", "origin", str(remote))
    git(repo, "push", "-q", "origin", "main")
    base = git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-q", "--detach")
    tip = commit(repo, "new.py")
    git(repo, "checkout", "-q", "main")
    git(repo, "update-ref", "refs/overnight/b1.t.1/head", tip)
    lock = make_lock(tmp_path / "lock.json", "http://127.0.0.1:1")
    evening = Evening(tmp_path, str(repo), HostSpec(kind="local"), lock)
    asked = evening.task("t", "Add it").model_copy(update={"deliver": Deliver(**wish)})
    with evening.night(asked) as night:
        done = full_run().model_copy(
            update={
                "task_id": "t",
                "run_id": "b1.t.1",
                "state": "succeeded",
                "failure": None,
                "repo": str(repo),
                "base_sha": base,
                "commits": (Commit(sha=tip, subject="Add new `` @everyone", author_date=AT),),
                "guards": (),
                "handed": None,
                "verify": Verify(command="make test", exit_code=0, seconds=1.0, tail="/home/me/secret"),
            }
        )
        yield night, done, remote


def test_a_push_brings_it_there_and_the_outcome_says_so(tmp_path: Path) -> None:
    with a_night(tmp_path, how="push") as (night, run, remote):
        assert is_due(night, run)
        done = hand_over(night, run, None, ENV)
        assert git(remote, "rev-parse", "overnight/b1/t") == run.commits[-1].sha
        assert night.ledger.outcome("b1.t.1") == done
        assert not is_due(night, done)
        assert hand_over(night, done, None, ENV) == done
    for page in (markdown(report(done)), summary(report(done), tmp_path, None), html(report(done), tmp_path)):
        assert "pushed: overnight/b1/t at origin" in page


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, True),
        ({"state": "failed"}, False),
        ({"commits": ()}, False),
        ({"guards": (HELD,), "approved": False}, False),
        ({"guards": (HELD,), "approved": True}, True),
        ({"guards": (HELD.model_copy(update={"policy": "refuse"}),)}, False),
        ({"guards": (HELD.model_copy(update={"policy": "note"}),)}, True),
    ],
)
def test_what_is_due(tmp_path: Path, changes: dict[str, Any], due: bool) -> None:
    with a_night(tmp_path, how="push") as (night, run, _):
        assert is_due(night, run.model_copy(update={"approved": None, **changes})) is due


def test_a_branch_here_is_no_push(tmp_path: Path) -> None:
    with a_night(tmp_path) as (night, run, _):
        assert not is_due(night, run)


def test_a_push_that_fails_loses_nothing_is_named_and_tried_again(tmp_path: Path) -> None:
    with a_night(tmp_path, how="push") as (night, run, remote):
        remote.rename(tmp_path / "away")
        failed = hand_over(night, run, None, ENV)
        assert failed.handed is not None
        assert failed.handed.state == "failed"
        assert (failed.handed.mend or "").endswith("; then: overnight deliver b1 t")
        assert git(Path(run.repo or ""), "rev-parse", "refs/overnight/b1.t.1/head") == run.commits[-1].sha
        assert report(failed).exit_code == EXIT_FAILED
        for page in (markdown(report(failed)), summary(report(failed), tmp_path, None)):
            assert "push failed: overnight/b1/t at origin: " in page
            assert "mend: " in page
        (tmp_path / "away").rename(remote)
        assert is_due(night, failed)
        again = hand_over(night, failed, None, ENV)
    assert again.handed is not None
    assert again.handed.state == "delivered"


def test_somebodys_branch_is_left_alone_and_not_tried_again(tmp_path: Path) -> None:
    with a_night(tmp_path, how="push") as (night, run, remote):
        git(tmp_path, "clone", "-q", str(remote), "theirs")
        theirs = commit(tmp_path / "theirs", "mine.txt")
        git(tmp_path / "theirs", "push", "-q", "origin", "HEAD:overnight/b1/t")
        left = hand_over(night, run, None, ENV)
        assert left.handed is not None
        assert left.handed.state == "left alone"
        assert not is_due(night, left)
        assert git(remote, "rev-parse", "overnight/b1/t") == theirs


@pytest.mark.parametrize(("policy", "approved", "sent"), [("refuse", None, 0), ("hold", False, 0), ("hold", True, 1)])
def test_what_is_kept_does_not_leave_below_another_task(
    tmp_path: Path, policy: str, approved: bool | None, sent: int
) -> None:
    with a_night(tmp_path, how="push") as (night, run, remote):
        kept = {"guards": (HELD.model_copy(update={"policy": policy}),), "approved": approved}
        night.decide(run.model_copy(update=kept))
        repo = Path(run.repo or "")
        git(repo, "checkout", "-q", "--detach", run.commits[-1].sha)
        tip = commit(repo, "later.py")
        above = run.model_copy(
            update={
                "run_id": "b1.t.2",
                "attempt": 2,
                "base_sha": run.commits[-1].sha,
                "commits": (Commit(sha=tip, subject="Later", author_date=AT),),
            }
        )
        done = hand_over(night, above, None, ENV)
        assert len(git(remote, "for-each-ref", "refs/heads/overnight").splitlines()) == sent
    assert done.handed is not None
    assert ("it stands on commits of t" in (done.handed.problem or "")) == (not sent)


def test_nor_what_another_worker_collected(tmp_path: Path) -> None:
    with a_night(tmp_path, how="push") as (night, run, remote):
        below = Below(run_id="b1.u.1", tip="a" * 40, host="box", kept="commits of u, which a guard refused")
        tasks = (night.batch.tasks[0].model_copy(update={"below": below}),)
        night.batch = night.batch.model_copy(update={"tasks": tasks})
        done = hand_over(night, run, None, ENV)
        assert git(remote, "for-each-ref", "refs/heads/overnight") == ""
    assert done.handed is not None
    assert done.handed.problem == "it stands on commits of u, which a guard refused"


@pytest.fixture(params=["github", "gitlab"])
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeForge]:
    with forge(request.param, tmp_path / "remotes") as fake:
        yield fake


def test_a_pull_request_over_http_with_one_token(tmp_path: Path, fake: FakeForge) -> None:
    with a_night(tmp_path, how="pull_request", forge="work", remote=f"{fake.url}/acme/app.git") as (night, run, remote):
        work = Forge("work", fake.kind, fake.api_url, TOKEN)  # type: ignore[arg-type]  # one of the two
        done = hand_over(night, run, work, ENV)
        assert done.handed is not None
        assert done.handed.problem is None
        assert done.handed.url == f"{fake.url}/acme/app/pull/1"
        assert git(remote, "rev-parse", "overnight/b1/t") == run.commits[-1].sha
        assert hand_over(night, done, work, ENV).handed == done.handed
        assert len(fake.pulls) == 1
        kept = [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
        assert kept == []
        assert TOKEN not in "".join(str(line) for line in done)
    assert f"pull request: {done.handed.url}" in markdown(report(done))


def test_a_pull_request_that_fails_after_its_push_says_both(tmp_path: Path, fake: FakeForge) -> None:
    with a_night(tmp_path, how="pull_request", forge="work", project="acme/app") as (night, run, remote):
        work = Forge("work", fake.kind, fake.api_url, "wrong-token-123456")  # type: ignore[arg-type]  # one of the two
        done = hand_over(night, run, work, ENV)
        assert git(remote, "rev-parse", "overnight/b1/t") == run.commits[-1].sha
    assert done.handed is not None
    assert done.handed.state == "failed"
    assert "401" in (done.handed.problem or "")
    assert "forge-credentials/work" in (done.handed.mend or "")


def test_a_block_that_is_missing_is_named(tmp_path: Path) -> None:
    with a_night(tmp_path, how="pull_request", forge="work") as (night, run, _):
        missing = BadInput("t.yaml", "deliver.forge", "no block forge-credentials/work is saved", "Save it")
        done = hand_over(night, run, missing, ENV)
    assert done.handed is not None
    assert "no block forge-credentials/work" in (done.handed.problem or "")


def test_what_the_world_reads_holds_nothing_of_this_machine() -> None:
    run = full_run().model_copy(update={"verify": Verify(command="make", exit_code=0, seconds=1, tail="/home/me")})
    said = public(run)
    assert "make" in said
    for private in ("/srv/app", "/state", "box", "/home/me"):
        assert private not in said
    lines = public(
        full_run().model_copy(update={"commits": (Commit(sha="c" * 40, subject="@all #1", author_date=AT),)})
    )
    fenced = lines.split("```")[1]
    assert "@all #1" in fenced


@pytest.mark.parametrize(
    ("base", "wish", "into"),
    [
        ("main", {}, "main"),
        ("refs/heads/main", {}, "main"),
        ("origin/main", {}, "main"),
        ("HEAD", {}, None),
        ("a" * 40, {}, None),
        ("main", {"base": "develop"}, "develop"),
    ],
)
def test_the_branch_it_is_for(base: str, wish: dict[str, str], into: str | None) -> None:
    assert merges_into(task(base=base, deliver=Deliver(how="push", **wish))) == into


def test_a_failed_one_is_tried_again_by_its_record() -> None:
    found = Handed(how="push", state="failed", remote="o", branch="b", sha="c" * 40)
    assert report(full_run().model_copy(update={"handed": found, "state": "succeeded"})).exit_code == EXIT_FAILED

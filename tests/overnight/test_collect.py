"""The commits' way home, through the local host; nothing of git is emulated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.collected import Collected
from overnight.failures import CollectError, FailureKind
from tests.overnight.desks import BRANCH, RUN, Desk, plan_of, trap
from tests.overnight.nights import commit, git, make_repo, untouched


def test_commits_come_home_as_they_were_made(desk: Desk) -> None:
    work, handle = desk.prepare()
    made = [commit(work, "one.txt", "1\n"), commit(work, "zwei, 二.txt", "2\n")]
    before = untouched(desk.repo.path)
    found = desk.collect(handle)
    assert [c.sha for c in found.commits] == made
    assert (found.tip, found.branch, found.others, found.leftovers) == (made[1], BRANCH, {}, None)
    assert found.diffstat == "2 files changed, 2 insertions(+)"
    assert desk.refs() == {
        "refs/heads/main": handle.base_sha,
        f"refs/heads/{BRANCH}": made[1],
        f"{RUN}/base": handle.base_sha,
        f"{RUN}/head": made[1],
    }
    assert untouched(desk.repo.path) == before
    assert git(desk.repo.path, "cat-file", "blob", f"{BRANCH}:zwei, 二.txt") == "2"


@pytest.mark.full
def test_collecting_again_gives_the_same(desk: Desk) -> None:
    work, handle = desk.prepare()
    commit(work, "one.txt")
    (work / "left.txt").write_text("left\n")
    first, refs = desk.collect(handle), desk.refs()
    second = desk.collect(handle)
    assert second.leftovers is not None
    assert first.leftovers is not None
    same = second.model_copy(update={"leftovers": first.leftovers})  # our commit of them has a date
    assert same == first
    assert second.leftovers.files == first.leftovers.files
    assert desk.refs().keys() == refs.keys()


@pytest.mark.full
def test_no_commit_is_no_branch(desk: Desk) -> None:
    _, handle = desk.prepare()
    found = desk.collect(handle)
    assert found == Collected(repo=str(desk.repo.path), base_sha=handle.base_sha)
    assert desk.refs() == {"refs/heads/main": handle.base_sha, f"{RUN}/base": handle.base_sha}


@pytest.mark.full
def test_the_branch_the_agent_switched_to_is_the_work(desk: Desk) -> None:
    work, handle = desk.prepare()
    git(work, "checkout", "-q", "-b", "feature/x")
    made = commit(work, "one.txt")
    found = desk.collect(handle)
    assert (found.tip, found.branch, found.others) == (made, BRANCH, {})


@pytest.mark.full
def test_a_detached_head_is_the_work(desk: Desk) -> None:
    work, handle = desk.prepare()
    git(work, "checkout", "-q", "--detach")
    made = commit(work, "one.txt")
    assert [c.sha for c in desk.collect(handle).commits] == [made]


@pytest.mark.full
def test_work_beside_the_branch_comes_home_too(desk: Desk) -> None:
    work, handle = desk.prepare()
    git(work, "checkout", "-q", "-b", "aside")
    aside = commit(work, "aside.txt")
    git(work, "checkout", "-q", BRANCH)
    made = commit(work, "made.txt")
    (work / "README").write_text("stashed\n")
    git(work, "stash", "-q")
    stash = git(work, "rev-parse", "refs/stash")
    git(work, "pack-refs", "--all")
    git(work, "checkout", "-q", "--detach", handle.base_sha)
    detached = commit(work, "detached.txt")
    found = desk.collect(handle)
    assert found.tip == made
    assert found.others == {
        f"{RUN}/other/heads/aside": aside,
        f"{RUN}/other/stash": stash,
        f"{RUN}/other/HEAD": detached,
    }
    assert found.others.items() <= desk.refs().items()


@pytest.mark.full
def test_only_work_beside_the_branch_counts_as_no_commit(desk: Desk) -> None:
    work, handle = desk.prepare()
    git(work, "checkout", "-q", "-b", "aside")
    aside = commit(work, "aside.txt")
    git(work, "checkout", "-q", BRANCH)
    found = desk.collect(handle)
    assert (found.tip, found.commits, found.others) == (None, (), {f"{RUN}/other/heads/aside": aside})


def amend(work: Path) -> str:
    (work / "new.txt").write_text("new\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "--amend", "-m", "rewritten")
    return git(work, "rev-parse", "HEAD")


def orphan(work: Path) -> str:
    git(work, "checkout", "-q", "--orphan", "fresh")
    made = commit(work, "fresh.txt")
    git(work, "branch", "-q", "-f", BRANCH, made)
    git(work, "checkout", "-q", BRANCH)
    git(work, "branch", "-q", "-D", "fresh")
    return made


@pytest.mark.full
@pytest.mark.parametrize("rewrite", [amend, orphan])
def test_a_history_that_left_the_base_comes_home_beside_it(desk: Desk, rewrite: Callable[[Path], str]) -> None:
    work, handle = desk.prepare()
    made = rewrite(work)
    found = desk.collect(handle)
    assert (found.tip, found.branch, found.commits) == (None, None, ())
    assert found.others == {f"{RUN}/other/heads/{BRANCH}": made}
    assert desk.refs()[f"{RUN}/other/heads/{BRANCH}"] == made
    assert f"refs/heads/{BRANCH}" not in desk.refs()


@pytest.mark.full
def test_a_branch_reset_below_the_base_is_no_commit(desk: Desk) -> None:
    older = desk.repo.resolve("main")
    commit(desk.repo.path, "more.txt")
    work, handle = desk.prepare()
    git(work, "reset", "-q", "--hard", older)
    found = desk.collect(handle)
    assert (found.tip, found.others) == (None, {f"{RUN}/other/heads/{BRANCH}": older})


@pytest.mark.full
def test_merges_come_whole(desk: Desk) -> None:
    work, handle = desk.prepare()
    git(work, "checkout", "-q", "-b", "side")
    side = commit(work, "side.txt")
    git(work, "checkout", "-q", BRANCH)
    main = commit(work, "main.txt")
    git(work, "merge", "-q", "--no-ff", "-m", "merge", "side")
    found = desk.collect(handle)
    assert {c.sha for c in found.commits} == {side, main, git(work, "rev-parse", "HEAD")}
    assert found.commits[-1].subject == "merge"
    assert found.others == {f"{RUN}/other/heads/side": side}


@pytest.mark.full
def test_an_unborn_branch_still_gives_its_leftovers(desk: Desk) -> None:
    work, handle = desk.prepare()
    git(work, "checkout", "-q", "--orphan", "fresh")
    (work / "fresh.txt").write_text("x")
    found = desk.collect(handle)
    assert found.tip is None
    assert found.leftovers is not None
    assert found.leftovers.files == ("fresh.txt",)


def test_what_was_not_committed_is_saved(desk: Desk) -> None:
    work, handle = desk.prepare()
    made = commit(work, "made.txt")
    (work / "made.txt").write_text("changed\n")
    (work / "README").unlink()
    (work / "sub folder").mkdir()
    (work / "sub folder" / "ünew.txt").write_text("new\n")
    (work / "staged.txt").write_text("staged\n")
    git(work, "add", "staged.txt")
    (work / "ignored").mkdir()
    (work / "ignored" / "x").write_text("x")
    found = desk.collect(handle)
    left = found.leftovers
    assert found.tip == made
    assert left is not None
    assert left.files == ("README", "made.txt", "staged.txt", "sub folder/ünew.txt")
    assert (left.count, left.ref, left.missed) == (4, f"{RUN}/wip", ())
    assert git(desk.repo.path, "show", f"{left.ref}:made.txt") == "changed"
    assert git(desk.repo.path, "rev-parse", f"{left.ref}^") == made
    assert git(work, "status", "--porcelain").splitlines(), "the workspace itself is left as it is"


@pytest.mark.full
def test_three_hundred_leftovers_are_counted_and_fifty_are_named(desk: Desk) -> None:
    work, handle = desk.prepare()
    for number in range(300):
        (work / f"{number:03}.txt").write_text("x")
    left = desk.collect(handle).leftovers
    assert left is not None
    assert (left.count, len(left.files), left.files[49]) == (300, 50, "049.txt")


@pytest.mark.full
def test_repositories_in_the_work_tree_stay_shut(desk: Desk, tmp_path: Path) -> None:
    work, handle = desk.prepare()
    nested = make_repo(work / "nested").path
    (nested / ".gitattributes").write_text("* filter=evil\n")
    commit(nested, "inner.txt")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "with a repository in it")
    sentinel = trap(nested, tmp_path)
    (nested / "inner.txt").write_text("changed\n")
    git(work, "init", "-q", "unborn")
    (work / "unborn" / "x").write_text("x")
    (work / "plain.txt").write_text("plain\n")
    found = desk.collect(handle)
    assert found.leftovers is not None
    assert found.leftovers.files == ("plain.txt",)
    assert any("unborn/" in words for words in found.leftovers.missed)
    assert not sentinel.exists()


def test_nothing_that_the_agent_planted_runs(desk: Desk, tmp_path: Path) -> None:
    work, handle = desk.prepare()
    (work / ".gitattributes").write_text("* filter=evil diff=evil\n")
    made = commit(work, "made.txt")
    sentinel = trap(work, tmp_path)
    git(work, "config", "extensions.unheardOf", "true")
    (work / "left.txt").write_text("left\n")
    found = desk.collect(handle)
    place = desk.spaces.fresh_clone(f"{handle.work_dir}/.git", made, f"{handle.run_dir}/verify")
    assert found.tip == made
    assert found.leftovers is not None
    assert (Path(place) / "made.txt").read_text() == "text\n"
    assert not sentinel.exists()
    git(work, "config", "--unset", "extensions.unheardOf")
    git(work, "status")
    assert sentinel.exists(), "the trap itself must work"


@pytest.mark.full
def test_a_deleted_repository_is_an_error_that_says_where_the_work_lies(desk: Desk) -> None:
    work, handle = desk.prepare()
    (work / "precious.txt").write_text("x")
    shutil.rmtree(work / ".git")
    with pytest.raises(CollectError) as caught:
        desk.collect(handle)
    failure = caught.value.failure
    assert failure.kind is FailureKind.COLLECT_FAILED
    assert [str(work) in e.seen and e.where for e in failure.evidence][-1] == "box"
    assert "there is no repository" in failure.evidence[0].seen


@pytest.mark.full
def test_lost_objects_are_an_error_and_leave_nothing(desk: Desk) -> None:
    work, handle = desk.prepare()
    commit(work, "made.txt")
    blob = git(work, "rev-parse", "HEAD:made.txt")
    (work / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    (work / "made.txt").unlink()
    before = desk.refs()
    with pytest.raises(CollectError, match="read on the host: fatal: unable to read"):
        desk.collect(handle)
    assert desk.refs() == before


@pytest.mark.full
def test_a_repository_that_cannot_be_written_is_an_error_that_says_where_the_work_lies(desk: Desk) -> None:
    work, handle = desk.prepare()
    commit(work, "one.txt")
    packs = desk.repo.path / ".git" / "objects" / "pack"
    shutil.rmtree(packs)
    packs.write_text("in the way\n")
    with pytest.raises(CollectError) as caught:
        desk.collect(handle)
    assert caught.value.failure.evidence[-1].seen == f"the work lies in {work}"


@pytest.mark.full
def test_too_much_is_refused(desk: Desk) -> None:
    work, handle = desk.prepare()
    (work / "big").write_bytes(bytes(range(256)) * 10)
    made = commit(work, "made.txt")
    (work / "noise").write_bytes(b"".join(str(n).encode() + b"\0" for n in range(200_000)))
    plan = desk.plan(max_bytes=100_000)
    found = desk.collect(handle, plan)
    assert found.tip == made, "too many leftovers must not cost the commits"
    assert found.leftovers is not None
    assert (found.leftovers.ref, found.leftovers.files) == (f"box:{work}", ("noise",))
    assert "maximum allowed size" in found.leftovers.missed[0]
    git(work, "add", "-A")
    git(work, "commit", "-qm", "noise")
    with pytest.raises(CollectError, match="maximum allowed size"):
        desk.collect(handle, plan)


def test_a_branch_of_the_user_that_is_in_the_way_costs_no_commit(desk: Desk) -> None:
    git(desk.repo.path, "branch", "overnight")
    work, handle = desk.prepare()
    made = commit(work, "made.txt")
    found = desk.collect(handle)
    assert (found.tip, found.branch, len(found.commits)) == (made, None, 1)
    assert found.others == {f"{RUN}/head": made}
    assert desk.refs()[f"{RUN}/head"] == made


@pytest.mark.full
def test_a_branch_that_the_user_went_on_with_is_left_alone(desk: Desk) -> None:
    work, handle = desk.prepare()
    made = commit(work, "made.txt")
    desk.collect(handle)
    git(desk.repo.path, "checkout", "-q", BRANCH)
    users = commit(desk.repo.path, "by-hand.txt")
    git(desk.repo.path, "checkout", "-q", "main")
    found = desk.collect(handle)
    assert (found.tip, found.branch) == (made, None)
    assert desk.refs()[f"refs/heads/{BRANCH}"] == users


@pytest.mark.full
def test_the_next_attempt_takes_the_branch_and_the_first_keeps_its_ref(desk: Desk) -> None:
    work, first = desk.prepare()
    one = commit(work, "one.txt")
    desk.collect(first)
    plan = plan_of(str(desk.repo.path), attempt=2)
    work, second = desk.prepare(plan)
    two = commit(work, "two.txt")
    assert desk.collect(second, plan).branch == BRANCH
    refs = desk.refs()
    assert (refs[f"refs/heads/{BRANCH}"], refs[f"{RUN}/head"]) == (two, one)

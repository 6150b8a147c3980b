"""The repository's way to a host and the commits' way home, through the local host; nothing of git is emulated."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overnight.collected import Collected
from overnight.env import EnvPatch
from overnight.failures import CollectError, FailureKind, WorkspaceError
from overnight.git import Repo, bare
from overnight.handle import RunHandle
from overnight.hosts.local import LocalHost
from overnight.lockfile import Header
from overnight.plan import RunPlan
from overnight.remote import Remote
from overnight.route import Route
from overnight.spec import Limits
from overnight.workspace import Workspaces, home_of, mirror_name
from tests.overnight.nights import SEARCH_PATH, commit, git, make_repo, untouched

RUN = "refs/overnight/b.t.1"
BRANCH = "overnight/b/t"


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    remote = Remote(LocalHost("box", home=tmp_path_factory.mktemp("host")), python=sys.executable)
    yield remote
    remote.close()


def plan_of(
    repo: str, *, base: str = "main", task: str = "t", attempt: int = 1, max_bytes: int = 10_000_000
) -> RunPlan:
    return RunPlan(
        run_id=f"b.{task}.{attempt}",
        batch_id="b",
        task_id=task,
        attempt=attempt,
        route=Route(host="box", harness="scripted", provider="rehearsal", model="m"),
        command="python3",
        argv=("python3",),
        env=EnvPatch(),
        home_files=(),
        repo=repo,
        base=base,
        base_sha=None,
        branch=f"overnight/b/{task}",
        limits=Limits(max_collect_bytes=max_bytes),
        header=Header.BEARER,
        key_variable="KEY",
        base_url="http://127.0.0.1:9",
        longest_wait_s=None,
    )


@dataclass
class Desk:
    """A repository at home, workspaces on a host, and a folder there for runs."""

    repo: Repo
    spaces: Workspaces
    runs: Path

    def prepare(self, plan: RunPlan | None = None) -> tuple[Path, RunHandle]:
        plan = plan or self.plan()
        run_dir = self.runs / plan.run_id
        home, own = home_of(plan, self.runs / "state", SEARCH_PATH)
        work, base = self.spaces.prepare(plan, home if own else None, str(run_dir))
        handle = RunHandle(
            run_id=plan.run_id,
            host="box",
            run_dir=str(run_dir),
            work_dir=work,
            base_sha=base,
            started_at=datetime.now(UTC),
        )
        return Path(work), handle

    def plan(self, *, max_bytes: int = 10_000_000) -> RunPlan:
        return plan_of(str(self.repo.path), max_bytes=max_bytes)

    def collect(self, handle: RunHandle, plan: RunPlan | None = None) -> Collected:
        return self.spaces.collect(plan or self.plan(), handle, self.repo)

    def refs(self) -> dict[str, str]:
        lines = git(self.repo.path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split() for line in lines)


@pytest.fixture
def desk(remote: Remote, tmp_path: Path) -> Desk:
    runs = tmp_path / "runs"
    runs.mkdir()
    return Desk(make_repo(tmp_path / "my répo"), Workspaces(remote), runs)


def test_a_workspace_is_a_clone_on_its_branch_without_a_way_back(desk: Desk) -> None:
    work, handle = desk.prepare()
    assert handle.base_sha == desk.repo.resolve("main")
    assert git(work, "rev-parse", "HEAD") == handle.base_sha
    assert git(work, "symbolic-ref", "HEAD") == f"refs/heads/{BRANCH}"
    assert git(work, "remote") == ""
    assert git(work, "status", "--porcelain") == ""
    assert git(work, "for-each-ref", "--format=%(refname)") == f"refs/heads/{BRANCH}"
    assert (work / "README").read_text() == "hello\n"


@pytest.mark.full
def test_preparing_again_changes_nothing_even_when_main_moved(desk: Desk) -> None:
    work, first = desk.prepare()
    mine = commit(work, "half-done.txt")
    commit(desk.repo.path, "meanwhile.txt")
    again, second = desk.prepare()
    assert (again, second.base_sha) == (work, first.base_sha)
    assert git(work, "rev-parse", "HEAD") == mine
    assert [c.sha for c in desk.collect(second).commits] == [mine]


@pytest.mark.full
def test_a_new_attempt_starts_from_the_newest_base(desk: Desk) -> None:
    desk.prepare()
    moved = commit(desk.repo.path, "meanwhile.txt")
    _, second = desk.prepare(plan_of(str(desk.repo.path), attempt=2))
    assert second.base_sha == moved


@pytest.mark.full
def test_many_at_once_send_the_base_once(desk: Desk, remote: Remote) -> None:
    found: list[RunHandle] = []

    def prepare(number: int) -> None:
        found.append(desk.prepare(plan_of(str(desk.repo.path), task=f"t{number}"))[1])

    threads = [threading.Thread(target=prepare, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert {handle.base_sha for handle in found} == {desk.repo.resolve("main")}
    mirror = Path(remote.install().root, "mirrors", f"{mirror_name(str(desk.repo.path))}.git")
    assert len(list((mirror / "objects" / "pack").glob("*.pack"))) == 1


@pytest.mark.full
def test_several_controllers_at_once_do_no_harm(desk: Desk, remote: Remote) -> None:
    found: list[str] = []

    def prepare(number: int) -> None:
        plan = plan_of(str(desk.repo.path), task=f"t{number}")
        found.append(Workspaces(remote).prepare(plan, desk.repo, str(desk.runs / plan.run_id))[1])

    threads = [threading.Thread(target=prepare, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [desk.repo.resolve("main")] * 4


@pytest.mark.full
def test_a_second_base_is_sent_as_what_is_new(desk: Desk, remote: Remote) -> None:
    for number in range(30):
        commit(desk.repo.path, f"{number}.txt", "x" * 5000)
    desk.prepare()
    commit(desk.repo.path, "one-more.txt")
    desk.prepare(plan_of(str(desk.repo.path), task="u"))
    mirror = Path(remote.install().root, "mirrors", f"{mirror_name(str(desk.repo.path))}.git")
    packed = dict(line.split(": ") for line in git(mirror, "count-objects", "-v").splitlines())
    # 31 commits, trees and the blobs of 30 files (all alike) and of the base; then a commit, a tree, a blob
    assert (packed["packs"], packed["in-pack"], packed["count"]) == ("2", "69", "0")


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


def trap(repo: Path, tmp_path: Path) -> Path:
    """Make every helper that git could start leave a trace."""
    sentinel, helper = tmp_path / "ran", tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\ntouch '{sentinel}'\ncat\n")
    helper.chmod(0o755)
    hooks = repo / ".githooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "post-index-change", "pre-commit", "update"):
        shutil.copy(helper, hooks / name)
    for name in ("core.hooksPath", "core.fsmonitor", "diff.external", "filter.evil.clean", "filter.evil.smudge"):
        git(repo, "config", name, str(hooks if name == "core.hooksPath" else helper))
    git(repo, "config", "filter.evil.required", "true")
    return sentinel


def test_nothing_that_the_agent_planted_runs(desk: Desk, tmp_path: Path) -> None:
    work, handle = desk.prepare()
    (work / ".gitattributes").write_text("* filter=evil diff=evil\n")
    made = commit(work, "made.txt")
    sentinel = trap(work, tmp_path)
    git(work, "config", "extensions.unheardOf", "true")
    (work / "left.txt").write_text("left\n")
    found = desk.collect(handle)
    place = desk.spaces.fresh_clone(handle, made, f"{handle.run_dir}/verify")
    assert found.tip == made
    assert found.leftovers is not None
    assert (Path(place) / "made.txt").read_text() == "text\n"
    assert not sentinel.exists()
    git(work, "config", "--unset", "extensions.unheardOf")
    git(work, "status")
    assert sentinel.exists(), "the trap itself must work"


@pytest.mark.full
def test_hooks_of_the_user_run_neither_here_nor_there(desk: Desk, tmp_path: Path) -> None:
    sentinel = trap(desk.repo.path, tmp_path)
    git(desk.repo.path, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "add", ".githooks")
    git(desk.repo.path, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "commit", "-qm", "hooks")
    sentinel.unlink(missing_ok=True)
    work, handle = desk.prepare()
    made = commit(work, "made.txt")
    assert desk.collect(handle).tip == made
    assert not sentinel.exists()


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
    with pytest.raises(CollectError, match="pack-objects on the host"):
        desk.collect(handle)
    assert desk.refs() == before


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


@pytest.mark.full
def test_a_url_is_fetched_by_the_host_and_comes_home_to_a_repository_of_ours(desk: Desk) -> None:
    plan = plan_of(f"file://{desk.repo.path}")
    work, handle = desk.prepare(plan)
    assert handle.base_sha == desk.repo.resolve("main")
    made = commit(work, "made.txt")
    commit(desk.repo.path, "meanwhile.txt")
    assert desk.prepare(plan)[1].base_sha == handle.base_sha
    home, own = home_of(plan, desk.runs / "state", SEARCH_PATH)
    found = desk.spaces.collect(plan, handle, bare(home.path, SEARCH_PATH))
    assert not own
    assert found.repo == str(home.path)
    assert git(home.path, "rev-parse", BRANCH) == made
    assert git(home.path, "show", f"{BRANCH}:made.txt") == "text"
    assert git(home.path, "fsck", "--strict", "--no-dangling") == ""


@pytest.mark.full
def test_a_url_without_a_commit_brings_no_history_home(desk: Desk) -> None:
    plan = plan_of(f"file://{desk.repo.path}", task="quiet")
    _, handle = desk.prepare(plan)
    home = bare(desk.runs / "home.git", SEARCH_PATH)
    assert desk.spaces.collect(plan, handle, home).tip is None
    assert git(home.path, "count-objects") == "0 objects, 0 kilobytes"


@pytest.mark.full
@pytest.mark.parametrize(
    ("repo", "base"),
    [
        ("file:///no/such/place", "main"),
        ("ext::sh -c touch% /tmp/never x://", "main"),
        ("--upload-pack=touch /tmp/never;x://", "main"),
        ("file://{repo}", "no-such-branch"),
    ],
)
def test_a_url_that_cannot_be_fetched_is_a_workspace_error(desk: Desk, repo: str, base: str) -> None:
    plan = plan_of(repo.format(repo=desk.repo.path), base=base, task="bad")
    with pytest.raises(WorkspaceError, match="fetch on the host"):
        desk.spaces.prepare(plan, None, str(desk.runs / "bad"))
    assert not Path("/tmp/never").exists()


@pytest.mark.full
def test_a_base_that_is_not_there_is_a_workspace_error(desk: Desk) -> None:
    with pytest.raises(WorkspaceError, match="no-such-branch"):
        desk.prepare(plan_of(str(desk.repo.path), base="no-such-branch"))


@pytest.mark.full
def test_a_shallow_repository_serves(desk: Desk, tmp_path: Path) -> None:
    commit(desk.repo.path, "second.txt")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{desk.repo.path}", str(shallow))
    plan = plan_of(str(shallow))
    work, handle = desk.prepare(plan)
    assert len(git(work, "log", "--format=%H").splitlines()) == 1
    made = commit(work, "made.txt")
    assert [c.sha for c in desk.spaces.collect(plan, handle, Repo(shallow, SEARCH_PATH)).commits] == [made]


def test_names_of_mirrors_tell_repositories_apart_and_hold_no_credential() -> None:
    names = [mirror_name(r) for r in ("/a/app", "/b/app", "https://u:secret@host/app.git", "git@host:team/app", "/")]
    assert len(set(names)) == 5
    assert not any("secret" in name or "/" in name or name.startswith(".") for name in names)
    assert names[2].startswith("app-")

"""The repository's way to a host, through the local host; nothing of git is emulated."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from overnight.failures import WorkspaceError
from overnight.git import Repo, bare
from overnight.handle import RunHandle
from overnight.remote import Remote
from overnight.workspace import Workspaces, home_of, mirror_name
from tests.overnight.desks import BRANCH, Desk, plan_of, trap
from tests.overnight.nights import SEARCH_PATH, commit, git


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
def test_many_at_once_send_the_base_once(desk: Desk, desk_remote: Remote) -> None:
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
    mirror = Path(desk_remote.install().root, "mirrors", f"{mirror_name(str(desk.repo.path))}.git")
    assert len(list((mirror / "objects" / "pack").glob("*.pack"))) == 1


@pytest.mark.full
def test_a_mirror_that_is_cleaned_up_between_two_runs_is_made_anew(desk: Desk, desk_remote: Remote) -> None:
    _, first = desk.prepare()
    shutil.rmtree(Path(desk_remote.install().root, "mirrors"))
    work, second = desk.prepare(plan_of(str(desk.repo.path), task="t2"))
    assert second.base_sha == first.base_sha
    assert git(work, "rev-parse", "HEAD") == first.base_sha


@pytest.mark.full
def test_a_base_that_other_runs_have_brought_does_not_move_the_one_a_run_began_on(desk: Desk) -> None:
    work, first = desk.prepare()
    commit(desk.repo.path, "meanwhile.txt")
    desk.prepare(plan_of(str(desk.repo.path), task="t2"))
    again, second = desk.prepare()
    assert (again, second.base_sha) == (work, first.base_sha)


@pytest.mark.full
def test_several_controllers_at_once_do_no_harm(desk: Desk, desk_remote: Remote) -> None:
    found: list[str] = []

    def prepare(number: int) -> None:
        plan = plan_of(str(desk.repo.path), task=f"t{number}")
        found.append(Workspaces(desk_remote).prepare(plan, desk.repo, str(desk.runs / plan.run_id))[1])

    threads = [threading.Thread(target=prepare, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [desk.repo.resolve("main")] * 4


@pytest.mark.full
def test_a_second_base_is_sent_as_what_is_new(desk: Desk, desk_remote: Remote) -> None:
    for number in range(30):
        commit(desk.repo.path, f"{number}.txt", "x" * 5000)
    desk.prepare()
    commit(desk.repo.path, "one-more.txt")
    desk.prepare(plan_of(str(desk.repo.path), task="u"))
    mirror = Path(desk_remote.install().root, "mirrors", f"{mirror_name(str(desk.repo.path))}.git")
    packed = dict(line.split(": ") for line in git(mirror, "count-objects", "-v").splitlines())
    # 31 commits, trees and the blobs of 30 files (all alike) and of the base; then a commit, a tree, a blob
    assert (packed["packs"], packed["in-pack"], packed["count"]) == ("2", "69", "0")


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

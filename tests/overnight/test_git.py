"""Repo against real git: packs in and out, and nobody's configuration but ours."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.failures import FailureKind, WorkspaceError
from overnight.git import GitError, Repo, bare
from tests.overnight.nights import SEARCH_PATH, commit, git, make_repo

MANY = 50_000_000


def changed_files(repo: Repo, base: str, tip: str) -> list[str]:
    argv = [
        "git",
        "-C",
        str(repo.path),
        "-c",
        "safe.directory=*",
        "diff-tree",
        "-r",
        "--no-renames",
        "--name-only",
        "-z",
    ]
    names = subprocess.run([*argv, base, tip, "--"], check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "a repo, 身份")


def objects(repo: Repo) -> set[str]:
    folder = Path(git(repo.path, "rev-parse", "--absolute-git-dir")) / "objects"
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def pack_of(source: Repo, tip: str, *haves: str) -> bytes:
    return b"".join(source.pack(tip, haves))


def fsck(repo: Repo) -> str:
    return git(repo.path, "fsck", "--strict", "--no-dangling")


def clone(repo: Repo, place: Path) -> Repo:
    git(repo.path, "clone", "-q", str(repo.path), str(place))
    return Repo(place, SEARCH_PATH)


def raw_tree(repo: Repo, entries: list[tuple[str, bytes, str]]) -> str:
    """A tree that git itself would not write; its commit."""
    body = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries)
    argv = ["git", "-C", str(repo.path), "hash-object", "-t", "tree", "--literally", "-w", "--stdin"]
    made = subprocess.run(argv, input=body, capture_output=True, check=True, env={"PATH": os.defpath})
    return git(repo.path, "commit-tree", "-p", "HEAD", "-m", "hostile", made.stdout.decode().strip())


def test_a_thin_pack_carries_what_the_other_side_lacks(repo: Repo, tmp_path: Path) -> None:
    other = clone(repo, tmp_path / "other")
    base = repo.resolve("main")
    tip = commit(other.path, "new.txt")
    assert not repo.has(tip)
    repo.take_pack(iter([pack_of(other, tip, base)]), MANY)
    assert repo.has(tip)
    assert [c.subject for c in repo.commits(base, tip)] == ["add new.txt"]
    assert repo.diffstat(base, tip) == "1 file changed, 1 insertion(+)"
    assert changed_files(repo, base, tip) == ["new.txt"]
    assert fsck(repo) == ""


def test_a_pack_comes_in_twice_and_in_single_bytes(repo: Repo, tmp_path: Path) -> None:
    other = clone(repo, tmp_path / "other")
    pack = pack_of(other, commit(other.path, "new.txt"), repo.resolve("main"))
    repo.take_pack((bytes([b]) for b in pack), MANY)
    before = objects(repo)
    repo.take_pack(iter([pack]), MANY)
    assert objects(repo) == before


@pytest.mark.parametrize("name", [b".git", b".GIT", b"..", b"a/b", b"git~1"])
def test_a_tree_that_would_escape_is_refused_and_leaves_nothing(repo: Repo, tmp_path: Path, name: bytes) -> None:
    hostile = clone(repo, tmp_path / "hostile")
    blob = git(hostile.path, "rev-parse", "HEAD:README")
    tip = raw_tree(hostile, [("100644", name, blob)])
    before = objects(repo)
    with pytest.raises(GitError, match="the pack was refused"):
        repo.take_pack(iter([pack_of(hostile, tip)]), MANY)
    assert objects(repo) == before
    assert not repo.has(tip)


def test_a_gitmodules_that_is_a_link_is_refused(repo: Repo, tmp_path: Path) -> None:
    hostile = clone(repo, tmp_path / "hostile")
    blob = git(hostile.path, "rev-parse", "HEAD:README")
    with pytest.raises(GitError, match="the pack was refused"):
        repo.take_pack(iter([pack_of(hostile, raw_tree(hostile, [("120000", b".gitmodules", blob)]))]), MANY)


def test_modes_as_old_histories_have_them_are_taken(repo: Repo, tmp_path: Path) -> None:
    old = clone(repo, tmp_path / "old")
    inner = git(old.path, "rev-parse", "HEAD^{tree}")
    tip = raw_tree(old, [("040000", b"folder", inner)])
    repo.take_pack(iter([pack_of(old, tip)]), MANY)
    assert repo.has(tip)


@pytest.mark.parametrize("damage", ["cut", "cut at once", "one bit", "not a pack", "link missing"])
def test_a_broken_pack_is_refused_and_leaves_nothing(repo: Repo, tmp_path: Path, damage: str) -> None:
    other = clone(repo, tmp_path / "other")
    first = commit(other.path, "first.txt")
    tip = commit(other.path, "second.txt")
    pack = pack_of(other, tip, repo.resolve("main"))
    flipped = bytearray(pack)
    flipped[len(pack) // 2] ^= 1
    damaged = {
        "cut": pack[:-30],
        "cut at once": b"",
        "one bit": bytes(flipped),
        "not a pack": b"HTTP/1.1 200 OK\r\n\r\n",
        "link missing": pack_of(other, tip, first),
    }[damage]
    before = objects(repo)
    with pytest.raises(GitError, match="the pack was refused"):
        repo.take_pack(iter([damaged]), MANY)
    assert objects(repo) == before


def test_a_pack_beyond_the_cap_is_refused_before_its_end(repo: Repo, tmp_path: Path) -> None:
    other = clone(repo, tmp_path / "other")
    (other.path / "noise").write_bytes(os.urandom(4_000_000))
    tip = commit(other.path, "small.txt")
    before = objects(repo)
    with pytest.raises(GitError, match="maximum allowed size"):
        repo.take_pack(other.pack(tip, [repo.resolve("main")]), 100_000)
    assert objects(repo) == before
    repo.take_pack(other.pack(tip, [repo.resolve("main")]), 5_000_000)
    assert repo.has(tip)


def test_a_source_that_fails_half_way_leaves_nothing(repo: Repo, tmp_path: Path) -> None:
    other = clone(repo, tmp_path / "other")
    pack = pack_of(other, commit(other.path, "new.txt"), repo.resolve("main"))

    def cut() -> Iterator[bytes]:
        yield pack[:40]
        raise ConnectionResetError("the host is gone")

    before = objects(repo)
    with pytest.raises(ConnectionResetError):
        repo.take_pack(cut(), MANY)
    assert objects(repo) == before


def test_packing_what_is_not_here_is_an_error_at_the_end(repo: Repo) -> None:
    with pytest.raises(GitError, match="pack-objects"):
        pack_of(repo, "1" * 40)


def test_no_hook_and_no_helper_of_the_user_runs(repo: Repo, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    hooks = repo.path / ".githooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "post-commit", "pre-auto-gc", "fsmonitor", "differ"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{sentinel}'\n")
        (hooks / name).chmod(0o755)
    other = clone(repo, tmp_path / "other")
    (repo.path / ".gitattributes").write_text("* diff=evil filter=evil\n")
    helper = str(hooks / "differ")
    settings = {
        "core.hooksPath": ".githooks",
        "core.fsmonitor": str(hooks / "fsmonitor"),
        "diff.external": helper,
        "diff.evil.command": helper,
        "diff.evil.textconv": helper,
        "filter.evil.clean": helper,
        "filter.evil.smudge": helper,
        "log.showSignature": "true",
        "gpg.program": helper,
        "core.pager": helper,
        "core.alternateRefsCommand": helper,
    }
    for name, value in settings.items():
        git(repo.path, "config", name, value)
    base, tip = repo.resolve("main"), commit(other.path, "new.txt")
    repo.take_pack(other.pack(tip, [base]), MANY)
    repo.set_refs({"refs/overnight/r/head": tip})
    assert repo.set_branch("overnight/b/t", tip, "refs/overnight/b.t.*/head")
    assert (len(repo.commits(base, tip)), len(changed_files(repo, base, tip))) == (1, 1)
    assert repo.diffstat(base, tip)
    pack_of(repo, tip)
    assert not sentinel.exists()
    git(repo.path, "update-ref", "refs/heads/by-the-user", tip)
    assert sentinel.exists(), "the trap itself must work"


def test_a_tilde_in_the_configuration_of_the_repository_does_no_harm(repo: Repo) -> None:
    for name in ("core.hooksPath", "core.excludesFile", "include.path", "diff.orderFile"):
        git(repo.path, "config", name, "~/not/there", env={"HOME": "/nonexistent"})
    base = repo.resolve("main")
    tip = git(repo.path, "commit-tree", "-p", base, "-m", "next", f"{base}^{{tree}}")
    assert len(repo.commits(base, tip)) == 1
    assert changed_files(repo, base, tip) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
@pytest.mark.parametrize("link", [False, True])
def test_a_repository_of_somebody_else_is_used(repo: Repo, tmp_path: Path, link: bool) -> None:
    for path in (repo.path, *repo.path.rglob("*")):
        os.chown(path, 65534, 65534)
    named = tmp_path / "link"
    named.symlink_to(repo.path)
    assert Repo(named if link else repo.path, SEARCH_PATH).resolve("main")


@pytest.mark.parametrize("revision", ["nowhere", "--help", "", "main:README"])
def test_what_names_no_commit_is_a_workspace_error(repo: Repo, revision: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        repo.resolve(revision)
    assert caught.value.failure.kind is FailureKind.WORKSPACE


def test_no_repository_and_no_git_are_workspace_errors(repo: Repo, tmp_path: Path) -> None:
    for broken in (Repo(tmp_path, SEARCH_PATH), Repo(tmp_path / "nothing", SEARCH_PATH)):
        with pytest.raises(WorkspaceError, match=str(broken.path)):
            broken.resolve("main")
    with pytest.raises(GitError, match="cannot be started"):
        Repo(repo.path, str(tmp_path)).run("status")


def test_a_slow_git_is_a_git_error(repo: Repo) -> None:
    with pytest.raises(GitError, match="no end after"):
        repo.run("rev-parse", "HEAD", timeout_s=0.0)


@pytest.mark.parametrize(
    ("date", "year"),
    [("1700000000 +0100", 2023), ("1700000000 +9959", 2023), ("253402400000 +0000", 9999), ("0 +0000", 1970)],
)
def test_a_date_is_whatever_its_author_wrote(repo: Repo, date: str, year: int) -> None:
    base = repo.resolve("main")
    body = f"tree {git(repo.path, 'rev-parse', 'main^{tree}')}\nparent {base}\nauthor A <a@b> {date}\n"
    body += "committer A <a@b> 1700000000 +0000\n\n odd \x01 subject, 身份\n\nbody\n"
    argv = ["git", "-C", str(repo.path), "hash-object", "-t", "commit", "-w", "--literally", "--stdin"]
    made = subprocess.run(argv, input=body.encode(), capture_output=True, check=True, env={"PATH": os.defpath})
    (found,) = repo.commits(base, made.stdout.decode().strip())
    assert found.author_date.year == year
    assert "subject, 身份" in found.subject


def test_names_of_files_come_whole(repo: Repo) -> None:
    base = repo.resolve("main")
    names = [" leads and trails ", "new\nline", "tab\there", "ümlaut", '"quoted"']
    for name in names:
        (repo.path / name).write_text("x")
    git(repo.path, "add", "-A")
    git(repo.path, "commit", "-q", "-m", "odd names")
    assert sorted(changed_files(repo, base, repo.resolve("main"))) == sorted(names)


def test_refs_are_set_all_or_none(repo: Repo) -> None:
    base = repo.resolve("main")
    with pytest.raises(GitError):
        repo.set_refs({"refs/overnight/a": base, "refs/overnight/a/b": base})
    assert git(repo.path, "for-each-ref", "refs/overnight") == ""


def branch(repo: Repo) -> str:
    return git(repo.path, "for-each-ref", "--format=%(objectname)", "refs/heads/overnight/b/t")


def test_a_branch_is_made_and_moved_only_while_it_is_ours(repo: Repo) -> None:
    ours, name = "refs/overnight/b.t.*/head", "overnight/b/t"
    base = repo.resolve("main")
    first, second, users = (
        git(repo.path, "commit-tree", "-p", base, "-m", subject, f"{base}^{{tree}}") for subject in ("1", "2", "3")
    )
    assert repo.set_branch(name, first, ours)
    assert repo.set_branch(name, first, ours)
    assert not repo.set_branch(name, second, ours)
    assert branch(repo) == first
    repo.set_refs({"refs/overnight/b.t.1/head": first})
    assert repo.set_branch(name, second, ours)
    assert branch(repo) == second
    git(repo.path, "update-ref", f"refs/heads/{name}", users)
    assert not repo.set_branch(name, first, ours)
    assert branch(repo) == users


def test_a_branch_that_is_checked_out_stays_where_it_is(repo: Repo) -> None:
    base = repo.resolve("main")
    git(repo.path, "checkout", "-q", "-b", "overnight/b/t")
    later = git(repo.path, "commit-tree", "-p", base, "-m", "later", f"{base}^{{tree}}")
    assert not repo.set_branch("overnight/b/t", later, "refs/overnight/b.t.*/head")
    assert branch(repo) == base


def test_a_bare_repository_is_made_once_by_many(tmp_path: Path) -> None:
    found: list[str] = []
    place = tmp_path / "deep" / "home.git"
    threads = [
        threading.Thread(target=lambda: found.append(bare(place, SEARCH_PATH).run("rev-parse", "--is-bare-repository")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == ["true"] * 8
    assert [p.name for p in place.parent.iterdir()] == ["home.git"]

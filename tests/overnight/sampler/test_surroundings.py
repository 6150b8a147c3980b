"""What a sample shows around the processes: disks, output, the work tree and its repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from overnight.sampler.surroundings import repository
from tests.overnight.following import shell
from tests.overnight.nights import commit, git, make_repo
from tests.overnight.sampler.conftest import Run


@pytest.mark.full
def test_disks_memory_and_output(run: Run) -> None:
    run.start(shell("r1", "echo hello; exec sleep 60"))
    seen = run.seen(lambda sample: sample.out_bytes)
    assert (seen.out_bytes, seen.err_bytes, seen.system, seen.supervised) == (6, 0, "linux", True)
    assert seen.ended is False
    total = psutil.disk_usage(run.answer.run_dir).total
    assert 0 < (seen.run_disk_free_bytes or 0) < total
    assert 0 < (seen.work_disk_free_bytes or 0) < total
    assert (seen.memory_available_bytes or 0) > 1_000_000
    known = (seen.at_s, seen.load, seen.processors, seen.spoke_s, seen.work_changed_s, seen.oom_kills)
    assert None not in known
    assert seen.missing == ("repository: No such file or directory",)


@pytest.mark.full
def test_head_moves_with_a_commit(run: Run, tmp_path: Path) -> None:
    make_repo(tmp_path / "repo")
    first = git(tmp_path / "repo", "rev-parse", "HEAD")
    run.start(replace(shell("r1", "exec sleep 60"), cwd=str(tmp_path / "repo")))
    before = run.seen(lambda sample: True)
    assert (before.head, before.branch, before.missing) == (first, "refs/heads/main", ())
    second = commit(tmp_path / "repo", "new")
    after = run.seen(lambda sample: sample.head == second)
    assert after.head_changed_s is not None
    assert after.work_changed_s is not None


def test_head_where_it_is_detached_packed_or_of_another_work_tree(tmp_path: Path) -> None:
    make_repo(tmp_path / "repo")
    sha = git(tmp_path / "repo", "rev-parse", "HEAD")
    git(tmp_path / "repo", "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    seen = repository(str(tmp_path / "side"))
    assert (seen["head"], seen["branch"]) == (sha, "refs/heads/side")
    git(tmp_path / "repo", "pack-refs", "--all")
    for place in ("repo", "side"):
        assert repository(str(tmp_path / place))["head"] == sha
    git(tmp_path / "repo", "checkout", "-q", "--detach")
    seen = repository(str(tmp_path / "repo"))
    assert (seen["head"], seen["branch"]) == (sha, None)
    git(tmp_path / "repo", "checkout", "-q", "--orphan", "unborn")
    assert repository(str(tmp_path / "repo"))["head"] is None

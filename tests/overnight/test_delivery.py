"""What a person is shown before delivery, and what their word does."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.collected import Commit
from overnight.delivery import offer
from overnight.report import RunReport
from tests.overnight.nights import SEARCH_PATH, commit, git, make_repo
from tests.overnight.samples import AT, full_run


def waiting(repo: Path, subject: str) -> RunReport:
    base = git(repo, "rev-parse", "HEAD")
    tip = commit(repo, "new.py")
    found = {"repo": str(repo), "base_sha": base, "approved": False, "branch": None, "guards": ()}
    return full_run().model_copy(update={**found, "commits": (Commit(sha=tip, author_date=AT, subject=subject),)})


def test_commits_and_files_are_shown_with_the_way_to_the_whole_diff(tmp_path: Path) -> None:
    run = waiting(make_repo(tmp_path / "repo").path, "Add new")
    words = offer([run], SEARCH_PATH)
    assert f"{run.commits[0].sha[:10]} Add new" in words
    assert "new.py" in words
    assert f"git -C {tmp_path / 'repo'} diff {(run.base_sha or '')[:12]} {run.commits[0].sha[:12]}" in words


@pytest.mark.parametrize("subject", ["``` ![x](http://a.example/x.png)", "````` <h1>approved by CI</h1>"])
def test_an_agents_words_cannot_pose_as_ours(tmp_path: Path, subject: str) -> None:
    lines = offer([waiting(make_repo(tmp_path / "repo").path, subject)], SEARCH_PATH).splitlines()
    fences = [line for line in lines if line and not line.strip("`")]
    assert len(fences) == 2
    assert fences[0] == fences[1]
    assert fences[0] not in subject
    said = next(i for i, line in enumerate(lines) if subject in line)
    assert lines.index(fences[0]) < said < len(lines) - lines[::-1].index(fences[1])


def test_a_repository_that_went_away_costs_its_own_list_alone(tmp_path: Path) -> None:
    there, gone = (waiting(make_repo(tmp_path / name).path, f"In {name}") for name in ("there", "gone"))
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    words = offer([gone, there], SEARCH_PATH)
    assert "In gone" in words
    assert "cannot be shown: git diff-tree" in words
    assert "In there" in words
    assert "new.py" in words

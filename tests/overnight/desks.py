"""A repository at home and workspaces on a host, for the tests of both ways between them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from overnight.collected import Collected
from overnight.env import EnvPatch
from overnight.git import Repo
from overnight.handle import RunHandle
from overnight.lockfile import Header
from overnight.plan import RunPlan
from overnight.route import Route
from overnight.spec import Limits
from overnight.workspace import Workspaces, home_of
from tests.overnight.nights import SEARCH_PATH, git

RUN = "refs/overnight/b.t.1"
BRANCH = "overnight/b/t"


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

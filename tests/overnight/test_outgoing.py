"""What becomes of a branch when guards found something, and what is said of it everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.batchfile import complete
from overnight.delivery import awaiting, deliver, offer
from overnight.failures import BadInput
from overnight.handover import Deliver, Finding, Guards
from overnight.morning import markdown, summary
from overnight.page import html
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED, BatchReport, exit_code
from overnight.spec import TaskSpec
from tests.overnight.nights import KEY, Evening, carry_out, git, script
from tests.overnight.samples import collected, commit, report, run

HOSTILE = "a\\n```x.py:3 in abc: GitHub Token"
HELD = Finding(guard="secrets", policy="hold", seen="1 added line looks like a secret", count=1, places=(HOSTILE,))
REFUSED = HELD.model_copy(update={"guard": "own_key", "policy": "refuse"})
NOTED = HELD.model_copy(update={"guard": "size", "policy": "note"})


def committed(*findings: Finding, **changes: object) -> BatchReport:
    found = collected(commit())
    fields = {"commits": found.commits, "repo": found.repo, "base_sha": found.base_sha, "guards": findings}
    return report(run(**{**fields, "other_refs": {"refs/overnight/x/head": "c" * 40}, **changes}))


@pytest.mark.parametrize(("finding", "words"), [(HELD, "before your word"), (REFUSED, "refused"), (NOTED, "")])
def test_what_a_guard_found_stands_on_every_page(tmp_path: Path, finding: Finding, words: str) -> None:
    night = committed(finding, approved=False if finding is HELD else None)
    for page in (markdown(night), summary(night, tmp_path, None), html(night, tmp_path)):
        assert f"guard {finding.guard} ({finding.policy}): 1 added line looks like a secret" in page
        assert "x.py:3 in abc" in page
        assert words in page
        assert (f"branch overnight-shout {'c' * 12}" in page) == (finding is REFUSED)
        assert (f"overnight deliver {night.batch_id} shout --allow" in page) == (finding is HELD)


def test_a_name_cannot_leave_its_block(tmp_path: Path) -> None:
    lines = markdown(committed(HELD)).splitlines()
    assert "````" in lines, "the fence is longer than the one in the name"


def test_an_allowed_branch_is_no_longer_called_held(tmp_path: Path) -> None:
    assert "held back" not in markdown(committed(HELD, approved=True, branch="overnight/x/shout"))


def test_what_was_refused_is_no_success_for_a_script() -> None:
    assert exit_code(committed(REFUSED).runs, interrupted=False) == EXIT_FAILED
    assert exit_code(committed(NOTED).runs, interrupted=False) == EXIT_SUCCEEDED


def written(**fields: object) -> TaskSpec:
    route = {"host": "h", "harness": "m", "provider": "m", "model": "m"}
    task = {"id": "t", "instruction": "x", "repo": "/r", "route": route, **fields}
    below = {"guards": {"size": "hold", "allow_paths": ["src/**"]}, "deliver": {"remote": "up"}}
    raw = {"name": "n", "hosts": {"h": {"kind": "local"}}, "tasks": [task], "defaults": below}
    return complete(raw, "t.yaml", Path("/"), {}).tasks[0]


def test_a_task_says_less_than_its_defaults_and_that_wins() -> None:
    task = written(guards={"size": "refuse"}, deliver="push")
    assert task.guards == Guards(size="refuse", allow_paths=("src/**",))
    assert task.deliver == Deliver(how="push", remote="up")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"guards": {"sise": "hold"}}, "guards.sise: unknown key"),
        ({"guards": {"size": "stop"}}, "guards.size"),
        ({"guards": {"allow_paths": ["-x"]}}, "allow_paths"),
        ({"deliver": "pull_request"}, "needs forge"),
        ({"deliver": {"how": "push", "branch": "main"}}, "must hold {task}"),
        ({"deliver": {"how": "push", "branch": "{task}{x}"}}, "may hold {batch}"),
        ({"deliver": {"how": "push", "branch": "a b/{task}"}}, "no name that git"),
        ({"deliver": {"how": "push", "remote": "https://me:tok@h/x"}}, "holds credentials"),
        ({"deliver": {"how": "push", "remote": "--upload-pack=x"}}, "begins with -"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput) as refused:
        written(**fields)
    assert words in str(refused.value)
    assert "tok@" not in str(refused.value)


def agent(command: str) -> str:
    return script(json.dumps({"sh": f"{command} && git add -A && git commit -qm work"}))


@pytest.mark.full
def test_a_key_that_an_agent_commits_goes_nowhere_and_is_not_lost(evening: Evening) -> None:
    task = evening.task("t", agent(f"echo {KEY[:9]}{KEY[9:]} > .env"))
    with evening.night(task, batch_id="leak") as night:
        found = carry_out(night, task)
        assert awaiting([found]) == [], "nobody is asked: no word allows it"
    assert (found.state, found.branch, found.approved) == ("succeeded", None, None)
    assert [each.guard for each in found.guards] == ["own_key"]
    repo = evening.directory / "repo"
    tip = found.commits[-1].sha
    assert (
        git(repo, "for-each-ref", "--format=%(refname) %(objectname)", "refs/overnight", "refs/heads").count(tip) == 1
    )
    assert found.other_refs == {"refs/overnight/leak.t.1/head": tip}
    outcome = next(evening.state.rglob("outcome.json")).read_text()
    assert KEY not in outcome


@pytest.mark.full
def test_what_is_held_waits_for_a_word_and_is_delivered_then(evening: Evening) -> None:
    task = evening.task("t", agent("mkdir -p .github/workflows && echo x > .github/workflows/ci.yml"))
    with evening.night(task, batch_id="held") as night:
        found = carry_out(night, task)
        assert awaiting([found]) == [found]
        assert found.branch is None
        assert "guard workflows (hold)" in offer([found], night.search_path)
        allowed = deliver(night, found)
    assert allowed.branch == "overnight/held/t"
    assert git(evening.directory / "repo", "rev-parse", "overnight/held/t") == found.commits[-1].sha


@pytest.mark.full
def test_the_tasks_own_policy_decides(evening: Evening) -> None:
    policy = Guards(workflows="note")
    task = evening.task("t", agent("echo x > .travis.yml")).model_copy(update={"guards": policy})
    with evening.night(task, batch_id="noted") as night:
        found = carry_out(night, task)
    assert (found.branch, [each.policy for each in found.guards]) == ("overnight/noted/t", ["note"])

"""Who must act: the groups, their order, and commands that exist."""

from __future__ import annotations

import shlex

import pytest
from typer.main import get_command

from flows.cli import app
from overnight.causes import again, outstanding
from overnight.failures import RULES, WHO, FailureKind, Family
from overnight.firstlines import came_home, look_at, next_start, who_must_act
from overnight.report import Phases
from tests.overnight.samples import ROUTE, commit, full_run, proven, report, run


def test_one_cause_with_one_mend_is_one_group_and_the_most_tasks_come_first() -> None:
    refused = proven(FailureKind.AUTH_REJECTED, names=ROUTE.names)
    other = proven(FailureKind.AUTH_REJECTED, names={"provider": "deepseek"})
    found = outstanding(
        report(
            run(task_id="well"),
            run(task_id="slow", state="failed", failure=proven(FailureKind.NO_COMMIT), seconds=Phases(run=900)),
            run(task_id="a", state="skipped", failure=refused),
            run(task_id="other", state="skipped", failure=other),
            run(task_id="b", state="skipped", failure=refused),
        )
    )
    assert [(cause.kind, [task.task_id for task in cause.tasks]) for cause in found] == [
        (FailureKind.AUTH_REJECTED, ["a", "b"]),
        (FailureKind.NO_COMMIT, ["slow"]),
        (FailureKind.AUTH_REJECTED, ["other"]),
    ]
    assert [cause.who for cause in found] == [WHO[Family.AUTH], WHO[Family.WORK], WHO[Family.AUTH]]


def test_the_cost_is_that_of_every_attempt_and_a_mended_task_is_no_cause() -> None:
    failed = {"state": "failed", "failure": proven(FailureKind.NO_COMMIT), "seconds": Phases(run=60)}
    (cause,) = outstanding(
        report(
            run(task_id="a", usd=0.5, **failed),
            run(task_id="a", attempt=2, **failed),
            run(task_id="b", **failed),
            run(task_id="b", attempt=2),
        )
    )
    assert (cause.seconds, cause.usd, [task.task_id for task in cause.tasks]) == (120, 0.5, ["a"])


def test_the_words_of_a_cause() -> None:
    refused = {"state": "skipped", "attempt": 0, "run_id": ""}
    kinds = [proven(FailureKind.AUTH_REJECTED, seen, names=ROUTE.names) for seen in ("401", "401", "403")]
    night = report(*(run(task_id=f"t{i}", failure=kind, **refused) for i, kind in enumerate(kinds)))
    assert who_must_act(night) == [
        (
            "3 tasks: auth-rejected, the provider refused the key",
            [
                "task: t0, t1, t2",
                "acts: whoever holds the key",
                "seen: t0: event: 401",
                "seen: t2: event: 403",
                "mend: replace the key: overnight credentials add zai",
                "run:  overnight credentials add zai",
            ],
        )
    ]


_STARTED_AGAIN = (FailureKind.CANCELLED, FailureKind.DEADLINE, FailureKind.PREDECESSOR)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_command_is_one_that_exists(kind: FailureKind) -> None:
    """Whether the task ran, never started or goes on."""
    fails = {"state": "failed", "failure": proven(kind, names=ROUTE.names), "origin": "/srv/my app"}
    for changes in ({}, {"run_id": "", "attempt": 0}, {"left_running": True}):
        (cause,) = outstanding(report(run(**fails, **changes)))
        words = shlex.split(cause.command)
        if kind in _STARTED_AGAIN and not changes.get("left_running"):
            continue  # nothing to mend: the task is started again with the others
        assert words, f"{kind}: no command"
        if words[0] == "overnight":
            _parses(words[1:])
        else:
            assert cause.command.startswith(("python -m flows.batch --resume ", "git ls-remote '/srv/my app'"))


def _parses(words: list[str]) -> None:
    """The console script takes these words; nothing is carried out."""
    command = get_command(app)
    while words and (found := getattr(command, "commands", {}).get(words[0])):
        command, words = found, words[1:]
    assert not hasattr(command, "commands"), words
    command.make_context("overnight", list(words))


def test_every_family_has_its_command_and_who_acts() -> None:
    assert {rule.family for rule in RULES.values()} == set(WHO) == set(Family)


def test_what_is_started_again_is_all_that_did_not_succeed_and_does_not_go_on() -> None:
    lost = proven(FailureKind.LOST)
    night = report(
        run(task_id="well"),
        run(task_id="a", state="lost", failure=lost),
        run(task_id="b", state="cancelled", failure=lost, left_running=True),
    )
    assert again(night) == ["a"]
    assert next_start(night) == "python -m flows.batch night.yaml --only a"
    typed = night.model_copy(update={"source": "the form"})
    assert next_start(typed) == "the same batch with --only a"
    assert next_start(report(run())) == ""


def test_what_came_home() -> None:
    assert came_home(report(run())) == "came home: nothing"
    assert came_home(report(full_run())) == "came home: 1 commit of 1 task on 1 branch"
    unnamed = run(task_id="b", commits=(commit(), commit()), other_refs={"refs/overnight/x": "e" * 40})
    assert came_home(report(full_run(), unnamed)) == "came home: 3 commits of 2 tasks on 1 branch"
    assert came_home(report(unnamed)) == "came home: 2 commits of 1 task, on refs of ours"
    assert "git -C '/srv/my app' log -p aaaaaaaaaaaa.." in look_at(
        full_run().model_copy(update={"repo": "/srv/my app"})
    )

"""Batches whose second attempts go on with the session of the first: by the command a user types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from overnight.rehearsal.agents import Agent
from overnight.rehearsal.model import Say, Shell, Tape, Write
from tests.flows.small import LIMITS, Small, small
from tests.flows.world import ROOT, TAPES, World, finished, world
from tests.overnight.nights import commit, script

pytestmark = pytest.mark.full

NOVEL = "Write a novel in two chapters"
NOVEL_STEPS = (
    Write("one.txt", "It was night.\n"),
    Shell("git add -A && git commit -qm 'Chapter one'"),
    Write("two.txt", "It was day.\n"),
    Shell("sh die.sh"),
    Shell("git add -A && git commit -qm 'Chapter two'"),
    Say("Done."),
)
DIE_ONCE = """[ -e ../../dead ] && exit
touch ../../dead
sleep 2
kill -9 $(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' ../started.json)
sleep 9
"""
ONE = '{"sh": "echo 1 > one && git add -A && git commit -qm one && echo 2 > two"}'
TWO = '{"sh": "git add -A && git commit -qm two"}'
ENDS_WELL = ('{"raw": "{\\"type\\": \\"result\\", \\"ok\\": true}"}', '{"exit": 0}')


def attempts(report: dict[str, Any], task: str) -> list[dict[str, Any]]:
    return [run for run in report["runs"] if run["task_id"] == task]


def subjects(run: dict[str, Any]) -> list[str]:
    return [each["subject"] for each in run["commits"]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, real_agent: Callable[[str], Agent]) -> Iterator[World]:
    tapes = (*TAPES, Tape(NOVEL, NOVEL_STEPS))
    with world(tmp_path_factory.mktemp("world"), real_agent("claude-code").path.parent, tapes) as made:
        commit(made.repo, "die.sh", DIE_ONCE)
        yield made


def test_claude_code_goes_on_over_a_real_sshd(here: World) -> None:
    route = {"host": "box", "harness": "claude-code", "provider": "rehearsal", "model": "rehearsal-large"}
    task = {"id": "novel", "instruction": NOVEL, "route": route, "resume_session": True, "verify": "test -s two.txt"}
    batch, path = here.batch("novel", [task]), here.directory / "novel.json"
    done = finished(here.start(batch, "--json", path), 400)
    assert done.code == 0, done.err
    report = json.loads(path.read_text())
    jsonschema.validate(report, json.loads((ROOT / "report.schema.json").read_text()))
    first, second = attempts(report, "novel")
    assert (first["failure"]["kind"], first["resumed"]) == ("harness-crashed", None)
    assert first["leftovers"]["files"] == ["two.txt"]
    went_on = {"run_id": first["run_id"], "after": "harness-crashed", "session": first["session"], "why": ""}
    assert second["resumed"] == went_on
    assert (subjects(first), subjects(second)) == (["Chapter one"], ["Chapter one", "Chapter two"])
    assert second["base_sha"] == first["base_sha"]
    turns = [call.turn for call in here.provider.calls_of("rehearsal") if call.tools and not call.is_probe]
    assert turns[:4] == [1, 2, 3, 4]
    assert min(turns[4:]) >= 4, "every request of the second attempt holds the results of the first one's tools"
    phrase = f"went on with the session of {first['run_id']} ({first['session']})"
    (written,) = here.state.glob("batches/novel-*/report.md")
    assert f"It {phrase}" in written.read_text()
    assert f"It {phrase}" in written.with_suffix(".html").read_text()
    assert phrase in done.err + done.out
    assert here.git("show", f"{second['branch']}:two.txt") == b"It was day.\n"


TWICE = {**LIMITS, "attempts": 2}


@contextmanager
def place(directory: Path) -> Iterator[Small]:
    """A small one where nobody waits long before the next attempt."""
    with small(directory) as made:
        lock = json.loads(made.lock.read_text())
        lock["harnesses"]["scripted"]["timing"] = {"request_timeout_s": 1, "retries": 0, "backoff_s": 0}
        made.lock.write_text(json.dumps(lock))
        yield made


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Small, dict[str, Any]]]:
    tasks: list[dict[str, Any]] = [
        {"id": "stalls", "instruction": script(ONE, '{"sleep": 600}', TWO), "limits": {**TWICE, "quiet_s": 3}},
        {"id": "idles", "instruction": script('{"say": "done"}', *ENDS_WELL, ONE)},
        {"id": "fails", "instruction": script(ONE, *ENDS_WELL, TWO), "verify": "cat two", "feed_back": True},
        {"id": "plain", "instruction": script(ONE, '{"kill": "KILL"}', TWO), "resume_session": False},
    ]
    with place(tmp_path_factory.mktemp("small")) as made:
        told = [{"resume_session": True, "limits": TWICE, **task} for task in tasks]
        path = made.directory / "report.json"
        done = made.run(made.batch("night", told), "--json", path)
        assert done.code == 1, done.err
        yield made, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("task", "cause", "before", "after"),
    [
        ("stalls", "went-quiet", ["one"], ["one", "two"]),
        ("idles", "no-commit", [], ["one"]),
        ("fails", "verify-failed", ["one"], ["one", "two"]),
    ],
)
def test_whatever_ended_the_first(
    night: tuple[Small, dict[str, Any]], task: str, cause: str, before: list[str], after: list[str]
) -> None:
    first, second = attempts(night[1], task)
    assert (first["failure"]["kind"], subjects(first)) == (cause, before)
    assert (second["state"], subjects(second)) == ("succeeded", after)
    assert second["resumed"]["session"] == first["session"] == second["session"]


def test_it_is_told_what_ended_it_and_what_the_check_said(night: tuple[Small, dict[str, Any]]) -> None:
    here, report = night
    _, second = attempts(report, "fails")
    *_, asked = json.loads((here.runs / second["run_id"] / "spec.json").read_text())["argv"]
    assert asked.startswith("Go on with the task where you stopped. What ended you: the commits are here, the check")
    assert "checked by `cat two`, which failed and ended with" in asked
    assert "No such file or directory" in asked
    assert "```script" not in asked


def test_who_did_not_ask_for_it_begins_afresh(night: tuple[Small, dict[str, Any]]) -> None:
    first, second = attempts(night[1], "plain")
    assert [run["failure"]["kind"] for run in (first, second)] == ["harness-crashed"] * 2
    assert [(run["resumed"], run["session"]) for run in (first, second)] == [(None, None)] * 2


def test_a_batch_that_is_killed_between_the_two_still_goes_on_with_the_session(tmp_path: Path) -> None:
    task = {"id": "fails", "instruction": script(ONE, *ENDS_WELL, TWO), "verify": "cat two", "limits": TWICE}
    with place(tmp_path) as made:
        process = made.start(made.batch("cut", [{**task, "resume_session": True}]))
        outcome = made.found("batches/cut-*/runs/*.fails.1/outcome.json")
        process.kill()
        finished(process)
        done = made.run("--resume", outcome.parents[2].name, "--json", tmp_path / "report.json")
        assert done.code == 0, done.err
    first, second = attempts(json.loads((tmp_path / "report.json").read_text()), "fails")
    assert (subjects(first), subjects(second)) == (["one"], ["one", "two"])
    assert second["resumed"]["session"] == first["session"] == second["session"]


def test_a_harness_that_cannot_is_refused_before_anything_starts(here: World) -> None:
    route = {"host": "box", "harness": "goose", "provider": "rehearsal-x", "model": "rehearsal-small"}
    batch = here.batch("refused", [{"id": "a", "instruction": NOVEL, "route": route}], resume_session=True)
    done = here.run(batch)
    assert done.code == 2
    assert "tasks[0].resume_session goose cannot go on with a session" in done.err.replace(":", "")
    assert "claude-code or codex" in done.err
    assert not list(here.state.glob("batches/refused-*"))

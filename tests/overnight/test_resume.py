"""Which attempt goes on with a session, what it is asked then, and what a batch file may say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from overnight.batchfile import load
from overnight.events import Act, AgentEvent
from overnight.failures import RULES, BadInput, FailureKind, Retry
from overnight.harnesses import HARNESSES
from overnight.morning import run_markdown
from overnight.plan import COMMIT_REQUEST, RunPlan
from overnight.report import RunReport
from overnight.resume import go_on, resumption
from overnight.session import Resumed, session_id
from overnight.transcript import Transcript
from tests.overnight.batchfiles import changed, written
from tests.overnight.samples import OLD, ROUTE, batch, planner, proven, run, task

K = FailureKind
ID = "6795d3fc-b2b6-4aa0-9cb5-60eb8f97e25c"
HOSTILE = (
    "",
    "-x-as-a-flag",
    "--resume=1",
    "a b c d e f",
    "../../../../etc",
    "a/b/c/d/e",
    "x" * 65,
    "abc",
    "id\nid-id",
)


def ended(kind: FailureKind = K.HARNESS_CRASHED, **changes: Any) -> RunReport:
    return run(**{"state": "failed", "failure": proven(kind), "session": ID, **changes})


def resumed(last: RunReport, **changes: Any) -> Resumed | None:
    return resumption(task(**{"resume_session": True, **changes}), last)


def next_plan(last: RunReport, **changes: Any) -> RunPlan:
    asked = task(**{"resume_session": True, **changes})
    asked = asked.model_copy(update={"resumed": resumption(asked, last)})
    return planner(batch(asked)).resolve(asked, 2, None)


@pytest.mark.parametrize(
    "kind", [kind for kind, rule in RULES.items() if rule.retry is Retry.FRESH and kind != K.LOOPING]
)
def test_what_earns_a_fresh_attempt_is_gone_on_with(kind: FailureKind) -> None:
    assert resumed(ended(kind)) == Resumed(run_id=ended().run_id, after=kind, session=ID)


@pytest.mark.parametrize("kind", [K.OVERLOADED, K.PROVIDER_MUTE, K.NETWORK, K.RATE_LIMITED])
def test_so_is_what_a_provider_did(kind: FailureKind) -> None:
    assert resumed(ended(kind)) == Resumed(run_id=ended().run_id, after=kind, session=ID)


def test_it_is_opt_in() -> None:
    assert resumed(ended(), resume_session=False) is None


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (ended(host="old-box"), f"that was {OLD}"),
        (ended(model="glm-4.7"), "that was claude-code on box with glm-4.7 of zai"),
        (ended(provider="deepseek"), "that was claude-code on box with glm-5.2 of deepseek"),
        (ended(harness="codex"), "that was codex on box with glm-5.2 of zai"),
        (ended(session=None), "it told no session id"),
        (ended(K.LOOPING), "it went in circles"),
    ],
)
def test_what_cannot_be_gone_on_with_begins_afresh_and_says_why(last: RunReport, why: str) -> None:
    found = resumed(last)
    assert found is not None
    assert (found.session, found.why) == (None, why)
    plan = next_plan(last)
    assert plan.argv[-1] == f"Add --shout{COMMIT_REQUEST}"
    assert not any("--resume" in part for part in plan.argv)


def test_a_session_that_the_agent_died_of_is_not_tried_again() -> None:
    before = Resumed(run_id="r.1", after=K.WENT_QUIET, session=ID)
    found = resumed(ended(K.HARNESS_CRASHED, resumed=before))
    assert found is not None
    assert (found.session, found.why) == (None, "going on with it had ended as harness-crashed")
    again = resumed(ended(K.NO_COMMIT, resumed=before))
    assert again is not None
    assert again.session == ID


def test_both_ways_to_start_are_planned_and_the_way_is_taken_once_it_is_known() -> None:
    plan = next_plan(ended(K.NO_COMMIT), told="\n\nThe check said no").located("/opt/bin/claude")
    assert plan.resume is not None
    assert plan.argv[-1] == f"Add --shout\n\nThe check said no{COMMIT_REQUEST}"
    on = plan.going_on(plan.resume.what)
    assert on.argv[0] == "/opt/bin/claude"
    assert f"--resume={ID}" in on.argv
    assert on.argv[-1] == f"{go_on(plan.resume.what)}\n\nThe check said no{COMMIT_REQUEST}"
    assert "committed nothing" in on.argv[-1]
    assert on.shown()["resumed"]["session"] == ID
    not_so = plan.going_on(plan.resume.what.afresh("its folder is gone"))
    assert not_so.argv == plan.argv
    assert len({each.digest for each in (plan, on, not_so)}) == 3


def test_a_first_attempt_shows_nothing_of_it() -> None:
    (first,) = planner(batch(task(resume_session=True))).check()
    assert first.resume is None
    assert "resumed" not in first.shown()


@pytest.mark.parametrize("told", HOSTILE)
def test_no_other_text_becomes_an_id(told: str) -> None:
    assert session_id(told) is None
    transcript = Transcript()
    transcript.add_events(0.0, [AgentEvent(Act.INIT, session=told)])
    assert transcript.session is None
    with pytest.raises(ValidationError):
        ended(session=told)


@pytest.mark.parametrize("told", [ID, "ses_dd7727068ffe0NUUEeQee4vbm8", "c89d7e2aa98c18dd"])
def test_what_agents_call_their_sessions_is_one(told: str) -> None:
    transcript = Transcript()
    transcript.add_events(0.0, [AgentEvent(Act.INIT, session=told), AgentEvent(Act.SPOKE, text="hi")])
    assert transcript.session == told


def test_a_harness_that_cannot_is_refused_with_those_that_can() -> None:
    route = ROUTE.model_copy(update={"harness": "goose"})
    with pytest.raises(BadInput) as refused:
        planner(batch(task(route=route, resume_session=True))).check()
    assert refused.value.field == "tasks[0].resume_session"
    assert "goose cannot go on with a session: it keeps the path of the earlier work tree" in refused.value.problem
    assert refused.value.mend == "Leave it out, or use claude-code or codex or copilot or pi or qwen or scripted"
    planner(batch(task(route=route))).check()


def test_so_is_one_that_only_stands_in_for_another() -> None:
    other = ROUTE.model_copy(update={"harness": "opencode"})
    with pytest.raises(BadInput, match="opencode cannot go on"):
        planner(batch(task(routes=(ROUTE, other), resume_session=True))).check()


def test_a_task_s_own_word_goes_over_the_defaults(tmp_path: Path) -> None:
    data = changed("defaults/resume_session", True)
    data["tasks"][0]["resume_session"] = False
    found = {each.id: each.resume_session for each in load([written(tmp_path, data)], {}).tasks}
    assert sorted(found.values()) == [False, *[True] * (len(found) - 1)]
    assert not load([written(tmp_path, changed("name", "other"))], {}).tasks[0].resume_session


def test_markdown_says_it_too(tmp_path: Path) -> None:
    route = "route: {host: box, harness: claude-code, provider: zai, model: glm-5.2}"
    (tmp_path / "a.md").write_text(f"---\n{route}\nrepo: .\nbase: main\nresume_session: true\n---\nDo it\n")
    assert load([tmp_path / "a.md"], {}).tasks[0].resume_session


def test_the_report_says_it_in_one_phrase() -> None:
    on = Resumed(run_id="b.a.1", after=K.WENT_QUIET, session=ID)
    assert f"It went on with the session of b.a.1 ({ID}), in a copy of its work tree." in run_markdown(run(resumed=on))
    not_so = on.afresh("it told no session id")
    words = "It began afresh, without the session of b.a.1: it told no session id."
    assert words in run_markdown(run(resumed=not_so))
    assert "session" not in run_markdown(run())


@pytest.mark.parametrize("name", [name for name, each in HARNESSES.items() if not isinstance(each.SESSIONS, str)])
def test_the_id_is_read_from_the_stream_and_from_nothing_else(name: str) -> None:
    line = {
        "claude-code": '{"type":"system","subtype":"init","session_id":"%s"}',
        "codex": '{"type":"thread.started","thread_id":"%s"}',
        "copilot": '{"type":"result","sessionId":"%s","exitCode":0}',
        "pi": '{"type":"session","id":"%s"}',
        "qwen": '{"type":"system","subtype":"init","session_id":"%s"}',
        "scripted": '{"type":"init","session":"%s"}',
    }[name]
    said = HARNESSES[name].reader().feed("out", f"{line % ID}\n".encode())
    assert [event.session for event in said if event.session] == [ID]
    prose = f'{{"type":"assistant","message":{{"content":[{{"type":"text","text":"session_id {ID}"}}]}}}}\n'
    assert not any(event.session for event in HARNESSES[name].reader().feed("out", prose.encode()))

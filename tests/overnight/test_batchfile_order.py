"""Routes as a list, what comes after what, and the deadline: what a batch file may say, and how it is refused."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from overnight.batchfile import load
from overnight.deadline import deadline_at
from overnight.failures import BadInput
from overnight.spec import BatchSpec
from tests.overnight.batchfiles import changed, refusal, written

DEEPSEEK = {"provider": "deepseek", "model": "deepseek-chat"}


def read(tmp_path: Path, data: dict[str, Any]) -> BatchSpec:
    return load([written(tmp_path, data)], {})


def test_a_list_is_an_order_of_preference_and_takes_the_rest_from_defaults(tmp_path: Path) -> None:
    batch = read(tmp_path, changed("tasks/0/route", [{"model": "glm-4.7"}, DEEPSEEK]))
    task = batch.tasks[0]
    assert [(r.host, r.provider, r.model) for r in task.routes] == [
        ("box", "zai", "glm-4.7"),
        ("box", "deepseek", "deepseek-chat"),
    ]
    assert task.route == task.routes[0]
    assert task.ordered("any") == task.routes
    assert len(batch.routes) == 2, "the second task's is the list's second"


def test_a_task_s_own_words_go_over_each_route_of_the_defaults(tmp_path: Path) -> None:
    data = changed("defaults/route", [{"host": "box", "harness": "claude-code", **DEEPSEEK}] * 1)
    data["tasks"] = [{"id": "a", "instruction": "x", "route": {"harness": "goose"}}]
    assert [r.harness for r in read(tmp_path, data).tasks[0].routes] == ["goose"]


def test_weights_are_drawn_alike_for_one_batch_and_as_often_as_they_say(tmp_path: Path) -> None:
    routes = {"any_of": [{"weight": 3}, {**DEEPSEEK, "weight": 1}]}
    task = read(tmp_path, changed("tasks/0/route", routes)).tasks[0]
    assert task.ordered("b1") == task.ordered("b1")
    assert set(task.ordered("b1")) == set(task.routes)
    drawn = Counter(task.ordered(f"batch {i}")[0].provider for i in range(2000))
    assert 0.7 < drawn["zai"] / 2000 < 0.8


@pytest.mark.parametrize(
    ("place", "value", "field", "problem"),
    [
        ("tasks/0/route", [], "tasks[0].route", "is an empty list; name a route"),
        ("tasks/0/route", [{}, {}], "tasks[0].route[1]", "is claude-code on box with glm-5.2 of zai once more"),
        ("tasks/0/route", [{"hots": "box"}], "tasks[0].route[0].hots", "unknown key"),
        ("tasks/0/route", [{}, {"host": "bx"}], "tasks[0].route[1].host", "unknown host 'bx'"),
        ("tasks/0/route", {"any_of": [{}], "host": "box"}, "tasks[0].route", "any_of stands beside"),
        ("tasks/0/route", {"any_of": [{"weight": 0}]}, "tasks[0].route.any_of[0].weight", "greater than 0"),
        ("tasks/0/after", ["secnd"], "tasks[0].after[0]", "no task 'secnd'"),
        ("tasks/0/after", ["first"], "tasks[0].after", "goes in a circle: first after first"),
        ("tasks/0/stacked", True, "tasks[0].stacked", "needs exactly one task under after, there are 0"),
        ("deadline", "7 o'clock", "deadline", "is no time of day and no moment"),
        ("priority", 3, "priority", "unknown key"),
        ("tasks/0/priority", True, "tasks[0].priority", "is true or false"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, place: str, value: Any, field: str, problem: str) -> None:
    refused = refusal(written(tmp_path, changed(place, value)))
    assert (refused.where, refused.field) == (str(tmp_path / "night.yaml"), field)
    assert problem in refused.problem
    assert refused.mend


def test_a_circle_is_shown_whole(tmp_path: Path) -> None:
    data = changed("tasks/0/after", ["second"])
    data["tasks"][1]["after"] = ["first"]
    assert refusal(written(tmp_path, data)).problem in (
        "goes in a circle: first after second after first",
        "goes in a circle: second after first after second",
    )


@pytest.mark.parametrize("repo", ["https://example.com/app.git", "other.git"])
def test_a_stack_needs_one_repository_by_its_path(tmp_path: Path, repo: str) -> None:
    data = changed("tasks/1/after", ["first"])
    data["tasks"][1] |= {"stacked": True, "repo": repo}
    assert refusal(written(tmp_path, data)).field == "tasks[1].stacked"
    del data["tasks"][1]["repo"]
    assert read(tmp_path, data).tasks[1].stacked


def test_markdown_tasks_may_come_after_one_another(tmp_path: Path) -> None:
    front = "repo: app\nroute: [{host: box, harness: claude-code, provider: zai, model: glm-5.2}]\n"
    for name, more in (("one", ""), ("two", "after: [one]\ndeadline: '07:00'\n")):
        (tmp_path / f"{name}.md").write_text(f"---\n{front}{more}---\n\nDo it\n")
    batch = load([tmp_path / "one.md", tmp_path / "two.md"], {})
    assert (batch.tasks[1].after, batch.deadline, set(batch.hosts)) == (("one",), "07:00", {"box"})
    assert refusal(tmp_path / "two.md").field == "two.md.after[0]"


def test_what_is_started_alone_waits_for_nothing_that_is_left_out(tmp_path: Path) -> None:
    data = changed("tasks/1/after", ["first"])
    batch = read(tmp_path, data)
    assert [task.after for task in batch.only(["second"]).tasks] == [()]
    assert [task.after for task in batch.only(["first", "second"]).tasks] == [(), ("first",)]
    data["tasks"][1]["stacked"] = True
    with pytest.raises(BadInput, match="second is stacked on first, which is left out"):
        read(tmp_path, data).only(["second"])


def test_a_time_of_day_is_the_next_one_after_the_batch_began() -> None:
    begun = datetime(2026, 11, 29, 22, 30).astimezone()
    assert deadline_at("07:00", begun, "f") == datetime(2026, 11, 30, 7, 0).astimezone()
    assert deadline_at("22:31", begun, "f") - begun == timedelta(minutes=1)
    assert deadline_at("22:30", begun, "f") == datetime(2026, 11, 30, 22, 30).astimezone()
    assert deadline_at("2026-12-01T07:00+01:00", begun, "f") == datetime(2026, 12, 1, 6, 0, tzinfo=UTC)


def test_what_a_batch_may_spend_can_stand_in_one_markdown_file_of_several(tmp_path: Path) -> None:
    front = "repo: app\nroute: {host: box, harness: claude-code, provider: zai, model: glm-5.2}\n"
    for name, more in (("one", ""), ("two", "budget: {max_tokens: 1000}\npeak: avoid\n")):
        (tmp_path / f"{name}.md").write_text(f"---\n{front}{more}---\n\nDo it\n")
    batch = load([tmp_path / "one.md", tmp_path / "two.md"], {})
    assert (batch.budget.max_tokens, batch.peak) == (1000, "avoid")
    (tmp_path / "one.md").write_text(f"---\n{front}budget: {{max_tokens: 1}}\n---\n\nDo it\n")
    with pytest.raises(BadInput, match="differs from an earlier file"):
        load([tmp_path / "one.md", tmp_path / "two.md"], {})

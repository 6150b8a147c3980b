"""Words that Prefect's lists are sorted and searched by."""

from __future__ import annotations

from tasks.marks import run_name, tags_of
from tasks.pages import key
from tests.overnight.samples import ROUTE, batch, plan


def test_a_task_run_is_named_after_batch_task_attempt_and_stage() -> None:
    class Night:
        def __init__(self) -> None:
            self.batch = batch()

    assert run_name("monitor").format(night=Night(), plan=plan()) == "batch night / shout #1 monitor"


def test_a_tag_is_there_once_however_many_routes_share_it() -> None:
    other = ROUTE.model_copy(update={"provider": "deepseek", "model": "deepseek-v4-pro"})
    assert tags_of([ROUTE, other]) == {"provider:zai", "provider:deepseek", "harness:claude-code", "host:box"}


def test_a_key_is_what_prefect_takes() -> None:
    assert key("tonight", "task", "fix_the.Parser") == "tonight-task-fix-the-parser"
    assert key("doctor", "") == "doctor"

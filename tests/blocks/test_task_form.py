"""A task typed into the form says what a batch file would."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks import SSHHost
from blocks.task_form import TaskForm
from flows.prepare import inline
from overnight import lockfile
from overnight.failures import BadInput
from tests.overnight.nights import MODEL, make_lock, make_repo

HOST = SSHHost(address="10.0.0.5", user="dev", key_file=__file__, host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA")


def form(repo: Path, **more: object) -> TaskForm:
    route = f"claude-code / rehearsal / {MODEL}"
    return TaskForm.model_validate({"instruction": "Add it", "repo": str(repo), "host": HOST, "route": route, **more})


def test_it_becomes_a_task_of_a_batch(tmp_path: Path) -> None:
    make_repo(tmp_path / "repo")
    lock = make_lock(tmp_path / "lock.json", "http://127.0.0.1:1")
    prepared = inline(
        "evening", [form(tmp_path / "repo", verify="make", approve=True)], lock, {"PATH": "/usr/bin:/bin"}
    )
    (task,) = prepared.batch.tasks
    assert (task.id, task.route.host, task.verify, task.approve) == ("add-it", "10-0-0-5", "make", True)
    assert prepared.batch.hosts["10-0-0-5"] == HOST.spec()


def test_what_is_wrong_is_named_by_its_field_of_the_form(tmp_path: Path) -> None:
    lock = make_lock(tmp_path / "lock.json", "http://127.0.0.1:1")
    with pytest.raises(BadInput) as refused:
        inline("evening", [form(tmp_path / "none")], lock, {"PATH": "/usr/bin:/bin"})
    assert (refused.value.where, refused.value.field) == ("parameters", "tasks[0].repo")


def test_the_form_offers_the_routes_of_the_lock_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lockfile.LOCK_VARIABLE, str(make_lock(tmp_path / "lock.json", "http://127.0.0.1:1")))
    offered = TaskForm.model_json_schema()["properties"]["route"]["enum"]
    assert {choice.split(" / ")[1] for choice in offered} == {"rehearsal"}

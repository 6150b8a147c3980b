"""A task typed into the form says what a batch file would."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from blocks import SSHHost
from blocks.task_form import TaskForm
from flows.prepare import inline
from flows.single import single
from overnight import lockfile
from overnight.failures import BadInput
from overnight.handover import Deliver, Guards
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


def test_what_guards_and_delivery_are_given_reach_the_task(tmp_path: Path) -> None:
    make_repo(tmp_path / "repo")
    lock = make_lock(tmp_path / "lock.json", "http://127.0.0.1:1")
    guards, deliver = Guards(size="refuse", allow_paths=("src/**",)), Deliver(how="push", remote="/srv/git/up.git")
    typed = form(tmp_path / "repo", guards=guards, deliver=deliver, verify_twice=True, ask_for_commit=False)
    (task,) = inline("evening", [typed], lock, {"PATH": "/usr/bin:/bin"}).batch.tasks
    assert (task.guards, task.deliver, task.verify_twice, task.ask_for_commit) == (guards, deliver, True, False)


def test_a_task_of_a_batch_can_be_given_what_a_single_one_can() -> None:
    """But for what is the batch's own, or whoever carries it out's."""
    of_the_batch = {"author", "ceilings", "resume", "part_of", "attempt", "told", "resumed", "below"}
    of_the_worker = {"host_name", "state", "lock"}
    alone = {"id" if p.name == "name" else p.name: p for p in inspect.signature(single.fn).parameters.values()}
    assert set(TaskForm.model_fields) == set(alone) - of_the_batch - of_the_worker
    for name, given in TaskForm.model_fields.items():
        assert given.is_required() == (alone[name].default is inspect.Parameter.empty)
        assert given.is_required() or given.default == alone[name].default

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from blocks.ssh_host import SSHHost
from flows.prepare import prepare, record, state_directory, with_hosts
from overnight import lockfile
from overnight.failures import BadInput
from overnight.lockfile import DEFAULT_LOCK

PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real repository, a key file, and a batch that names both."""
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@x", "-C", str(tmp_path / "app")]
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / "app")], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    (tmp_path / "id").write_text("a key")
    return tmp_path


def written(folder: Path, **changes: Any) -> Path:
    """A batch of two tasks; `changes` go into its defaults, or replace `hosts`."""
    route = {"host": "box", "harness": "claude-code", "provider": "zai", "model": "glm-5.2"}
    box = {"address": "10.0.0.5", "user": "dev", "key_file": "id"}
    hosts = changes.pop("hosts", {"box": box})
    data = {
        "name": "night",
        "hosts": hosts,
        "defaults": {"repo": "app", "base": "main", "route": route, **changes},
        "tasks": [{"id": name, "instruction": "x"} for name in ("one", "two")],
    }
    path = folder / "night.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(data, file)
    return path


def refusal(*files: Path, lock: Path | None = None, only: tuple[str, ...] = ()) -> BadInput:
    with pytest.raises(BadInput) as refused:
        prepare(files, lock, only, PATH)
    return refused.value


def test_a_good_batch_is_planned_and_nothing_is_written(folder: Path) -> None:
    path = written(folder)
    before = sorted(folder.rglob("*"))
    found = prepare([path], None, [], PATH)
    assert [plan.task_id for plan in found.plans] == ["one", "two"]
    assert {plan.batch_id for plan in found.plans} == {found.batch_id}
    assert re.fullmatch(r"night-\d{8}-\d{6}-[0-9a-f]{4}", found.batch_id)
    assert found.lock_path == DEFAULT_LOCK
    assert sorted(folder.rglob("*")) == before


def test_only_some_of_the_tasks(folder: Path) -> None:
    path = written(folder)
    assert [plan.task_id for plan in prepare([path], None, ["two"], PATH).plans] == ["two"]
    error = refusal(path, only=("twoo",))
    assert (error.where, error.field, error.mend) == (str(path), "--only", "Did you mean two?")


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"repo": "nowhere"}, "tasks[0].repo", "no folder "),
        ({"repo": "id"}, "tasks[0].repo", "no folder "),
        ({"repo": "x" * 5000}, "tasks[0].repo", "no folder "),
        ({"base": "develop"}, "tasks[0].base", "no commit 'develop' in "),
        ({"base": "main:app"}, "tasks[0].base", "no commit 'main:app' in "),
        ({"repo": "."}, "tasks[0].repo", " is no git repository"),
        ({"limits": {"quiet_s": 10}}, "tasks[0].limits.quiet_s", "quiet_s is 10 s"),
        (
            {"route": {"host": "box", "harness": "claude-code", "provider": "zia", "model": "x"}},
            None,
            "unknown provider",
        ),
        ({"hosts": {"box": {"address": "a", "user": "u", "key_file": "no"}}}, "hosts.box.key_file", "no file "),
        ({"hosts": {"box": {"address": "a", "user": "u", "key_file": "."}}}, "hosts.box.key_file", "no file "),
    ],
)
def test_what_cannot_work_is_refused(folder: Path, changes: Any, field: str | None, problem: str) -> None:
    path = written(folder, **changes)
    error = refusal(path)
    assert (error.where, error.field) == (str(path), field or "tasks[0].route.provider")
    assert problem in error.problem
    assert error.mend


def test_a_repository_without_git_to_read_it_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="git: is not on PATH"):
        prepare([written(folder)], None, [], {"PATH": str(folder)})


def test_a_url_is_left_to_the_host(folder: Path) -> None:
    path = written(folder, repo="https://git.example/app.git", base="develop")
    assert prepare([path], None, [], PATH).plans[0].repo == "https://git.example/app.git"


def test_a_lock_that_is_not_there_is_refused(folder: Path) -> None:
    error = refusal(written(folder), lock=folder / "none.json")
    assert (error.where, error.mend) == (str(folder / "none.json"), "Give the lock with --lock PATH")


def test_harnesses_of_one_s_own_are_read_before_the_batch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "crush.toml").write_text("nonsense = 1\n")
    environ = {"PATH": os.defpath, "OVERNIGHT_HARNESSES": str(tmp_path / "mine")}
    with pytest.raises(BadInput, match=r"crush\.toml: name: Field required"):
        prepare([written(folder)], None, (), environ)


def test_two_batches_of_one_second_have_different_ids(folder: Path) -> None:
    path = written(folder)
    assert len({prepare([path], None, [], PATH).batch_id for _ in range(5)}) == 5


def test_a_recorded_batch_can_be_resumed(folder: Path) -> None:
    prepared = prepare([written(folder)], None, [], PATH)
    ledger = record(prepared, folder / "state")
    assert ledger.directory == folder / "state" / "batches" / prepared.batch_id
    assert ledger.reopen()[0] == prepared.batch
    assert lockfile.load(ledger.directory / "lock.json") == lockfile.load()


@pytest.mark.full
@pytest.mark.usefixtures("prefect_api")
def test_a_key_file_of_a_block_is_looked_for_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"
    SSHHost(address="10.0.0.5", user="dev", key_file="~/id", host_key=host_key).save("spare", overwrite=True)
    prepared = prepare([written(folder, hosts={"box": {"block": "spare", "slots": 9}})], None, [], PATH)
    monkeypatch.setenv("HOME", str(folder))
    loaded = with_hosts(prepared)
    assert (loaded.batch.hosts["box"].key_file, loaded.batch.hosts["box"].slots) == (folder / "id", 9)
    assert record(loaded, folder / "state").reopen()[0] == loaded.batch
    monkeypatch.setenv("HOME", str(folder / "app"))
    with pytest.raises(BadInput, match=r"hosts\.box\.key_file: no file "):
        with_hosts(prepared)


def test_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert state_directory(Path("here"), {"XDG_STATE_HOME": "/x"}) == tmp_path / "here"
    assert state_directory(Path("~/s"), {}) == Path("/home/me/s").resolve()
    assert state_directory(None, {"XDG_STATE_HOME": "/x"}) == Path("/x/overnight")
    assert state_directory(None, {"XDG_STATE_HOME": ""}) == Path("/home/me/.local/state/overnight")
    assert state_directory(None, {}) == Path("/home/me/.local/state/overnight")


def test_a_batch_keeps_the_lock_that_an_overlay_made(folder: Path) -> None:
    overlay = folder / "overnight.lock.json"
    models: dict[str, Any] = {"models": {"rehearsal-own": {}}}
    overlay.write_text(json.dumps({"schema": 1, "as_of": "2026-11-22", "providers": {"rehearsal": models}}))
    prepared = prepare([written(folder)], overlay, [], PATH)
    kept = lockfile.load(record(prepared, folder / "state").directory / "lock.json")
    assert "rehearsal-own" in kept.providers["rehearsal"].models

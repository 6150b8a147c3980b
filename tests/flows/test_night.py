"""Whole nights by the command a user types: real agents, real sshd, real git, a private Prefect server."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from flows.private_server import private_server
from overnight.rehearsal.agents import Agent
from tests.flows.world import CARELESS, COUNT, GREETING, IDLE, KEYS, ROOT, SLOW, WRITTEN, World, finished, world

pytestmark = pytest.mark.full
CLAUDE = {"harness": "claude-code", "provider": "rehearsal", "model": "rehearsal-large"}
GOOSE = {"harness": "goose", "provider": "rehearsal-x", "model": "rehearsal-small"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, real_agent: Callable[[str], Agent]) -> Iterator[World]:
    agents = {real_agent(name).path.parent for name in ("claude-code", "goose")}
    assert len(agents) == 1
    with world(tmp_path_factory.mktemp("world"), agents.pop()) as made:
        yield made


@pytest.fixture(scope="module")
def night(here: World) -> tuple[World, dict[str, Any]]:
    """The issue's night: 5 tasks, 2 hosts, 2 providers, one route shut."""
    tasks: list[dict[str, Any]] = [
        {"id": "greet", "instruction": GREETING, "route": {"host": "loop"}, "verify": "test -f second.txt"},
        {"id": "count", "instruction": COUNT, "route": {"host": "box", **GOOSE}},
        {"id": "careless", "instruction": CARELESS, "route": {"host": "box"}, "limits": {"attempts": 1}},
        {"id": "greet-goose", "instruction": GREETING, "route": {"host": "loop", **GOOSE}},
        {"id": "story", "instruction": GREETING, "route": {"host": "box", "provider": "rehearsal-incident"}},
    ]
    batch = here.batch("tonight", tasks, route={"host": "loop", **CLAUDE})
    path = here.directory / "report.json"
    done = here.run(batch, "--json", path)
    assert done.code == 1, done.err
    return here, json.loads(path.read_text())


def run_of(report: dict[str, Any], task: str) -> dict[str, Any]:
    found: dict[str, Any] = [run for run in report["runs"] if run["task_id"] == task][-1]
    return found


def test_the_report_fits_its_published_schema(night: tuple[World, dict[str, Any]]) -> None:
    jsonschema.validate(night[1], json.loads((ROOT / "report.schema.json").read_text()))
    assert night[1]["counts"] == {"succeeded": 3, "failed": 1, "skipped": 1, "cancelled": 0, "lost": 0}


@pytest.mark.parametrize("task", ["greet", "count", "greet-goose"])
def test_commits_are_what_the_model_was_told_to_write(night: tuple[World, dict[str, Any]], task: str) -> None:
    here, report = night
    run = run_of(report, task)
    assert run["state"] == "succeeded"
    files = here.git("ls-tree", "-r", "--name-only", run["branch"]).decode().split()
    assert set(files) - {"app.py"} == ({"count.py"} if task == "count" else {"sub/greeting.txt", "second.txt"})
    for name in set(files) & set(WRITTEN):
        assert here.git("show", f"{run['branch']}:{name}") == WRITTEN[name].encode()
    assert [c["subject"] for c in run["commits"]] == (["Count"] if task == "count" else ["Add greeting", "Add second"])


def test_the_wrong_variable_is_named_before_any_task_ran_on_its_route(night: tuple[World, dict[str, Any]]) -> None:
    here, report = night
    (shut,) = [route for route in report["routes"] if route["state"] == "shut"]
    assert shut["provider"] == "rehearsal-incident"
    assert shut["failure"]["kind"] == "wrong-header"
    assert shut["failure"]["evidence"][0]["seen"] == (
        "provider rejects x-api-key, accepts the same key as Authorization: Bearer; harness claude-code sends "
        "Bearer from ANTHROPIC_AUTH_TOKEN; the lock sets ANTHROPIC_API_KEY"
    )
    story = run_of(report, "story")
    assert (story["state"], story["run_id"], story["attempt"]) == ("skipped", "", 0)
    assert not list((here.state / "batches").glob("*/runs/*story*"))


def test_a_claim_without_a_commit_is_no_success(night: tuple[World, dict[str, Any]]) -> None:
    here, report = night
    run = run_of(report, "careless")
    assert (run["state"], run["failure"]["kind"]) == ("failed", "no-commit")
    assert run["claims"] == "it reported success; there is no commit"
    assert run["leftovers"]["files"] == ["draft.txt"]
    assert here.git("show", f"{run['leftovers']['ref']}:draft.txt") == b"a draft\n"


def test_the_version_of_every_cli_is_recorded(night: tuple[World, dict[str, Any]]) -> None:
    versions = {run["harness"]: run["harness_version"] for run in night[1]["runs"] if run["run_id"]}
    assert versions == {"claude-code": "2.1.330", "goose": "1.52.0"}


def test_nothing_was_checked_out_here(night: tuple[World, dict[str, Any]]) -> None:
    here, _ = night
    assert here.git("status", "--porcelain") == b""
    assert here.git("rev-parse", "--abbrev-ref", "HEAD") == b"main\n"


def test_no_secret_anywhere(night: tuple[World, dict[str, Any]]) -> None:
    here, _ = night
    assert any("flows.batch" in word for word in here.argv_seen), "the watch of argv saw the batch itself"
    objects = here.git("cat-file", "--batch-all-objects", "--batch")
    database = sqlite3.connect(here.state / "prefect" / "prefect.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    for key in KEYS.values():
        assert not [word for word in here.argv_seen if key in word]
        assert key.encode() not in objects
        for folder in ("state", "loop-home", "box-home", "home", "app"):
            found = subprocess.run(
                ["grep", "-rlF", key, here.directory / folder], capture_output=True, text=True, check=False
            )
            assert found.stdout == ""


def test_no_process_is_left(night: tuple[World, dict[str, Any]]) -> None:
    here, _ = night
    mark = str(here.directory)
    left = [
        p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if any(mark in w for w in p.info["cmdline"] or ())
    ]
    ours = [argv for argv in left if not any("sshd" in word for word in argv)]
    assert ours == []
    assert not (here.state / "prefect" / "server.json").exists()


def test_prefect_recorded_every_stage(night: tuple[World, dict[str, Any]]) -> None:
    here, _ = night
    database = sqlite3.connect(here.state / "prefect" / "prefect.db")
    rows = database.execute("select name, state_type from task_run").fetchall()
    artifacts = {key for (key,) in database.execute("select key from artifact")}
    (flow,) = database.execute("select state_type from flow_run").fetchall()
    database.close()
    states = dict(rows)
    assert states["batch tonight / greet #1 outcome"] == "COMPLETED"
    assert states["batch tonight / careless #1 outcome"] == "FAILED"
    for stage in ("dispatch", "monitor", "collect"):
        assert states[f"batch tonight / count #1 {stage}"] == "COMPLETED"
    assert {
        "tonight-runs",
        "tonight-report",
        "tonight-task-greet",
        "tonight-task-story",
        "tonight-progress",
    } <= artifacts
    assert flow == ("FAILED",)


def test_every_route_shut_is_exit_code_3(here: World) -> None:
    batch = here.batch("shut", [{"id": "a", "instruction": GREETING}], route={"host": "loop", **CLAUDE})
    done = here.run(batch, OVERNIGHT_KEY_REHEARSAL="another-key-entirely")
    assert done.code == 3
    assert "auth-rejected" in done.out


def test_bad_input_is_exit_code_2_and_starts_nothing(here: World) -> None:
    before = set((here.state / "batches").glob("*"))
    batch = here.batch(
        "bad", [{"id": "a", "instruction": "x"}], route={"host": "loop", **CLAUDE, "model": "Rehearsal-Large"}
    )
    done = here.run(batch)
    assert done.code == 2
    assert done.err.splitlines()[:2] == [
        f"{batch}: tasks[0].route.model: unknown model of provider rehearsal 'Rehearsal-Large'",
        "  mend: Did you mean rehearsal-large or rehearsal-small?",
    ]
    assert set((here.state / "batches").glob("*")) == before


def test_a_prefect_api_that_does_not_answer_is_named_before_anything_starts(here: World) -> None:
    batch = here.batch("nowhere", [{"id": "a", "instruction": GREETING}], route={"host": "loop", **CLAUDE})
    done = here.run(batch, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.code == 2
    assert "PREFECT_API_URL: http://127.0.0.1:9/api" in done.err
    assert not list((here.state / "batches").glob("nowhere-*"))


def test_an_interrupted_batch_is_left_and_resumed_without_loss(here: World) -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "haiku", "instruction": SLOW},
        {"id": "idle", "instruction": IDLE, "limits": {"attempts": 1}},
    ]
    batch = here.batch("later", tasks, route={"host": "box", **CLAUDE})
    process = here.start(batch, "--on-interrupt", "detach", "--json", here.directory / "left.json")
    handle = _wait_for(here, "later-*/runs/*haiku*/handle.json")
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert done.code == 130, done.err
    left = run_of(json.loads((here.directory / "left.json").read_text()), "haiku")
    assert left["state"] == "cancelled"
    assert "left running on box" in left["failure"]["evidence"][0]["seen"]
    batch_id = handle.parents[2].name
    again = here.run("--resume", batch_id, "--json", here.directory / "again.json")
    assert again.code == 1, again.err
    run = run_of(json.loads((here.directory / "again.json").read_text()), "haiku")
    assert (run["state"], run["run_id"]) == ("succeeded", left["run_id"])
    starts = [call for call in here.provider.calls if call.turn == 1 and call.tools and not call.is_probe]
    assert len([c for c in starts if c.at.timestamp() > handle.stat().st_mtime]) <= 2, "the haiku was asked for once"


def test_an_interrupt_can_end_the_runs(here: World) -> None:
    batch = here.batch("ended", [{"id": "haiku", "instruction": SLOW}], route={"host": "loop", **CLAUDE})
    process = here.start(batch, "--on-interrupt", "cancel", "--json", here.directory / "ended.json")
    _wait_for(here, "ended-*/runs/*haiku*/handle.json")
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert done.code == 130, done.err
    run = run_of(json.loads((here.directory / "ended.json").read_text()), "haiku")
    assert (run["state"], run["failure"]["kind"]) == ("cancelled", "cancelled")
    assert not [
        p
        for p in psutil.process_iter(["environ"])
        if (p.info["environ"] or {}).get("OVERNIGHT_RUN_ID") == run["run_id"]
    ]


def test_a_killed_controller_loses_nothing(here: World) -> None:
    batch = here.batch("killed", [{"id": "haiku", "instruction": SLOW}], route={"host": "box", **CLAUDE})
    process = here.start(batch)
    handle = _wait_for(here, "killed-*/runs/*haiku*/handle.json")
    process.kill()
    process.communicate()
    again = here.run("--resume", handle.parents[2].name, "--json", here.directory / "killed.json")
    assert again.code == 0, again.err
    run = run_of(json.loads((here.directory / "killed.json").read_text()), "haiku")
    assert (run["state"], run["attempt"]) == ("succeeded", 1)


def test_saved_blocks_are_used_and_hold_no_key_in_clear(here: World) -> None:
    """Key and host as blocks of a Prefect API that is configured; none of it in the environment or the batch file."""
    with private_server(here.directory / "own-api", here.env) as server:
        api = {"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": server.auth}
        overnight = str(Path(sys.executable).with_name("overnight"))
        add = [overnight, "credentials", "add", "rehearsal", "--from-stdin"]
        env = {**here.env, **api}
        saved = subprocess.run(add, input=KEYS["rehearsal"], env=env, text=True, check=True, capture_output=True)
        assert KEYS["rehearsal"] not in saved.stdout + saved.stderr
        fields = {**here.hosts["loop"], "slots": 2}
        save = f"from blocks.ssh_host import SSHHost; SSHHost(**{fields!r}).save('saved-loop')"
        subprocess.run([sys.executable, "-c", save], env=env, cwd=ROOT, check=True)
        batch = here.batch("blocks", [{"id": "greet", "instruction": GREETING}], route={"host": "saved", **CLAUDE})
        batch.write_text(batch.read_text().replace('"loop": {', '"saved": {"block": "saved-loop"}, "loop": {'))
        done = here.run(batch, **api, OVERNIGHT_KEY_REHEARSAL="not-the-key-that-works")
        assert done.code == 0, done.err
        with server.client() as client:
            runs = client.post("/flow_runs/filter", json={}).json()
        assert [run["state"]["name"] for run in runs] == ["Completed"]
    assert "starting a private server" not in done.err
    assert subprocess.run(["grep", "-rlF", KEYS["rehearsal"], here.directory / "own-api"], check=False).returncode == 1


def test_a_dry_run_of_markdown_tasks_shows_every_plan_and_no_key(here: World) -> None:
    hosts, route = json.dumps({"loop": here.hosts["loop"]}), json.dumps({"host": "loop", **CLAUDE})
    files = [here.directory / name for name in ("first.md", "second.md")]
    for path in files:
        path.write_text(f"---\nhosts: {hosts}\nrepo: {here.repo}\nbase: main\nroute: {route}\n---\n\n--- {GREETING}\n")
    done = here.run(*files, "--dry-run", "--only", "second")
    assert done.code == 0, done.err
    (plan,) = json.loads(done.out)
    assert plan["task_id"] == "second"
    assert plan["argv"][-1].startswith(f"--- {GREETING}")
    assert plan["env"]["ANTHROPIC_AUTH_TOKEN"] == "<provider:rehearsal>"
    assert plan["env"]["ANTHROPIC_API_KEY"] == ""
    assert plan["env"]["CLAUDE_CODE_OAUTH_TOKEN"].startswith("absent: ")
    assert not any(key in done.out for key in KEYS.values())


def _wait_for(here: World, pattern: str) -> Path:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if found := list((here.state / "batches").glob(pattern)):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {pattern}")

"""The bootstrap: everything is there after one run, and a second one undoes nothing that a user did since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from ruamel.yaml import YAML

from deployments.automations import SILENCE_S, crashed_runs
from deployments.deploy import FILE
from tests.overnight.nights import make_lock, make_repo

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ["single/single", "batch/batch", "batch/overnight", "doctor/doctor", "collect/collect", "gc/gc"]
_MODULE = ("-m", "deployments.bootstrap")
Bootstrap = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bootstrap")


@pytest.fixture(scope="module")
def lock(folder: Path) -> Path:
    """A lock in which one provider publishes what it allows at once."""
    path = make_lock(folder / "lock.json", "http://127.0.0.1:1")
    text = json.loads(path.read_text())
    provenance = {"source": "a test", "date": "2026-11-22", "confidence": "measured"}
    text["providers"]["rehearsal"]["limits"] = {"concurrent": 7, "provenance": provenance}
    path.write_text(json.dumps(text))
    return path


@pytest.fixture(scope="module")
def bootstrap(prefect_api: None, lock: Path) -> Bootstrap:
    def run(*args: str | Path, form: tuple[str, ...] = _MODULE) -> subprocess.CompletedProcess[str]:
        return _run(*form, *args, PREFECT_API_URL=PREFECT_API_URL.value(), OVERNIGHT_LOCK=str(lock))

    return run


@pytest.fixture(scope="module")
def first(bootstrap: Bootstrap) -> list[str]:
    done = bootstrap(form=("deployments/bootstrap.py",))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def client(first: list[str]) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def _run(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    # PYTHONPATH: the file form finds our packages only where the project is installed, which a test must not need
    whole = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), **env}
    argv = [sys.executable, *map(str, args)]
    return subprocess.run(argv, cwd=ROOT, env=whole, capture_output=True, text=True, timeout=120, check=False)


def test_without_an_api_nothing_is_registered_nowhere() -> None:
    done = _run("-m", "deployments.bootstrap")
    assert (done.returncode, done.stdout) == (2, "")
    assert "PREFECT_API_URL" in done.stderr


def test_an_api_that_does_not_answer_is_named() -> None:
    done = _run("-m", "deployments.bootstrap", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.returncode, done.stdout) == (2, "")
    assert "http://127.0.0.1:9/api" in done.stderr


def test_the_file_holds_no_path_of_a_machine_and_every_flow_beats_thrice_before_it_is_dead() -> None:
    whole = YAML(typ="safe").load(FILE.read_text())
    assert whole["pull"] == []
    for entry in whole["deployments"]:
        assert "/" not in entry["entrypoint"]
        beat_s = float(entry["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
        assert 3 * beat_s <= SILENCE_S
        assert "overnight" in entry["tags"], "only so tagged runs are looked after"


@pytest.mark.full
def test_the_first_run_makes_everything(first: list[str], client: SyncPrefectClient, lock: Path) -> None:
    assert [line for line in first if line.endswith("created")] == [
        "work pool overnight: created",
        *(f"deployment {name}: created" for name in DEPLOYMENTS),
        "automation overnight: crashed runs: created",
    ]
    assert "limit overnight-provider-rehearsal: created, 7" in first
    assert first[-1].startswith("nightly: none")
    for name in DEPLOYMENTS:
        found = client.read_deployment_by_name(name)
        assert not found.path
        assert not found.pull_steps
        assert found.enforce_parameter_schema
        assert found.job_variables["stream_output"] is False
        assert found.job_variables["env"]["OVERNIGHT_LOCK"] == str(lock)
        assert not any(schedule.active for schedule in found.schedules)
    night = client.read_deployment_by_name("batch/overnight")
    assert night.parameters == {"late_s": 14400}
    assert night.global_concurrency_limit is not None
    assert night.global_concurrency_limit.limit == 1


@pytest.mark.full
def test_the_form_of_single_offers_the_routes_of_the_lock(client: SyncPrefectClient, lock: Path) -> None:
    schema = client.read_deployment_by_name("single/single").parameter_openapi_schema
    assert schema is not None
    routes = schema["properties"]["route"]["enum"]
    assert any("rehearsal" in route for route in routes)


@pytest.mark.full
@pytest.mark.usefixtures("first")
def test_the_second_run_changes_nothing(bootstrap: Bootstrap) -> None:
    said = bootstrap().stdout
    assert "created" not in said
    assert "updated" not in said


@pytest.mark.full
def test_what_a_user_changed_stays(bootstrap: Bootstrap, client: SyncPrefectClient) -> None:
    name = "overnight-provider-rehearsal"
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=2))
    found = client.read_deployment_by_name("batch/overnight")
    (schedule,) = found.schedules
    theirs = CronSchedule(cron="15 3 * * 1-5", timezone="Asia/Shanghai")
    client.update_deployment_schedule(found.id, schedule.id, active=True, schedule=theirs)
    client.update_deployment(found.id, DeploymentUpdate(parameters={"files": ["/srv/theirs.yaml"], "late_s": 60}))
    client.update_deployment(found.id, DeploymentUpdate(tags=["theirs"]))
    (crashed,) = client.read_automations_by_name(crashed_runs().name)
    client.pause_automation(crashed.id)

    said = bootstrap().stdout
    assert f"limit {name}: unchanged, 2 on the server, 7 in the lock" in said
    assert "deployment batch/overnight: updated: tags" in said
    assert "nightly: /srv/theirs.yaml, cron 15 3 * * 1-5 Asia/Shanghai" in said
    assert client.read_global_concurrency_limit_by_name(name).limit == 2
    after = client.read_deployment_by_name("batch/overnight")
    assert after.parameters == {"files": ["/srv/theirs.yaml"], "late_s": 60}
    assert (after.schedules[0].schedule, after.schedules[0].active) == (theirs, True)
    assert not client.read_automations_by_name(crashed_runs().name)[0].enabled


@pytest.mark.full
def test_a_mistake_is_refused_before_anything_changes(bootstrap: Bootstrap, first: list[str], folder: Path) -> None:
    for args, words in (
        (("--nightly", folder / "missing.yaml"), "missing.yaml"),
        (("--at", "25:00"), "'25:00' is no time of day"),
        (("--timezone", "Europe/Berlyn"), "Europe/Berlin"),
        (("--notify", "slack-webhook/nobody"), "no saved block 'slack-webhook/nobody'"),
        (("--lock", folder / "missing.json"), "missing.json"),
    ):
        done = bootstrap(*args)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert words in done.stderr


@pytest.mark.full
def test_a_nightly_file_is_put_in_and_switched_on(
    bootstrap: Bootstrap, client: SyncPrefectClient, folder: Path
) -> None:
    make_repo(folder / "repo")
    route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": "rehearsal-large"}
    task = {"id": "one", "instruction": "Add it", "repo": str(folder / "repo"), "base": "main", "route": route}
    file = folder / "tonight.yaml"
    file.write_text(json.dumps({"schema": 1, "name": "t", "hosts": {"box": {"kind": "local"}}, "tasks": [task]}))
    done = bootstrap("--nightly", file, "--at", "00:10", "--timezone", "UTC", "--state", folder / "state")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"nightly: {file}, every day at 00:10 UTC"
    for name, cron in (("batch/overnight", "10 0 * * *"), ("doctor/doctor", "40 23 * * *")):
        found = client.read_deployment_by_name(name)
        assert found.parameters["files"] == [str(file)]
        assert found.parameters["state"] == str(folder / "state")
        (schedule,) = found.schedules
        assert isinstance(schedule.schedule, CronSchedule)
        assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == (cron, "UTC", True)

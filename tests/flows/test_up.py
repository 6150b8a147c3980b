"""`overnight up` and `overnight down`: one command to a working server, another to nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import httpx
import psutil
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.automations import automate, crashed_runs
from flows.private_server import PrivateServer, running
from tests.flows.small import Small, small
from tests.flows.world import ROOT, Done, finished, heed_signals
from tests.overnight.nights import script

pytestmark = pytest.mark.full
T = TypeVar("T")
_TOLD: list[dict[str, Any]] = []
_KILLED = """
import os, signal
from prefect import flow, tags
from prefect.runtime import flow_run
@flow
def stuck():
    print(flow_run.id, flush=True)
    signal.pause()
with tags("overnight"):
    stuck()
"""
_TELL = """
import sys
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
for code in sys.argv[1:]:
    resource = {"prefect.resource.id": "overnight.batch.t", "prefect.resource.name": "batch t"}
    resource |= {"overnight.exit-code": code, "overnight.state": "failed"}
    failed = [{"task": "fix-parser", "cause": "auth-rejected: 401"}]
    emit_event("overnight.batch.finished", resource, payload={"words": f"code {code}", "failed": failed, "report": "r"})
EventsWorker.drain_all(timeout=30)
"""


@dataclass
class House:
    """A small world whose state directory `overnight up` keeps."""

    world: Small
    nightly: Path
    said: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.world.state / "prefect"

    @property
    def server(self) -> PrivateServer:
        return waited(lambda: running(self.directory), "the server does not answer")

    @property
    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "keeper.json").read_text())
        return found

    def overnight(self, *args: str | Path) -> Done:
        return self._run("-c", "from flows.cli import app; app()", *args, "--state", self.world.state)

    def up(self, *args: str | Path) -> Done:
        return self.overnight("up", "--lock", self.world.lock, *args)

    def python(self, *args: str | Path) -> Done:
        return self._run(*args, **self.server.environment({}))

    def _run(self, *args: str | Path, **env: str) -> Done:
        argv = [sys.executable, *map(str, args)]
        done = subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**self.world.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_signals,
        )
        return finished(done, 240)

    def asked(self, path: str, **body: Any) -> Any:
        with self.server.client() as client:
            answer = client.post(path, json=body) if body else client.get(path)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def scheduled(self, name: str) -> list[datetime]:
        """When the flow runs of a deployment are to begin, the next one first."""
        deployment = self.asked(f"/deployments/name/{name}")["id"]
        of_it = {"deployments": {"id": {"any_": [deployment]}}}
        runs = self.asked("/flow_runs/filter", **of_it, flow_runs={"state": {"name": {"any_": ["Scheduled"]}}})
        return sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with small(tmp_path_factory.mktemp("house")) as world:
        greet = {"id": "greet", "instruction": script('{"sleep": 40}')}
        made = House(world, world.batch("night", [greet]))
        try:
            done = made.up("--nightly", made.nightly, "--at", "01:00", "--timezone", "Europe/Berlin")
            assert done.code == 0, done.err
            made.said = done.out.splitlines()
            yield made
        finally:
            made.overnight("down")


def waited(look: Callable[[], T | None], why: str, timeout_s: float = 90) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(why)


def test_it_says_where_what_and_how_to_stop(house: House) -> None:
    said = "\n".join(house.said)
    assert f"up: {house.server.url}" in said
    assert str(house.directory / "login") in said
    assert f"nightly: {house.nightly}, every day at 01:00 Europe/Berlin" in said
    assert "good for 5" in said
    assert f"overnight down --state {house.world.state}" in said


def test_the_night_and_its_doctor_are_scheduled(house: House) -> None:
    """Guards the pins too: a Prefect server with the wrong libraries looks healthy and never schedules anything."""
    night = waited(lambda: house.scheduled("batch/overnight"), "no night is scheduled")
    doctor = waited(lambda: house.scheduled("doctor/doctor"), "no doctor is scheduled")
    berlin = ZoneInfo("Europe/Berlin")
    assert {f"{begin.astimezone(berlin):%H:%M}" for begin in night} == {"01:00"}
    assert {f"{begin.astimezone(berlin):%H:%M}" for begin in doctor} == {"00:30"}
    found = house.asked("/deployments/name/batch/overnight")
    assert found["parameters"] == {"late_s": 14400, "files": [str(house.nightly)], "state": str(house.world.state)}
    assert found["job_variables"]["env"]["OVERNIGHT_LOCK"] == str(house.world.lock)


def test_nobody_comes_in_without_password_or_from_another_site(house: House) -> None:
    server = house.server
    user, _, password = server.auth.partition(":")
    assert httpx.get(f"{server.api_url}/admin/version").status_code == 401
    assert httpx.post(f"{server.api_url}/flows/count", json={}).status_code == 403
    assert httpx.post(f"{server.api_url}/flows/count", json={}, auth=(user, password)).status_code == 403
    assert isinstance(house.asked("/flows/count", flows={}), int)
    wrong = {"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": "overnight:wrong"}
    refused = house._run("-m", "deployments.bootstrap", **wrong)
    assert (refused.code, refused.out) == (2, "")
    assert "401" in refused.err
    assert "PREFECT_API_AUTH_STRING" in refused.err


def test_the_password_is_in_no_command_line_and_no_log(house: House) -> None:
    password = house.server.auth.partition(":")[2]
    assert not any(password in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
    for log in house.directory.glob("*.log"):
        assert password not in log.read_text(), log


def test_again_it_changes_the_night_and_says_what_it_cannot_change(house: House) -> None:
    done = house.up("--nightly", house.nightly, "--at", "00:10", "--timezone", "Europe/Berlin", "--workers", "2")
    assert done.code == 0, done.err
    assert "already up" in done.out
    assert "not changed: --workers" in done.out
    cron = {
        name: house.asked(f"/deployments/name/{name}")["schedules"] for name in ("batch/overnight", "doctor/doctor")
    }
    assert [each["schedule"]["cron"] for each in cron["batch/overnight"]] == ["10 0 * * *"]
    assert [each["schedule"]["cron"] for each in cron["doctor/doctor"]] == ["40 23 * * *"]
    assert "updated" not in house.up().out, "nothing was asked for, so nothing changes"


def test_a_worker_or_server_that_dies_is_started_again(house: House) -> None:
    before = house.kept["workers"][0]["pid"]
    os.kill(before, signal.SIGKILL)
    waited(lambda: house.kept["workers"] and house.kept["workers"][0]["pid"] != before, "no new worker")
    url = house.server.url
    record = json.loads((house.directory / "server.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    waited(lambda: (r := running(house.directory)) is not None and r.url == url, "no new server at the same address")


def test_a_killed_keeper_is_replaced_and_what_it_kept_goes_on(house: House) -> None:
    workers, url = house.kept["workers"], house.server.url
    os.kill(house.kept["pid"], signal.SIGKILL)
    env = {"XDG_STATE_HOME": str(house.world.state)}
    done = house._run("deployments/bootstrap.py", "--server", "--state", house.world.state, PYTHONPATH=str(ROOT), **env)
    assert done.code == 0, done.err
    assert f"up: {url}" in done.out
    assert house.kept["workers"] == workers


def test_a_flow_run_whose_process_was_killed_is_marked_crashed(house: House) -> None:
    server = house.server
    with SyncPrefectClient(server.api_url, auth_string=server.auth) as client:
        assert automate(client, crashed_runs(10.0)).endswith("updated")
    run = asyncio.run(_killed_after_a_heartbeat(house))
    state = waited(lambda: _crashed(house, run), "never marked")
    assert "press Retry, or start it again with resume" in state["message"]
    assert house.asked("/events/filter", filter={})["events"] == [], "the automation heard what is not kept"


async def _killed_after_a_heartbeat(house: House) -> str:
    """The flow run of a process that is gone. The server keeps no event, so somebody must listen."""
    server = house.server
    heartbeats = EventFilter(event=EventNameFilter(name=["prefect.flow-run.heartbeat"]))
    env = server.environment({**house.world.env, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"})
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth}):
        async with PrefectEventSubscriber(filter=heartbeats) as heard:
            argv = [sys.executable, "-c", _KILLED]
            stuck = await asyncio.create_subprocess_exec(*argv, env=env, stdout=asyncio.subprocess.PIPE)
            assert stuck.stdout is not None
            run = (await stuck.stdout.readline()).decode().strip()
            async with asyncio.timeout(60):
                while (await anext(heard)).resource.id != f"prefect.flow-run.{run}":
                    pass
            stuck.kill()
            await stuck.wait()
    return run


def _crashed(house: House, run: str) -> dict[str, Any] | None:
    state: dict[str, Any] = house.asked(f"/flow_runs/{run}")["state"]
    return state if state["type"] == "CRASHED" else None


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        _TOLD.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def test_a_night_that_did_not_succeed_is_told(house: House) -> None:
    server = house.server
    refused = house.up("--notify", "custom-webhook/nobody")
    assert (refused.code, "no saved block 'custom-webhook/nobody'" in refused.err) == (2, True), refused.err
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth}):
            CustomWebhookNotificationBlock(
                name="tests",
                url=f"http://127.0.0.1:{receiver.server_port}/",
                json_data={"subject": "{{subject}}", "body": "{{body}}"},
            ).save("tests", overwrite=True)
        done = house.up("--notify", "custom-webhook/tests")
        assert "automation overnight: tell me: created" in done.out, done.err
        assert house.python("-c", _TELL, "0", "1").code == 0
        waited(lambda: len(_TOLD) == 2, "not both were told")
        receiver.shutdown()
    assert [told["subject"] for told in _TOLD] == ["overnight: batch t: failed"] * 2
    bodies = sorted(told["body"].splitlines() for told in _TOLD)
    assert bodies == [[f"code {code}", "fix-parser: auth-rejected: 401", "r"] for code in (0, 1)]


def test_a_batch_in_a_terminal_joins_the_server_and_leaves_it_up(house: House) -> None:
    quick = house.world.batch("quick", [{"id": "quick", "instruction": script('{"sleep": 0.1}')}])
    done = house.world.run(quick)
    assert house.server.url in done.err
    assert house.asked("/flow_runs/count", flow_runs={"name": {"any_": ["batch quick"]}}) == 1
    assert running(house.directory) is not None


def test_down_leaves_running_batches_to_their_hosts_and_nothing_else(house: House) -> None:
    """The last of this module."""
    deployment = house.asked("/deployments/name/batch/overnight")["id"]
    run = house.asked(f"/deployments/{deployment}/create_flow_run", state={"type": "SCHEDULED"})["id"]
    batch_id = house.world.found("batches/night-*/runs/*/handle.json", 150).parents[2].name
    done = house.overnight("down")
    assert done.code == 0, done.err
    assert f"--resume {batch_id} --state {house.world.state}" in done.out
    assert not _left(house)
    assert not {"keeper.json", "server.json"} & {path.name for path in house.directory.iterdir()}
    assert house.overnight("down").out.strip() == "nothing is up"
    resumed = house.world.run("--resume", batch_id)
    assert "greet" in resumed.out
    assert house.up().code == 0
    assert house.asked(f"/flow_runs/{run}")["state"]["type"] not in ("RUNNING", "PENDING", "CANCELLING")
    os.kill(house.kept["pid"], signal.SIGKILL)
    assert house.overnight("down").code == 0
    assert not _left(house)


def _left(house: House) -> list[list[str]]:
    return [argv for argv in house.world.left() if not any("supervisor" in word or "scripted" in word for word in argv)]

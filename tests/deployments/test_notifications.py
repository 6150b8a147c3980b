"""What is told, to a receiver on loopback, by a real server after real batches; set up from a terminal, twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.controller import Controller
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.automations import notifications
from flows.private_server import PrivateServer, private_server
from tests.flows.small import Small, small
from tests.overnight.nights import COMMIT, KEY, script
from tests.sshd import free_port

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hook-secret-0123456789abcdef"
TOLD = ("tell me", "nothing started", "route shut", "breaker opened", "tell me of crashes")
pytestmark = pytest.mark.full

# as tasks/announce.py sends it
_OPENED = """
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
resource = {"prefect.resource.id": "overnight.breaker.rehearsal", "prefect.resource.name": "rehearsal"}
payload = {"until": "2026-11-30T03:00:00+00:00", "cause": "overloaded: 529", "remedy": "wait"}
emit_event("overnight.breaker.opened", resource, payload=payload)
EventsWorker.drain_all(timeout=30)
"""


@dataclass
class Place:
    """A server, a world that uses it, and who is told."""

    world: Small
    server: PrivateServer
    port: int
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def api(self) -> dict[str, str]:
        return {"PREFECT_API_URL": self.server.api_url, "PREFECT_API_AUTH_STRING": self.server.auth or ""}

    @property
    def address(self) -> str:
        return f"json://hook:{SECRET}@127.0.0.1:{self.port}/told"

    def bootstrap(self, *args: str, said: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        whole = {**self.world.env, **self.api, "PYTHONPATH": str(ROOT), "OVERNIGHT_LOCK": str(self.world.lock), **env}
        argv = [sys.executable, "-m", "deployments.bootstrap", *args]
        return subprocess.run(
            argv, cwd=ROOT, env=whole, input=said, capture_output=True, text=True, timeout=180, check=False
        )

    def hears(self, count: int) -> list[dict[str, Any]]:
        """What was told since the last time, once it is so much; and nothing more after it."""
        deadline = time.monotonic() + 60
        while len(self.told) < count:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.1)
        time.sleep(2)
        heard, self.told[:] = list(self.told), []
        return sorted(heard, key=lambda each: str(each["title"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    told: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with (
        small(tmp_path_factory.mktemp("world")) as world,
        private_server(world.state, os.environ) as server,
        ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver,
    ):
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield Place(world, server, receiver.server_port, told)
        receiver.shutdown()


@pytest.fixture(scope="module")
def told(place: Place) -> Place:
    """The same, set up to tell."""
    done = place.bootstrap("--notify", "apprise/tests", "--notify-from", "stdin", said=f"{place.address}\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "block slack-webhook/tests: created" in lines
    assert [f"automation overnight: {name}: created" in lines for name in TOLD] == [True] * len(TOLD)
    assert SECRET not in done.stdout + done.stderr
    return place


@contextmanager
def asking(place: Place) -> Iterator[SyncPrefectClient]:
    api = {PREFECT_API_URL: place.server.api_url, PREFECT_API_AUTH_STRING: place.server.auth}
    with temporary_settings(api), get_client(sync_client=True) as client:
        yield client


def automations(place: Place) -> list[str]:
    with asking(place) as client:
        return sorted(each.name for each in client.read_automations())


@pytest.mark.parametrize(
    ("args", "said", "words"),
    [
        (("--notify", "slack-webhook/nobody"), "", "no saved block 'slack-webhook/nobody'"),
        (("--notify", "apprise/x", "--notify-from", "stdin"), "", "is empty"),
        (("--notify", "apprise/x", "--notify-from", "stdin"), f"nothing-known://{SECRET}\n", "no address that Apprise"),
        (("--notify", "pager/x", "--notify-from", "stdin"), f"json://{SECRET}\n", "names no type"),
    ],
)
def test_a_mistake_is_refused_before_anything_changes_and_never_shown(
    place: Place, args: tuple[str, ...], said: str, words: str
) -> None:
    done = place.bootstrap(*args, said=said)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert SECRET not in done.stderr


def test_a_second_time_makes_nothing_twice_and_another_address_is_put_in(told: Place) -> None:
    again = told.bootstrap("--notify", "apprise/tests", OVERNIGHT_NOTIFY_URL=told.address)
    assert again.returncode == 0, again.stderr
    assert "created" not in again.stdout
    assert "updated" not in again.stdout
    assert sorted({*automations(told)}) == automations(told)
    moved = told.bootstrap("--notify", "apprise/tests", OVERNIGHT_NOTIFY_URL=f"{told.address}/elsewhere")
    assert "block slack-webhook/tests: updated" in moved.stdout
    back = told.bootstrap("--notify", "apprise/tests", "--notify-from", "stdin", said=told.address)
    assert "block slack-webhook/tests: updated" in back.stdout
    assert "block slack-webhook/tests: unchanged" in told.bootstrap("--notify", "slack-webhook/tests").stdout
    assert len([name for name in automations(told) if name.startswith("overnight: ")]) == len(TOLD) + 1


def test_a_finished_batch_is_told_with_what_was_not_delivered(told: Place) -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "good", "instruction": script(f'{{"sh": "{COMMIT}"}}')},
        {"id": "bad", "instruction": script('{"say": "nothing to do"}')},
        {
            "id": "kept",
            "instruction": script(f'{{"sh": "{COMMIT}"}}'),
            "deliver": {"how": "push", "remote": "file:///nowhere"},
        },
    ]
    done = told.world.run(told.world.batch("mixed", tasks), **told.api)
    assert done.code == 1, done.err
    [heard] = told.hears(1)
    assert heard["title"] == "overnight: batch mixed: failed"
    first, *rest = heard["message"].splitlines()
    assert first == "mixed: 2 succeeded, 1 failed"
    assert rest[0].startswith("bad: no-commit: ")
    assert rest[1] == "not delivered: kept"
    assert rest[2].endswith("/report.md")
    assert KEY not in json.dumps(heard)


def test_a_shut_route_and_a_night_that_could_not_start_are_told_apart(told: Place) -> None:
    tasks = [{"id": "one", "instruction": script('{"say": "x"}')}]
    wrong = "sk-wrong-0123456789abcdef"
    done = told.world.run(told.world.batch("shut", tasks), **told.api, OVERNIGHT_KEY_REHEARSAL=wrong)
    assert done.code == 3, done.err
    nothing, route = told.hears(2)
    assert nothing["title"] == "overnight: batch shut: nothing started"
    assert nothing["message"].startswith("shut: 1 skipped\none: auth-rejected: ")
    assert route["title"].endswith(" is shut in batch shut")
    assert route["message"].startswith("auth-rejected: ")
    assert "\nmend: " in route["message"]
    assert wrong not in json.dumps([nothing, route])


def test_an_opened_breaker_is_told(told: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OPENED],
        env={**told.world.env, **told.api},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [heard] = told.hears(1)
    assert heard["title"] == "overnight: nothing starts on rehearsal for now"
    assert heard["message"].splitlines() == ["overloaded: 529", "until 2026-11-30T03:00:00+00:00", "mend: wait"]


class Mailbox:
    """Keeps what an SMTP server is given, as aiosmtpd calls it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=default)
        body = mail.get_body(("plain", "html"))
        assert body is not None
        self.texts.append(f"{', '.join(envelope.rcpt_tos)}: {mail['subject']}\n{body.get_content()}")
        return "250 OK"


def test_by_mail_it_is_told_the_same(told: Place) -> None:
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        address = f"mailto://127.0.0.1:{server.port}?from=night@here.example&to=you@here.example&mode=insecure"
        done = told.bootstrap("--notify", "apprise/mail", "--notify-from", "stdin", said=f"{address}\n")
        assert done.returncode == 0, done.stderr
        tasks = [{"id": "bad", "instruction": script('{"say": "nothing to do"}')}]
        assert told.world.run(told.world.batch("mailed", tasks), **told.api).code == 1
        deadline = time.monotonic() + 60
        while not box.texts:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        server.stop()
        told.bootstrap("--notify", "slack-webhook/tests")
    [heard] = box.texts
    assert heard.startswith("you@here.example: overnight: batch mailed: failed\n")
    assert "bad: no-commit: " in heard
    assert KEY not in heard


def test_no_address_is_in_an_automation(told: Place) -> None:
    with asking(told) as client:
        said = json.dumps([each.model_dump(mode="json") for each in client.read_automations()])
    assert SECRET not in said


def test_every_automation_has_a_name_of_its_own() -> None:
    names = [each.name for each in notifications(uuid4())]
    assert names == [f"overnight: {name}" for name in TOLD]

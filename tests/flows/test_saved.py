"""`overnight credentials` and `overnight hosts` as a user types them."""

from __future__ import annotations

import getpass
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.private_server import private_server
from overnight.hosts.known import fingerprint
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.flows.world import ROOT, Done, finished, heed_signals
from tests.overnight.nights import make_lock
from tests.sshd import Sshd, serving

pytestmark = pytest.mark.full
GOOD, NEWER, WRONG = "fake-key-good-7f3a9c", "fake-key-newer-51d0e2", "fake-key-wrong-9b9b9b"
KEYS = (GOOD, NEWER, WRONG)
ASKED = "Key for rehearsal: "  # the space comes once the terminal shows no more what is typed
_PROGRAM = "from flows.cli import app; app()"  # as the installed command has it


@dataclass
class Desk:
    """One operator with a private server, a provider and a host."""

    folder: Path
    lock: Path
    provider: EmulatedProvider
    sshd: Sshd

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "OVERNIGHT_LOCK": str(self.lock),
        }

    @property
    def target(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.sshd.port}"

    def start(self, *args: str | Path, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *map(str, args)],
            preexec_fn=heed_signals,
            cwd=ROOT,
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str | Path, key: str = "", **env: str) -> Done:
        """A command to its end; `key` comes on standard input, and in no output."""
        process = self.start(*args, **env)
        assert process.stdin is not None
        process.stdin.write(f"{key}\n" if key else "")
        process.stdin.close()
        process.stdin = None
        done = finished(process)
        assert "Traceback" not in done.err, done.err
        assert not [each for each in KEYS if each in done.out + done.err]
        return done

    def json(self, *args: str, code: int = 0, **env: str) -> list[dict[str, Any]]:
        done = self.run(*args, "--json", **env)
        assert done.code == code, done.err
        found: list[dict[str, Any]] = json.loads(done.out)
        return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    for name in ("home", "sshd"):
        (folder / name).mkdir()
    sites = [Site("old", GOOD), Site("new", NEWER)]
    with EmulatedProvider(sites) as provider, serving(folder / "sshd") as sshd:
        lock = make_lock(folder / "lock.json", provider.url("old"))
        with private_server(folder / "state" / "overnight", os.environ):
            yield Desk(folder, lock, provider, sshd)


def test_a_key_from_its_first_day_to_its_last(desk: Desk) -> None:
    added = desk.run("credentials", "add", "rehearsal", "--from-stdin", "--expires-on", "2999-01-31", key=GOOD)
    assert (added.code, added.out) == (0, "Saved as Prefect block provider-credentials/rehearsal\n")
    (row,) = desk.json("credentials", "list")
    assert (row["provider"], row["expires_on"], row["refused"], row["notes"]) == ("rehearsal", "2999-01-31", None, [])
    checked = desk.run("credentials", "check")
    assert (checked.code, checked.out.split()[:2]) == (0, ["rehearsal", "ok"])

    before = len(desk.provider.calls)
    refused = desk.run("credentials", "rotate", "rehearsal", "--from-stdin", key=WRONG)
    assert (refused.code, len(desk.provider.calls)) == (1, before + 2)  # the second asks with the other header
    assert "auth-rejected" in refused.out
    assert "stays as it was" in refused.err
    (answer,) = desk.json("credentials", "check", "rehearsal")
    assert answer["ok"]

    moved = make_lock(desk.folder / "moved.json", desk.provider.url("new"))
    rotated = desk.run("credentials", "rotate", "rehearsal", "--from-stdin", "--lock", moved, key=NEWER)
    assert rotated.code == 0, rotated.err
    (answer,) = desk.json("credentials", "check", "rehearsal", code=1)
    assert (answer["ok"], answer["kind"]) == (False, "auth-rejected")
    assert answer["mend"]
    (row,) = desk.json("credentials", "list")
    assert row["expires_on"] is None, "the date was the old key's"

    forced = desk.run("credentials", "rotate", "rehearsal", "--from-stdin", "--force", key=WRONG)
    assert (forced.code, forced.out.splitlines()[-1]) == (0, "Saved as Prefect block provider-credentials/rehearsal")
    assert desk.run("credentials", "remove", "rehearsal", "--yes").code == 0
    assert desk.json("credentials", "list") == []


def test_a_key_of_the_environment_can_be_tried(desk: Desk) -> None:
    (answer,) = desk.json("credentials", "check", OVERNIGHT_KEY_REHEARSAL=GOOD)
    assert answer["ok"]
    (answer,) = desk.json("credentials", "check", code=1, OVERNIGHT_KEY_REHEARSAL=f"Bearer {GOOD}")
    assert (answer["ok"], answer["kind"]) == (False, None)
    (answer,) = desk.json("credentials", "check", "rehearsal", code=1)
    assert answer["kind"] == "key-missing"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["credentials", "check"], "no key is saved"),
        (["credentials", "rotate", "rehearsal", "--from-stdin"], "overnight credentials add rehearsal"),
        (["credentials", "remove", "rehearsal", "--yes"], "no block provider-credentials/rehearsal is saved"),
        (["hosts", "check", "boks"], "no block ssh-host/boks is saved"),
        (["hosts", "remove", "boks", "--yes"], "no block ssh-host/boks is saved"),
    ],
)
def test_what_is_not_saved_is_refused_in_two_lines(desk: Desk, args: list[str], said: str) -> None:
    done = desk.run(*args, key=GOOD)
    assert done.code == 2, done.err
    assert said in done.err
    assert done.err.splitlines()[-1].startswith("  mend: ")


def test_a_host_from_its_pin_to_its_removal(desk: Desk, tmp_path: Path) -> None:
    shown = fingerprint(desk.sshd.host_key)
    add: list[str | Path] = [
        "hosts",
        "add",
        "box",
        desk.target,
        "--key-file",
        desk.sshd.key_file,
        "--directory",
        tmp_path / "host",
    ]
    alone = desk.run(*add)
    assert alone.code == 2
    assert shown in alone.out
    assert "Give --fingerprint SHA256:" in alone.err
    wrong = desk.run(*add, "--fingerprint", "SHA256:" + "x" * 43)
    assert wrong.code == 2
    assert f"shows {shown}, not SHA256:xxx" in wrong.err
    assert desk.json("hosts", "list") == []

    added = desk.run(*add, "--fingerprint", shown.split()[1], "--slots", "7", "--python", sys.executable)
    assert added.code == 0, added.err
    assert "box  ok" in added.out
    (row,) = desk.json("hosts", "list")
    assert (row["name"], row["address"], row["host_key"], row["slots"]) == ("box", desk.target, shown, 7)
    (found,) = desk.json("hosts", "check")
    assert (found["ok"], found["kind"]) == (True, None)
    assert found["python"].startswith("3.")

    assert not any("\x1b" in text for text in (added.out, added.err)), "colours are for terminals"
    assert "\x1b[32mok" in typed(desk, "", "nothing", "hosts", "check")[1]

    (tmp_path / "other").mkdir()
    with serving(tmp_path / "other") as other:
        target = f"{getpass.getuser()}@127.0.0.1:{other.port}"
        again: list[str | Path] = [
            "hosts",
            "add",
            "box",
            target,
            "--key-file",
            other.key_file,
            "--directory",
            tmp_path / "host",
        ]
        pinned = ["--fingerprint", fingerprint(other.host_key).split()[1], "--no-check"]
        changed = desk.run(*again, *pinned)
        assert changed.code == 2
        assert "THE HOST KEY CHANGED" in changed.err
        assert desk.run(*again, *pinned, "--replace").code == 0
    (found,) = desk.json("hosts", "check", "box", code=1)
    assert (found["ok"], found["kind"]) == (False, "host-unreachable")
    assert found["mend"]
    assert desk.run("hosts", "remove", "box", "--yes").code == 0
    assert desk.json("hosts", "list") == []


def test_a_person_sees_the_fingerprint_before_it_is_pinned(desk: Desk, tmp_path: Path) -> None:
    add = ["hosts", "add", "box", desk.target, "--key-file", str(desk.sshd.key_file), "--no-check"]
    assert (typed(desk, "n\n", "Pin this host key?", *add))[0] == 1
    assert desk.json("hosts", "list") == []
    code, said = typed(desk, "y\n", "Pin this host key?", *add)
    assert (code, fingerprint(desk.sshd.host_key) in said) == (0, True)
    assert len(desk.json("hosts", "list")) == 1
    assert desk.run("hosts", "remove", "box", "--yes").code == 0


def test_a_host_that_the_page_saved_badly_does_not_hide_the_others(desk: Desk) -> None:
    add = ["hosts", "add", "box", desk.target, "--key-file", str(desk.sshd.key_file), "--no-check"]
    assert desk.run(*add, "--fingerprint", fingerprint(desk.sshd.host_key).split()[1]).code == 0
    with private_server(desk.folder / "state" / "overnight", os.environ) as server, server.client() as client:
        block_type = client.get("/block_types/slug/ssh-host").raise_for_status().json()["id"]
        schema = client.get("/block_types/slug/ssh-host/block_documents").json()[0]["block_schema_id"]
        body = {"name": "bad", "data": {"address": "a b"}, "block_type_id": block_type, "block_schema_id": schema}
        client.post("/block_documents/", json=body).raise_for_status()
    refused = {row["name"]: row["refused"] for row in desk.json("hosts", "list")}
    assert (list(refused), refused["box"]) == (["bad", "box"], None)
    assert refused["bad"].startswith("address: ")
    found = {row["name"]: row for row in desk.json("hosts", "check", code=1)}
    assert (found["bad"]["ok"], found["box"]["ok"]) == (False, True)
    for name in found:
        assert desk.run("hosts", "remove", name, "--yes").code == 0


def test_a_typed_key_is_shown_nowhere_and_in_no_command_line(desk: Desk) -> None:
    code, said = typed(desk, f"{GOOD}\n", ASKED, "credentials", "add", "rehearsal")
    assert code == 0, said
    assert GOOD not in said
    assert typed(desk, "y\n", "Forget the saved key", "credentials", "remove", "rehearsal")[0] == 0


def test_ctrl_c_at_a_question_ends_in_words(desk: Desk) -> None:
    code, said = typed(desk, "\x03", ASKED, "credentials", "add", "rehearsal")
    assert (code, said.splitlines()[-1]) == (130, "interrupted")


def test_no_key_is_left_in_clear_anywhere(desk: Desk) -> None:
    assert desk.run("credentials", "add", "rehearsal", "--from-stdin", key=GOOD).code == 0
    files = [path for path in (desk.folder / "state").rglob("*") if path.is_file()]
    assert [path for path in files if path.name.startswith("prefect.db")]
    assert not [path for path in files if GOOD.encode() in path.read_bytes()]
    assert desk.run("credentials", "remove", "rehearsal", "--yes").code == 0


def test_an_end_while_the_private_server_starts_leaves_nobody(desk: Desk, tmp_path: Path) -> None:
    process = desk.start("credentials", "list", "--state", tmp_path)
    record = tmp_path / "prefect" / "server.json"
    while not record.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finished(process).code == 130
    mark = str(tmp_path / "prefect")
    assert not [
        p for p in psutil.process_iter(["environ"]) if mark in (p.info["environ"] or {}).get("PREFECT_HOME", "")
    ]


def typed(desk: Desk, answer: str, question: str, *args: str | Path) -> tuple[int, str]:
    """A command at a terminal, answered once it asks; its exit code and all the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-c", _PROGRAM, *map(str, args)], desk.env)
    shown = b""
    over = threading.Timer(120, os.kill, (pid, signal.SIGKILL))
    over.start()
    try:
        with suppress(OSError):  # so a terminal ends whose program has left
            while data := os.read(terminal, 4096):
                asked = question.encode() in shown
                shown += data
                if not asked and question.encode() in shown:
                    os.write(terminal, answer.encode())
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode().replace("\r\n", "\n")
    finally:
        over.cancel()
        os.close(terminal)

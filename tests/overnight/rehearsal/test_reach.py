"""A host's way to the emulated provider, with this machine as the host."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from overnight.failures import HostError
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.reach import Guest, PortTakenError, guest
from overnight.rehearsal.site import Site
from overnight.spec import HostSpec
from tests.sshd import free_port

HELLO = "here-0123"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Guest]:
    box = guest("box", HostSpec(kind="local", directory=str(tmp_path / "night-rehearsal" / "ab12cd")))
    yield box
    box.remote.close()


@pytest.fixture
def port() -> Iterator[int]:
    with EmulatedProvider([Site(HELLO, "key")]) as provider:
        yield urlsplit(provider.url(HELLO)).port or 0


class Friendly(http.server.BaseHTTPRequestHandler):
    """Answers every path with a page of its own."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>welcome</h1>")

    def log_message(self, *_: object) -> None:
        pass


def test_this_very_machine_needs_no_forward(box: Guest, port: int) -> None:
    with box.reached(port, port, HELLO) as how:
        assert how == "the same machine"


def test_another_rehearsal_is_not_ours(box: Guest, port: int) -> None:
    with pytest.raises(PortTakenError, match="box"), box.reached(port, port, "here-4567"):
        pass


def test_a_server_that_knows_every_path_is_not_ours(box: Guest) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Friendly) as server:
        threading.Thread(target=server.serve_forever).start()
        assert box.ask(server.server_port, HELLO) == "taken"
        server.shutdown()


def test_nothing_behind_the_port_is_an_error(box: Guest) -> None:
    nobody = free_port()
    with pytest.raises(HostError, match="not behind it"), box.reached(nobody, nobody, HELLO):
        pass


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    box = guest("box", HostSpec(kind="local", python="no-python-here", directory=str(tmp_path / "x-rehearsal" / "ab")))
    with pytest.raises(HostError, match="no-python-here"):
        box.ask(1, HELLO)
    box.remote.close()


def test_cleaning_takes_the_folder_and_leaves_another_rehearsals(box: Guest, tmp_path: Path) -> None:
    other = tmp_path / "night-rehearsal" / "ef34ab"
    other.mkdir(parents=True)
    box.remote.install()
    assert box.clean() == ""
    assert [each.name for each in (tmp_path / "night-rehearsal").iterdir()] == ["ef34ab"]


def test_the_last_one_takes_the_folder_above_too(box: Guest, tmp_path: Path) -> None:
    box.remote.install()
    assert box.clean() == ""
    assert list(tmp_path.iterdir()) == []


def test_no_other_folder_is_ever_removed(tmp_path: Path) -> None:
    box = guest("box", HostSpec(kind="local", directory=str(tmp_path / "night")))
    box.remote.install()
    with pytest.raises(AssertionError, match="no folder of a rehearsal"):
        box.clean()
    assert (tmp_path / "night").exists()
    box.remote.close()

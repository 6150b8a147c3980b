"""The way without /proc, walked here with the real `ps` and the real `lsof`, and what lsof says on macOS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from overnight.remote import Remote
from overnight.sample import read_sample
from overnight.sampler.notes import Notes
from overnight.sampler.tools import Tools, clock, files_in
from tests.overnight.following import shell
from tests.overnight.sampler.test_look import SUPERVISOR
from tests.sshd import wait_until

MAC = """p41
f0
tCHR
n/dev/null
f21
tIPv4
PTCP
n10.0.0.7:51544->1.2.3.4:443
TST=ESTABLISHED
TQR=12
TQS=0
f22
tIPv6
PTCP
n[::1]:8080
TST=LISTEN
TQR=0
TQS=0
p42
f0
tPIPE
n->0x1234
f1
tREG
n/tmp/out
"""


@pytest.mark.full
def test_a_run_seen_by_tools(remote: Remote) -> None:
    answer = remote.start(shell("r1", "cat /dev/zero > /dev/null & sleep 61; :"))
    run = SUPERVISOR["RunDir"](str(Path(answer.run_dir).parent.parent), "r1")
    wait_until(lambda: bool(run.read("started.json")), 30)
    notes = Notes()
    tools = Tools(run, run.read("started.json"), notes)
    first = tools.look()
    assert first is not None

    def busy() -> bool:
        second = tools.look()
        assert second is not None
        seen = {each.command: each for each in read_sample(tools.tell(first, second)).processes}
        return "sleep 61" in seen and bool(seen["cat /dev/zero"].cpu_delta_s)

    wait_until(busy, 30)
    seen = {each.command: each for each in read_sample(tools.tell(first, tools.look() or {})).processes}
    assert seen["sleep 61"].state == "S"
    assert (seen["sleep 61"].parent, seen["sleep 61"].cpu_delta_s) == (answer.pid, 0.0)
    assert [each.pid for each in seen.values() if each.main] == [answer.pid]
    if shutil.which("lsof"):
        assert notes.missing == []
        assert seen["sleep 61"].stdin == "/dev/null"


def test_a_connection_seen_by_the_real_lsof() -> None:
    if shutil.which("lsof") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have lsof")
        pytest.skip("no lsof on this machine")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = listener.getsockname()
        program = f"import socket, time; s = socket.create_connection({address}); time.sleep(60)"
        child = subprocess.Popen(["python3", "-I", "-S", "-c", program], stdin=subprocess.PIPE)
        try:
            with closing(listener.accept()[0]) as peer:
                record = Tools(None, {"pid": child.pid}, Notes()).tell(
                    {}, {(child.pid, ""): {"pid": child.pid, "cpu_s": 0.0}}
                )
                seen = read_sample(record)
                (connection,) = seen.sockets
                assert connection.local.endswith(f":{peer.getpeername()[1]}")
        finally:
            child.kill()
            child.communicate()
    assert (connection.state, connection.remote) == ("ESTABLISHED", f"127.0.0.1:{address[1]}")
    assert (connection.receive_queue_bytes, connection.sent_bytes, seen.processes[0].stdin) == (0, None, "pipe")


def test_what_lsof_says_on_macos() -> None:
    (connection,), stdin = files_in(MAC)
    assert connection == {
        "pid": 41,
        "state": "ESTABLISHED",
        "local": "10.0.0.7:51544",
        "remote": "1.2.3.4:443",
        "receive_queue_bytes": 12,
        "send_queue_bytes": 0,
    }
    assert stdin == {41: "/dev/null", 42: "pipe"}


@pytest.mark.parametrize(
    ("words", "seconds"), [("0:01.25", 1.25), ("02:03", 123), ("1:00:00", 3600), ("2-01:00:00", 176400)]
)
def test_times_of_ps(words: str, seconds: float) -> None:
    assert clock(words) == seconds

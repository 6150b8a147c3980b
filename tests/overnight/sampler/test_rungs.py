"""Rungs that loopback alone cannot show: a link that is cut, a processor that is not given, a disk that waits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from overnight.ladder import climb
from overnight.rungs import Rung
from overnight.sample import Sample
from overnight.silence import Progress
from overnight.transcript import Transcript
from tests.overnight.following import order, python
from tests.overnight.sampler.conftest import Run

pytestmark = [
    pytest.mark.full,  # each a real run with its follower
    pytest.mark.skipif(
        os.getuid() != 0 and os.environ.get("CI") != "true",  # in CI their want is a failure
        reason="only root can make a network, a disk, and another's priority",
    ),
]
NOT_YET = Progress(age_s=30, quiet_s=None, unchanged_s=None)
PORT = 8099
MAC = "02:00:00:00:00:02"
SERVER = f"""
import socket
peer = socket.create_server(("", {PORT})), print("up", flush=True)
came = peer[0].accept()[0]
while 1: came.recv(99)
"""
SENDER = """
import socket, time
peer = socket.create_connection(({address!r}, {port}))
while 1: peer.send(b"."), time.sleep(0.1)
"""


def tool(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def rung(sample: Sample, url: str = "http://127.0.0.1:1") -> Rung:
    return climb(sample, NOT_YET, Transcript(), url).rung


@contextmanager
def network(name: str, address: str) -> Iterator[None]:
    """Another machine, as far as the kernel is concerned, at `address`; we are its neighbour."""
    here, there = f"{name}h", f"{name}t"
    tool("ip", "netns", "add", name)
    try:
        tool("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        tool("ip", "addr", "add", f"{address[:-1]}1/30", "dev", here)
        tool("ip", "link", "set", here, "up")
        tool("ip", "-n", name, "link", "set", there, "address", MAC)
        tool("ip", "-n", name, "addr", "add", f"{address}/30", "dev", there)
        tool("ip", "-n", name, "link", "set", there, "up")
        # what is sent to it once it is cut off is lost on the way; nobody says "no route"
        tool("ip", "neigh", "replace", address, "lladdr", MAC, "dev", here, "nud", "permanent")
        yield
    finally:
        tool("ip", "-n", name, "link", "del", there)  # a connection that died may keep the rest for a while
        tool("ip", "netns", "del", name)


@contextmanager
def server(name: str) -> Iterator[None]:
    """Takes one connection there, reads for ever, says nothing."""
    argv = ["ip", "netns", "exec", name, sys.executable, "-I", "-S", "-c", SERVER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as up:
        try:
            assert up.stdout is not None
            assert up.stdout.readline() == b"up\n"
            yield
        finally:
            up.kill()


def test_a_link_that_is_cut_under_a_request(run: Run) -> None:
    name, address = f"on{os.getpid() % 100000}", "198.51.100.2"
    with network(name, address), server(name):
        run.start(python("r1", SENDER.format(address=address, port=PORT))).connection(lambda each: each.sent_bytes)
        tool("ip", "-n", name, "addr", "flush", "dev", f"{name}t")
        seen = run.seen(lambda sample: any(each.retransmits for each in sample.sockets))
    assert rung(seen, f"http://{address}:{PORT}") is Rung.LINK_CUT


def test_a_run_that_others_leave_no_processor(run: Run) -> None:
    """Its whole processor belongs to a process of higher standing; the load is bounded to that one."""
    cpu = str(max(os.sched_getaffinity(0)))
    greedy = subprocess.Popen(["taskset", "-c", cpu, sys.executable, "-I", "-S", "-c", "while 1: pass"])
    try:
        idle = ("/usr/bin/taskset", "-c", cpu, "/usr/bin/chrt", "--idle", "0", "/bin/sh", "-c", "while :; do :; done")
        run.start(order("r1", idle))
        seen = run.seen(lambda sample: rung(sample) is Rung.STARVED)
        assert (seen.processes[0].wait_delta_s or 0) > (seen.processes[0].cpu_delta_s or 0)
    finally:
        greedy.kill()
        greedy.wait()


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that takes no write until the test is over."""
    image, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    tool("mkfs.ext4", "-q", "-F", str(image))
    with ExitStack() as stack:
        tool("mount", "-o", "loop", str(image), str(folder))
        stack.callback(tool, "umount", "--lazy", str(folder))  # the run has it open until it is ended
        tool("fsfreeze", "--freeze", str(folder))
        stack.callback(tool, "fsfreeze", "--unfreeze", str(folder))
        yield folder


def test_a_run_that_waits_for_a_disk(run: Run, frozen: Path) -> None:
    run.start(python("r1", f"open('{frozen}/file', 'w')"))
    assert rung(run.seen(lambda sample: sample.processes[0].state == "D")) is Rung.DISK_WAIT

"""Mistakes that are easily made in a transport over SSH, each of which cost a host or a log once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from overnight.events import Exited, Killed, Sampled, Started
from overnight.follow import Follower
from overnight.hosts.local import LocalHost
from overnight.hosts.protocol import Channel
from overnight.remote import SOURCE, Remote
from tests.overnight.following import Watching, end_all, shell
from tests.sshd import wait_until

pytestmark = pytest.mark.full

# opens and listings below /proc that the supervisor's own tick makes, for a tree of three
_LOOKS = """
import json, os, runpy, subprocess, sys
module = runpy.run_path(sys.argv[1])
shell = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & sleep 60 & wait"])
while len(module["tree_below"](os.getpid())) < 3:
    pass
seen = []
sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event in ("open", "os.listdir") else None)
found = module["tree_below"](os.getpid())
module["cpu_seconds"](found)
told = [path for path in seen if path.startswith("/proc")]
for pid in found:
    os.kill(pid, 9)
print(json.dumps(told))
"""


class Counted(LocalHost):
    """This machine, counting what is opened on it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home=home)
        self.opened: list[str] = []

    def open(self, command: str, timeout_s: float = 20.0) -> Channel:
        self.opened.append(command.split()[-1])
        return super().open(command, timeout_s)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Counted, Remote]]:
    host = Counted(tmp_path)
    remote = Remote(host, python=sys.executable)
    yield host, remote
    remote.close()
    end_all(tmp_path)


def test_a_tick_reads_its_own_tree_and_never_all_processes() -> None:
    said = subprocess.run([sys.executable, "-c", _LOOKS, SOURCE], capture_output=True, check=True, text=True).stdout
    looked = json.loads(said)
    assert looked
    assert "/proc" not in looked, "a listing of every process of the machine"
    assert len(looked) < 25, "a few files for each process of the run"


@pytest.mark.parametrize("seconds", [1, None], ids=["nobody-pings", "input-ends"])
def test_a_follower_goes_when_nobody_listens_any_more(tmp_path: Path, seconds: int | None) -> None:
    source = SOURCE.read_text()
    assert "FOLLOW_DEAF_S = 90\n" in source
    program = tmp_path / "supervisor.py"
    program.write_text(source.replace("FOLLOW_DEAF_S = 90\n", f"FOLLOW_DEAF_S = {seconds or 90}\n"))
    argv = [sys.executable, "-I", "-S", str(program), "follow"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as follower:
        assert follower.stdin is not None
        if seconds is None:
            follower.stdin.close()
        assert follower.wait(30) == (0 if seconds is None else -signal.SIGALRM)


def test_what_was_written_just_before_the_end_is_never_cut_off(
    remote: Remote, follower: Follower, tmp_path: Path
) -> None:
    for number in range(8):
        run_id, size = f"r{number}", 400_000 + number
        remote.start(shell(run_id, f"sleep 0.{number}; head -c {size} /dev/zero | tr '\\0' x; echo last"))
        watching = Watching(follower, run_id, tmp_path)
        assert isinstance(watching.ending(), Exited)
        assert watching.copied("out") == b"x" * size + b"last\n"


def test_states_cancels_and_looks_cost_no_process_on_the_host(counted: tuple[Counted, Remote], tmp_path: Path) -> None:
    host, remote = counted
    for number in range(4):
        remote.start(shell(f"r{number}", "sleep 60"))
    follower = Follower(remote)
    watchings = [Watching(follower, f"r{number}", tmp_path) for number in range(4)]
    watchings[0].until(lambda event: isinstance(event, Started))
    before = list(host.opened)
    follower.sample("r0", 0.1)
    watchings[0].until(lambda event: isinstance(event, Sampled))
    for number, watching in enumerate(watchings):
        follower.cancel(f"r{number}")
        assert isinstance(watching.ending(), Killed)
    follower.close()
    assert host.opened == before
    assert host.opened.count("follow") == 1


def test_another_process_under_the_old_number_is_not_the_run(remote: Remote) -> None:
    answer = remote.start(shell("r1", "exec sleep 60"))
    path = Path(answer.run_dir) / "started.json"
    wait_until(path.exists)
    started = json.loads(path.read_text())
    for name in ("supervisor", "pid"):
        os.kill(started[name], signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(started["pid"]))
    path.write_text(json.dumps({**started, "pid": os.getpid(), "supervisor": os.getpid()}))
    assert remote.start(shell("r1", "exec sleep 60")).state == "lost"


def test_a_name_that_looks_like_the_run_does_not_count_as_it(remote: Remote, tmp_path: Path) -> None:
    answer = remote.start(shell("r1", "exec sleep 60"))
    wait_until((Path(answer.run_dir) / "started.json").exists)
    started = json.loads((Path(answer.run_dir) / "started.json").read_text())
    bystander = subprocess.Popen(["/bin/sh", "-c", "sleep 60", answer.run_dir, "OVERNIGHT_RUN_ID=r1"])
    for name in ("supervisor", "pid"):
        os.kill(started[name], signal.SIGKILL)
    try:
        wait_until(lambda: remote.start(shell("r1", "exec sleep 60")).state == "lost")
    finally:
        bystander.kill()
        bystander.wait()

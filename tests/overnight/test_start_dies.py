"""A supervisor that dies before it has said a word: what became of its run is found out by asking again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from overnight.failures import HostError
from overnight.remote import Remote, SecretSlot
from tests.overnight.test_supervisor import KEY, shell
from tests.sshd import wait_until


def holders(path: Path) -> list[int]:
    """Who has the file open and left us: not the one that was called, which waits for the other's words."""
    found, ours = [], {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in ours and any(each.path == str(path) for each in process.open_files()):
                found.append(process.pid)
    return found


def test_a_supervisor_that_dies_at_its_start_leaves_a_run_that_can_be_asked_for_again(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = shell("true", secrets=(SecretSlot("A_KEY", "zai"),))
    half = json.dumps(order.record(".overnight", [KEY])).encode() + b"\n" + KEY[:4]  # it waits for the other half
    root = Path(remote.install().root)
    channel = remote._call("start", half)
    lock = root / "runs" / order.run_id / "lock"
    wait_until(lambda: bool(holders(lock)))
    while found := holders(lock):  # its child becomes one, too
        for pid in found:
            os.kill(pid, signal.SIGKILL)
    answer = remote._answer(channel)
    assert answer == {"answer": "died"}
    again = remote.start(order, [KEY])
    assert (again.answer, again.state in ("starting", "lost")) == ("already", True)
    monkeypatch.setattr(remote, "_ask", lambda *_: answer)
    with pytest.raises(HostError, match="died at its start") as raised:
        remote.start(order, [KEY])
    assert raised.value.failure.retry == "backoff", "asking again finds out what became of it"

"""The rehearsal's own process: what becomes of the batch it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.flows.world import heed_signals

pytestmark = pytest.mark.full


def test_an_interrupt_leaves_nobody(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    argv = [str(Path(sys.executable).with_name("overnight")), "rehearse", "--harness", "scripted", "--state"]
    with subprocess.Popen(
        [*argv, str(tmp_path / "state")],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_signals,
    ) as rehearsal:
        record = tmp_path / "state" / "prefect" / "server.json"
        while not record.exists():
            assert rehearsal.poll() is None
            time.sleep(0.05)
        os.killpg(rehearsal.pid, signal.SIGINT)
    mark = str(tmp_path)
    left = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("HOME") == mark]
    assert left == []

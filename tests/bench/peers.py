"""The programs we are measured against, in a virtual environment of their own: `.venv-peers`, from `peers.lock`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.rig import run

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-peers"
BIN = VENV / "bin"
LOCK = Path(__file__).with_name("peers.lock")
_STAMP = VENV / ".made"


def provide() -> None:
    """Make the environment, unless it is there and as new as its lock."""
    if _STAMP.exists() and _STAMP.stat().st_mtime >= LOCK.stat().st_mtime:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    run([BIN / "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", LOCK], env=dict(os.environ))
    _STAMP.touch()


def versions() -> str:
    """What was measured against, by name and version."""
    names = ("parallel-ssh", "ansible-core")
    ask = f"from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in {names!r}), sep=', ')"
    found = run([BIN / "python", "-c", ask]).stdout.strip()
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.split(",")[0]
    return f"{found}, {ssh}, {run(['git', '--version']).stdout.strip()}"

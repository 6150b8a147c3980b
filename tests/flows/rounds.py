"""Commands of their own in a small world: what a user types the morning after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.flows.small import Small
from tests.flows.world import ROOT, Done, finished, heed_signals
from tests.overnight.nights import COMMIT, script

COMMITS = script(f'{{"sh": "{COMMIT}"}}')


def waits_for(here: Small, name: str) -> str:
    """An instruction that works once the file of that name is in the world's folder."""
    door = f"while [ ! -e {here.directory / name} ]; do sleep 0.1; done"
    return script('{"say": "on it"}', f'{{"sh": "{door}"}}', f'{{"sh": "{COMMIT}"}}')


def command(here: Small, module: str, *args: object, cwd: Path = ROOT, **env: str) -> Done:
    """`python -m MODULE ARGS --state ...` to its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, args), "--state", str(here.state)],
        preexec_fn=heed_signals,
        cwd=cwd,
        env={**here.env, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return finished(process)

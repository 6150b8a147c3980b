"""Commands of their own in a small world: what a user types the morning after."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
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
    return finished(_started(here, [sys.executable, "-m", module], args, cwd, env))


def overnight(here: Small, *args: object, **env: str) -> Done:
    """`overnight ARGS --state ...` to its end."""
    return finished(_started(here, [str(Path(sys.executable).with_name("overnight"))], args, ROOT, env))


def _started(
    here: Small, program: list[str], args: Sequence[object], cwd: Path, env: Mapping[str, str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, *map(str, args), "--state", str(here.state)],
        preexec_fn=heed_signals,
        cwd=cwd,
        env={**here.env, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

"""What `overnight lock check` costs at a commit, against `bash -n` over the same scripts in the same minute.

    python -m tests.bench.lock_check [--scripts 50] [--rounds 15]

Each script is one that has to be followed: it names a provider and starts an
agent. Whole processes are measured, interpreter start and all; medians
are printed. On a busy machine processor time tells more than wall time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
log() {{ printf '%s %s\\n' "$(date +%T)" "$*" >&2; }}
while getopts "n:v" option; do
  case "$option" in
    n) name=$OPTARG ;;
    v) set -x ;;
    *) exit 2 ;;
  esac
done
if [ -z "${{name:-}}" ]; then log "no name"; exit 2; fi
export ANTHROPIC_BASE_URL="https://api.z.ai/api/anthropic"
export {variable}="${{ZAI_API_KEY:?}}" ANTHROPIC_MODEL=glm-5.2
for task in tasks/"$name"-{number}-*.md; do
  log "$task"
  timeout 1800 claude -p "$(cat "$task")" --output-format=stream-json --verbose > "$task.log" 2>&1 || log "failed: $?"
done
"""
CHECK = "from flows.entry import main; main()"
ROOT = Path(__file__).resolve().parents[2]


def seconds(command: Sequence[str], folder: Path, exit_code: int) -> tuple[float, float]:
    """Wall and processor time of one process and its children."""
    begun, before = time.perf_counter(), _processor()
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    spent = time.perf_counter() - begun
    if done.returncode != exit_code:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return spent, _processor() - before


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(number: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "init", "-q", name], check=True)
        ours = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {CHECK}", "lock", "check"]
        peer = ["bash", "-c", 'for script in *.sh; do bash -n "$script"; done']
        for variable, exit_code, what in (("ANTHROPIC_AUTH_TOKEN", 0, "right"), ("ANTHROPIC_API_KEY", 1, "wrong")):
            for each in range(number):
                (folder / f"run-{each}.sh").write_text(SCRIPT.format(number=each, variable=variable))
            rows = [(*seconds(ours, folder, exit_code), *seconds(peer, folder, 0)) for _ in range(rounds)]
            wall, cpu, their_wall, their_cpu = (statistics.median(column) * 1000 for column in zip(*rows, strict=True))
            print(  # noqa: T201  # a measurement is for a person to read
                f"{number} scripts, all {what}: overnight lock check {wall:.0f} ms, {cpu:.0f} of processor; "
                f"bash -n one by one {their_wall:.0f} ms, {their_cpu:.0f} of processor; "
                f"ratio {wall / their_wall:.2f}, {cpu / their_cpu:.2f} of processor"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scripts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    measure(options.scripts, options.rounds)

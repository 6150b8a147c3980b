"""The scripted agent with a witness beside it: runs on hosts as `python3`, standard library only.

What it prints is written to a side file as well, after each write; what it
commits, when it began and when it ended stand in another. Both lie outside the
run's own folder, where no part of overnight writes. Steps beside those of the
scripted agent: `commit` NAME, `blob` BYTES with `seed`, `daemon`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIDE = Path(__file__).resolve().parent.parent / "side"
DAEMON_LIVES_S = 300
CHUNK_BYTES = 16 * 1024


class Witness:
    """Writes down what this process does, for a judge that trusts nobody else."""

    def __init__(self, run_id: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._notes = os.open(SIDE / f"{run_id}.notes", flags, 0o600)
        self._out = os.open(SIDE / f"{run_id}.out", flags, 0o600)

    def note(self, what: str, **fields: Any) -> None:
        os.write(self._notes, json.dumps({"what": what, "at": time.time(), **fields}).encode() + b"\n")

    def write(self, text: str) -> None:
        self.put(text.encode())

    def put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.write(1, view[:CHUNK_BYTES])
            os.write(self._out, view[:done])
            view = view[done:]

    def flush(self) -> None:
        return


def main() -> None:
    if "-c" in sys.argv[1:4]:  # asked for its version
        os.execv("/usr/bin/python3", ["python3", *sys.argv[1:]])
    witness = Witness(os.environ["OVERNIGHT_RUN_ID"])
    witness.note("start", pid=os.getpid(), boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    path = next(word for word in sys.argv[1:] if word.endswith(".py"))
    agent = load(path)
    agent.STEPS.update(
        commit=lambda step: commit(witness, step["commit"]),
        blob=lambda step: blob(witness, step["blob"], step["seed"]),
        daemon=lambda _step: daemon(),
    )
    sys.argv = sys.argv[sys.argv.index(path) :]
    sys.stdout = witness
    try:
        agent.main()
    except SystemExit as leaving:
        witness.note("end", code=leaving.code)
        raise
    except BaseException as error:
        witness.note("end", code=1, error=f"{type(error).__name__}: {error}")
        raise


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("scripted_agent", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"no agent at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def commit(witness: Witness, name: str) -> None:
    Path(f"{name}.txt").write_text(f"{name}\n")
    for words in (["add", "-A"], ["commit", "-q", "-m", name]):
        subprocess.run(["git", *words], check=True, stdout=2)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    witness.note("commit", sha=sha)


def blob(witness: Witness, size: int, seed: int) -> None:
    """Bytes that are no text, some of them in very long lines, printed in pieces."""
    chance = random.Random(seed)
    left = size
    while left > 0:
        piece = min(left, chance.choice((1, 700, 9_000, 50_000)))
        witness.put(chance.randbytes(piece))
        left -= piece
        time.sleep(0.005)
    witness.put(b"\n")


def daemon() -> None:
    """Leave a process behind that nobody waits for and that does not go when it is asked to."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            time.sleep(DAEMON_LIVES_S)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main()

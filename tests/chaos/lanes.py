"""Several lanes side by side: each plays one schedule at a time in namespaces of its own."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OWN = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
ANSWER_S = 300.0

Answer = dict[str, Any]


def refused() -> str:
    """Why no lane can be made here; empty when it can."""
    if os.getuid() != 0:
        return "hosts are namespaces with disks of their own, which takes root"
    try:
        clocks = ("--time", "--monotonic", "1")
        done = subprocess.run([*OWN, *clocks, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"unshare of util-linux 2.36 or newer is needed: {error.strerror}"
    return done.stderr.strip() if done.returncode else ""


class Lane:
    """One process that plays; started at its first seed, and again after it died or was mute."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def play(self, seed: int) -> Answer:
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise AssertionError("opened with pipes")
        process.stdin.write(f"{seed} {self._folder / str(seed)}\n".encode())
        process.stdin.flush()
        came = select.select([process.stdout], [], [], ANSWER_S)[0]
        line = process.stdout.readline() if came else b""
        if line:
            answer: Answer = json.loads(line)
            return answer
        self.close()
        said = (self._folder / "lane.log").read_text(errors="replace")[-600:]
        why = "the lane died" if came else f"no answer within {ANSWER_S:.0f} s"
        wrong = {"suite": [f"{why}: {' '.join(said.split())}"]}
        return {"seed": seed, "breaches": wrong, "folder": str(self._folder / str(seed)), "hits": [], "seconds": 0.0}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            env = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
            argv = [*OWN, sys.executable, "-m", "tests.chaos.lane", str(self._folder / "prefect")]
            with (self._folder / "lane.log").open("ab") as log:
                self._process = subprocess.Popen(
                    argv,
                    cwd=ROOT,
                    env={**env, "HOME": str(self._folder), "PREFECT_HOME": str(self._folder / "unused")},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is ours to hear
                    preexec_fn=_end_with_us,
                )
        return self._process

    def close(self) -> None:
        """End it and, by its namespace, everything it started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _end_with_us() -> None:
    """Between fork and exec: whatever ends us, even SIGKILL, ends the lane, and with it all that it started."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def play_all(seeds: Iterable[int], lanes: int, folder: Path, told: Callable[[Answer], None]) -> None:
    """Play every seed; `told` is called for each, one at a time, as they end. An interrupt ends all lanes."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in seeds:
        waiting.put(seed)
    answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
    made = [Lane(folder / f"lane{number}") for number in range(lanes)]

    def work(lane: Lane) -> None:
        try:
            while True:
                answers.put(lane.play(waiting.get_nowait()))
        except (queue.Empty, OSError):
            answers.put(None)

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in made]
    for thread in threads:
        thread.start()
    living = len(threads)
    try:
        while living:
            answer = answers.get()
            living -= answer is None
            if answer is not None:
                told(answer)
    finally:
        for lane in made:
            lane.close()

"""What the benches share: rows of the table, quiet stretches, processor time, and a scripted batch on a real sshd."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

LOCK = "OVERNIGHT_BENCH_LOCK"
"""Names a file that is locked while something is measured, for a machine on which others measure, too."""


@dataclass(frozen=True)
class Row:
    """One line of the results. `met` is None where there is no bar."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Part:
    """What one bench found: its rows, and what has to be said to read them."""

    title: str
    command: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Part:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Row(**row) for row in data.pop("rows"))
        return cls(**{**data, "rows": rows, "notes": tuple(data["notes"])})


@dataclass(frozen=True)
class Spent:
    """Seconds by the wall, and of processors by everything that was started and waited for."""

    wall_s: float
    cpu_s: float


@contextmanager
def quiet() -> Iterator[None]:
    """Alone among benches, where `OVERNIGHT_BENCH_LOCK` is set."""
    name = os.environ.get(LOCK)
    if name is None:
        yield
        return
    with open(name, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spent(call: Callable[[], Any]) -> Spent:
    """What a call cost that starts processes and waits for all of them."""
    began, before = time.monotonic(), children_cpu_s()
    call()
    return Spent(time.monotonic() - began, children_cpu_s() - before)


def run(argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """A command that must succeed."""
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=False, timeout=600, **options)
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    cores = f"{os.cpu_count()} shared cores, {memory:.0f} GB, {platform.machine()}, Linux {platform.release()}"
    return f"{cores}, Python {platform.python_version()}"


def command_of(module: str, options: argparse.Namespace) -> str:
    """The command line that measures the same again."""
    given = (f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items() if name != "json")
    return " ".join(["python -m", f"tests.bench.{module}", *given])


def parser(doc: str | None, **numbers: int) -> argparse.ArgumentParser:
    """A command line with these numbers as options, and `--json`."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in numbers.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    made.add_argument("--json", type=Path, help="where `make bench` wants the rows")
    return made


def tell(part: Part, path: Path | None) -> None:
    """Print a part, and write it where `make bench` collects it, with how busy the machine was."""
    part = replace(part, notes=(*part.notes, f"Load of the machine meanwhile: {os.getloadavg()[1]:.0f}."))
    sys.stdout.write("\n".join([f"## {part.title}", "", *table(part.rows), "", *part.notes, ""]))
    sys.stdout.flush()
    if path is not None:
        path.write_text(json.dumps(asdict(part)), encoding="utf-8")


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as a table of Markdown."""
    lines = ["| | ours | peer | ratio | bar | |", "|---|---|---|---|---|---|"]
    for row in rows:
        verdict = "" if row.met is None else "met" if row.met else "**missed**"
        lines.append(f"| {row.what} | {row.ours} | {row.peer} | {row.ratio} | {row.bar} | {verdict} |")
    return lines


def against(what: str, ours: float, peer: float, unit: str, *, most: float | None = None, digits: int = 1) -> Row:
    """A row of ours against a peer's; `most` is the largest ratio that is good enough."""
    ratio = ours / peer
    bar = "" if most is None else f"<= {most:g} x"
    met = None if most is None else ratio <= most
    return Row(what, f"{ours:.{digits}f} {unit}", f"{peer:.{digits}f} {unit}", f"{ratio:.2f} x", bar, met)


def within(what: str, value: float, unit: str, most: float | None = None, digits: int = 1) -> Row:
    """A row with a bar of its own and no peer."""
    bar = "" if most is None else f"<= {most:g} {unit}"
    return Row(what, f"{value:.{digits}f} {unit}", bar=bar, met=None if most is None else value <= most)

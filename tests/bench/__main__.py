"""All that is measured against a bar, in one run; the table is written to `tests/bench/RESULTS.md`.

    python -m tests.bench [--brief] [PART ...]

Each part is a process of its own, as `python -m tests.bench.PART`. Parts that
are not named keep what an earlier run found, in `.overnight/bench`, with their
own time. The exit code is 0 when no bar was missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench import peers
from tests.bench.rig import Part, machine, table

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".overnight" / "bench"
RESULTS = Path(__file__).with_name("RESULTS.md")
BRIEF = {
    "overhead": "--runs 30 --rounds 1 --ansible 1",
    "streams": "--seconds 10 --most 1000",
    "throughput": "--megabytes 300 --rounds 3",
    "collection": "--megabytes 200 --rounds 1",
    "truth": "--rounds 2 --patient 1",
    "share": "--tasks 12",
}
PARTS = ("overhead", "streams", "throughput", "collection", "truth", "share")


def written(parts: Sequence[tuple[Part, datetime]], of_machine: str, versions: str) -> str:
    """The page; each part with its moment and the command that measures it again."""
    missed = [f"{part.title.lower()}: {row.what}" for part, _ in parts for row in part.rows if row.met is False]
    bars = sum(row.met is not None for part, _ in parts for row in part.rows)
    lines = [
        "# What a night costs, against peers doing the same work",
        "",
        "Made by `make bench`, never by hand.",
        "",
        f"Machine: {of_machine}, load {os.getloadavg()[0]:.0f} at the end. {versions}.",
        "",
        f"{bars - len(missed)} of {bars} bars met." + (" Missed:" if missed else ""),
        *(f"- {each}" for each in missed),
    ]
    for part, at in parts:
        head = f"`{part.command}`, {at:%Y-%m-%d %H:%M} UTC."
        lines += ["", f"## {part.title}", "", head, "", *table(part.rows), "", *part.notes]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--brief", action="store_true", help="smaller and fewer rounds, for a machine that others use")
    options = parser.parse_args()
    wanted: list[str] = options.parts or list(PARTS)
    KEPT.mkdir(parents=True, exist_ok=True)
    peers.provide()
    for name in wanted:
        argv = [sys.executable, "-m", f"tests.bench.{name}", "--json", str(KEPT / f"{name}.json")]
        argv += BRIEF[name].split() if options.brief else []
        subprocess.run(argv, check=True, cwd=ROOT)
    found = [(Part.read(path), moment(path)) for name in PARTS if (path := KEPT / f"{name}.json").exists()]
    names = ("prefect", "paramiko", "asyncssh")
    ours = ", ".join(f"{name} {version(name)}" for name in names)
    RESULTS.write_text(written(found, machine(), f"{ours}; {peers.versions()}"), encoding="utf-8")
    sys.stdout.write(RESULTS.read_text(encoding="utf-8"))
    return int(any(row.met is False for part, _ in found for row in part.rows))


def moment(path: Path) -> datetime:
    return datetime.fromtimestamp(os.stat(path).st_mtime, UTC)


if __name__ == "__main__":
    sys.exit(main())

"""The doctor against everything that the table test plants: what it named, in how many seconds, with how many calls.

    python -m tests.bench.planted [--only WORD ...]

Real agents, on loopback; they are fetched once into `.overnight/agents`. Calls
are all that the emulated provider was asked, the agents' own included.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from overnight.rehearsal.agents import obtain
from tests.conftest import AGENTS, INSTALLER
from tests.overnight.doctor.planted import CASES, HARNESSES, WELL
from tests.overnight.doctor.worlds import Case, Seen, row, visited


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="words of a case's name, place or agent")
    only: list[str] = parser.parse_args(argv).only
    npm, pip = shutil.which("npm"), shutil.which("pip")
    for harness in HARNESSES:
        obtain(harness, AGENTS, npm=npm, pip=pip, environment=INSTALLER, progress=_say)
    chosen = [each for each in CASES if not only or any(word in str(each) for word in only)]
    seen = {case: _shown(case) for case in chosen}
    well = {case: _shown(case) for case in WELL if not only}
    named = sum(not found.missing(case) for case, found in seen.items())
    wrong = sum(bool(found.wrong(case)) for case, found in (seen | well).items())
    seconds, calls = (sum(getattr(found, each) for found in seen.values()) for each in ("seconds", "calls"))
    _say(f"\n{named} of {len(seen)} named, {wrong} wrong names, {len(well)} healthy; {seconds:.0f} s, {calls} calls")
    return 0 if named == len(seen) and not wrong else 1


def _shown(case: Case) -> Seen:
    with tempfile.TemporaryDirectory(prefix="overnight-planted-") as folder:
        Path(folder).chmod(0o755)
        seen = visited(case, Path(folder), AGENTS / "bin")
    _say(row(case, seen))
    return seen


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

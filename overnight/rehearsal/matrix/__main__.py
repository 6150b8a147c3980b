"""Run every agent against every fault and say how each was named."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from overnight.failures import BadInput, FailureError
from overnight.harnesses import HARNESSES
from overnight.ledger import write
from overnight.lockfile import suggest
from overnight.night import now
from overnight.rehearsal.agents import obtain
from overnight.rehearsal.matrix import page, rootly, table, wire_cases, work_cases
from overnight.rehearsal.matrix.case import NEEDS_ROOT, Case
from overnight.rehearsal.matrix.cell import Cell
from overnight.rehearsal.matrix.slots import carry_out, usual_slots
from overnight.rehearsal.matrix.verdict import Result, misses, totals
from overnight.rehearsal.matrix.world import world

AGENTS = ("claude-code", "codex", "copilot", "goose", "opencode", "pi", "qwen")
CASES = (*wire_cases.CASES, *work_cases.CASES)
AGAIN_SHARE = 0.05
_HOME = Path(".overnight")
_EXAMPLES = """\
examples:
  python -m overnight.rehearsal.matrix --list
  python -m overnight.rehearsal.matrix --harness claude-code --fault '401-*' --fault hang
  python -m overnight.rehearsal.matrix --json matrix.json --html matrix.html

Everything runs on this machine and talks to nobody else. The exit code is 0 when
the bar is met, 1 when it is missed, 2 for a mistake in the command line, 130
after Ctrl-C, which ends everything that was started.
"""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    options = _parser().parse_args(argv)
    environ = os.environ if environ is None else environ
    try:
        cells = _cells(options.harness, options.fault)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.list:
        table.show_cases(cells)
        return 0
    ran, skipped = _able(cells)
    try:
        agents = options.agents or _obtained(ran, options.directory.parent / "agents", environ)
        results = _again(_run(ran, options, agents, environ), ran, options, agents, environ)
        results += skipped
    except FailureError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nended\n")
        return 130
    return _told(sorted(results, key=_as_listed), options, environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m overnight.rehearsal.matrix",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--harness",
        action="append",
        metavar="NAME",
        help=f"this agent alone, may be repeated; default: {' '.join(AGENTS)}",
    )
    add(
        "--fault",
        action="append",
        metavar="GLOB",
        help="these faults alone, may be repeated; names as --list shows them",
    )
    add("--json", type=Path, metavar="FILE", help="write every cell, with all its evidence, and the totals")
    add("--html", type=Path, metavar="FILE", help="write a page with one row a fault and one column an agent")
    add("--slots", type=int, metavar="N", help=f"runs at once; default: what this machine carries, now {usual_slots()}")
    add("--agents", type=Path, metavar="DIR", help="where the agents' commands are; default: they are installed first")
    add(
        "--directory",
        type=Path,
        default=_HOME / "matrix",
        metavar="DIR",
        help="for the record of every run; default: %(default)s",
    )
    add("--once", action="store_true", help="leave cells that miss the bar as they are; else a few are run once more")
    add("--list", action="store_true", help="say what would be run, and what is right")
    return parser


def _cells(names: Sequence[str] | None, globs: Sequence[str] | None) -> list[Cell]:
    """Raises BadInput for a name or a pattern that fits nothing."""
    for name in names or ():
        if name not in HARNESSES:
            raise BadInput("--harness", name, "no such agent", suggest(name, AGENTS))
    for glob in globs or ():
        if not any(fnmatch.fnmatch(case.name, glob) for case in CASES):
            raise BadInput("--fault", glob, "fits no fault", suggest(glob, [case.name for case in CASES]))
    wanted = [case for case in CASES if globs is None or any(fnmatch.fnmatch(case.name, glob) for glob in globs)]
    return [
        Cell(case, harness) for case in wanted for harness in names or AGENTS if not case.only or harness in case.only
    ]


def _able(cells: Sequence[Cell]) -> tuple[list[Cell], list[Result]]:
    """The cells that can be run here, and of the others why not."""
    why = rootly.missing()
    unable = [cell for cell in cells if why and cell.case.place in NEEDS_ROOT]
    return [cell for cell in cells if cell not in unable], [_skipped(cell.case, cell.harness, why) for cell in unable]


def _skipped(case: Case, harness: str, why: str) -> Result:
    truth = tuple(sorted(case.truth_for(harness)))
    return Result(case.name, case.says, harness, truth, "skipped", "", (why,))


def _obtained(cells: Sequence[Cell], kept: Path, environ: Mapping[str, str]) -> Path:
    """Where the agents are, once they are there. Raises FailureError for one that cannot be had."""
    kept = kept.absolute()
    for harness in dict.fromkeys(cell.harness for cell in cells):
        obtain(
            harness,
            kept,
            npm=shutil.which("npm", path=environ.get("PATH")),
            pip=str(Path(sys.executable).with_name("pip")),
            environment=environ,
            progress=table.say,
        )
    return kept / "bin"


def _run(cells: Sequence[Cell], options: argparse.Namespace, agents: Path, environ: Mapping[str, str]) -> list[Result]:
    directory = options.directory.absolute() / f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    directory.mkdir(parents=True, mode=0o700)
    progress = table.Progress(len(cells))
    log = directory / "said.txt"
    with log.open("a", encoding="utf-8") as said:

        def tell(*words: str) -> None:
            said.write(f"{now():%H:%M:%S.%f} {' | '.join(words)}\n")

        table.say(f"record: {directory}")
        try:
            with world(cells, directory, agents.absolute(), environ.get("PATH", os.defpath), tell) as parts:
                return carry_out(parts, cells, options.slots or usual_slots(), progress.count)
        finally:
            progress.close()
            shutil.rmtree(directory / "hosts", ignore_errors=True)


def _again(
    results: list[Result], cells: Sequence[Cell], options: argparse.Namespace, agents: Path, environ: Mapping[str, str]
) -> list[Result]:
    """The results, the few that miss the bar run once more: a busy machine is not a wrong name, and is told apart."""
    bad = {(result.case, result.harness): result for result in results if misses(result)}
    if options.once or not bad or len(bad) > max(1, AGAIN_SHARE * len(results)):
        return results
    table.say(f"{len(bad)} cells missed the bar and are run once more")
    wanted = [cell for cell in cells if (cell.case.name, cell.harness) in bad]
    second = {(result.case, result.harness): result for result in _run(wanted, options, agents, environ)}
    mended = {key: replace(result, first=bad[key].verdict) for key, result in second.items() if not misses(result)}
    return [mended.get((result.case, result.harness), result) for result in results]


def _as_listed(result: Result) -> tuple[int, int]:
    names = [case.name for case in CASES]
    return names.index(result.case), AGENTS.index(result.harness) if result.harness in AGENTS else len(AGENTS)


def _told(results: Sequence[Result], options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    sums = totals(results, complete=environ.get("CI") == "true")
    table.show(results, sums)
    if options.json:
        record = {
            "schema": 1,
            "made_at": f"{now():%Y-%m-%dT%H:%M:%SZ}",
            "words": sums.words,
            "missed": list(sums.missed),
        }
        cells = [result.to_json() for result in results]
        write(options.json.absolute(), json.dumps({**record, "cells": cells}, indent=1, ensure_ascii=False) + "\n")
    if options.html:
        write(options.html.absolute(), page.page(results, sums, now()))
    return 1 if sums.missed else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job would ignore the one and die of the other
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())

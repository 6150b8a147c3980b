"""`python -m tests.chaos`: seeded faults over real supervised runs, judged and told line by line."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chaos.invariants import INVARIANTS
from tests.chaos.lanes import ROOT, Answer, play_all, refused
from tests.chaos.machine import FAKETIME
from tests.chaos.schedule import draw
from tests.chaos.world import keep

EXIT_BREACH, EXIT_CANNOT, EXIT_INTERRUPTED = 1, 2, 130
_EXAMPLES = """\
examples:
  python -m tests.chaos                          seeds 1 to 20
  python -m tests.chaos --seed 137 --count 1     one schedule again, every invariant on a line of its own
  python -m tests.chaos --count 200 --lanes 4    many, four at a time
  python -m tests.chaos --seed 137 --dry-run     what a seed means; nothing is started
  make chaos SEED=137 N=1                        the same by make, which sets everything up first

exit codes: 0 every invariant held, 1 one did not, 2 it cannot run here, 130 interrupted
"""


class Told:
    """What was heard so far, printed as it comes."""

    def __init__(self, keep_in: Path, *, every_line: bool, as_json: bool) -> None:
        self.answers: list[Answer] = []
        self._keep_in = keep_in
        self._every_line = every_line
        self._out = sys.stderr if as_json else sys.stdout

    def __call__(self, answer: Answer) -> None:
        broken = {name: words for name, words in answer["breaches"].items() if words}
        if broken and Path(answer["folder"]).exists():
            answer["folder"] = str(keep(Path(answer["folder"]), self._keep_in / str(answer["seed"])))
        self.answers.append(answer)
        self.say(_line(answer, broken))
        if broken or self._every_line:
            for name in INVARIANTS:
                self.say(f"    {name:10} {'BROKEN' if broken.get(name) else 'held':7} {_meaning(name)}")
            for name, words in broken.items():
                for each in words:
                    self.say(f"    {name}: {each}")
        if broken:
            self.say(f"    kept in {answer['folder']}; play it again: make chaos SEED={answer['seed']} N=1")

    def say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    @property
    def broken(self) -> list[int]:
        return sorted(each["seed"] for each in self.answers if any(each["breaches"].values()))


def _line(answer: Answer, broken: dict[str, Any]) -> str:
    met = ", ".join(f"{hit['kind']}{' ' + hit['host'] if hit['host'] else ''}" for hit in answer["hits"]) or "no fault"
    shape = f"{answer['controller']:5} {answer['tasks']} tasks {answer['starts']} starts" if answer.get("tasks") else ""
    verdict = f"BROKEN: {', '.join(broken)}" if broken else "held"
    return f"seed {answer['seed']:<5} {answer['seconds']:6.1f} s  {shape}  {verdict}  [{met}]"


def _meaning(name: str) -> str:
    return (INVARIANTS[name].__doc__ or "").splitlines()[0]


def main() -> int:
    options = _parser().parse_args()
    seeds = range(options.seed, options.seed + options.count)
    if options.dry_run:
        for seed in seeds:
            _show(seed)
        return 0
    why = refused()
    if why:
        sys.stderr.write(f"The chaos suite cannot run here: {why}\n")
        return EXIT_CANNOT
    told = Told(options.keep, every_line=options.count == 1, as_json=options.json)
    if FAKETIME is None:
        told.say("No libfaketime here: wall clocks will not jump (on Debian: apt-get install libfaketime)")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a runner in the background has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    began, code = time.monotonic(), 0
    folder = Path(tempfile.mkdtemp(prefix="overnight-chaos-"))
    try:
        play_all(seeds, min(options.lanes, options.count), folder, told)
    except KeyboardInterrupt:
        told.say("Interrupted; everything that was started is gone")
        code = EXIT_INTERRUPTED
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sum_up(told, time.monotonic() - began, options.json)
    return code or (EXIT_BREACH if told.broken else 0)


def _sum_up(told: Told, seconds: float, as_json: bool) -> None:
    for name in INVARIANTS:
        held = sum(not each["breaches"].get(name, ["unknown"]) for each in told.answers)
        told.say(f"{name:10} held in {held} of {len(told.answers)}: {_meaning(name)}")
    hits = sum(len(each["hits"]) for each in told.answers)
    told.say(f"{len(told.answers)} schedules, {hits} faults, {seconds:.0f} s; broken: {told.broken or 'none'}")
    if as_json:
        found = {"schedules": told.answers, "broken": told.broken, "seconds": round(seconds, 1)}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")


def _show(seed: int) -> None:
    schedule = draw(seed)
    words = f"seed {seed}: {schedule.controller} controller, {schedule.slots} slots, {schedule.attempts} attempts\n"
    for work in schedule.work:
        words += f"  {work.task_id} on {work.host}: {work.shape}, commits after {work.waits} s\n"
    for fault in schedule.faults:
        words += f"  {fault}\n"
    sys.stdout.write(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default 1)")
    parser.add_argument("--count", type=_positive, default=20, metavar="K", help="how many seeds (default 20)")
    lanes = max(2, 2 * (os.cpu_count() or 1))
    parser.add_argument("--lanes", type=_positive, default=lanes, help="schedules at a time (default 2 a core)")
    parser.add_argument("--keep", type=Path, default=ROOT / ".overnight" / "chaos", help="folder for what failed")
    parser.add_argument("--json", action="store_true", help="print one JSON document; progress goes to standard error")
    parser.add_argument("--dry-run", action="store_true", help="print the schedules and start nothing")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())

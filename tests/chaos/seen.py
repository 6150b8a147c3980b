"""What is left when a schedule is over, read from disk and from the kernel: the material the invariants judge."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from overnight.ledger import Ledger
from overnight.past import entries
from overnight.report import BatchReport, RunReport
from tests.chaos.faults import Hit
from tests.chaos.machine import command_of, pids
from tests.chaos.play import Played
from tests.chaos.schedule import Schedule
from tests.chaos.world import World
from tests.overnight.nights import KEY, git

CALM_S = 6.0  # connections and supervisors of what was ended have so long to go


@dataclass(frozen=True)
class Agent:
    """What an agent says of itself, beside and outside of overnight. `ended` is its exit code, None when it was ended.

    `first` and `last` are the wall clock of its first and last note; `boots` one entry a process.
    """

    run_id: str
    boots: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    ended: int | None = None
    problem: str = ""
    first: float = 0.0
    last: float = 0.0


@dataclass(frozen=True)
class Log:
    """One run's output: what its agent noted it wrote, what the host holds, what we hold. None: it is not there."""

    run_id: str
    written: bytes | None
    there: bytes | None
    ours: bytes | None


@dataclass(frozen=True)
class Seen:
    """All of it. Built from a world by `look`, or by hand in tests of the invariants."""

    schedule: Schedule
    batch_id: str
    hits: tuple[Hit, ...]
    exit_code: int | None
    stuck: str
    report: BatchReport | None
    outcomes: Mapping[str, RunReport]
    planned: frozenset[str]
    agents: Mapping[str, Agent]
    logs: tuple[Log, ...] = ()
    home: frozenset[str] = frozenset()
    """Every commit that a ref of the repository leads to."""
    refs: Mapping[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


def look(here: World, played: Played) -> Seen:
    """Wait until nothing moves any more, at most a few seconds, then read everything."""
    leftovers = list(left_over(here))
    deadline = time.monotonic() + CALM_S
    while leftovers and time.monotonic() < deadline:
        time.sleep(0.1)
        leftovers = list(left_over(here))
    ledger = Ledger(here.state, here.batch_id)
    planned = {entry.run_id: entry for entry in entries(ledger)}
    outcomes = {run_id: entry.outcome for run_id, entry in planned.items()}
    path = ledger.directory / "report.json"
    return Seen(
        schedule=here.schedule,
        batch_id=here.batch_id,
        hits=tuple(played.hits),
        exit_code=played.exit_code,
        stuck=played.stuck,
        report=BatchReport.model_validate_json(path.read_bytes()) if path.exists() else None,
        outcomes={run_id: run for run_id, run in outcomes.items() if run is not None},
        planned=frozenset(planned),
        agents=agents(here.side),
        logs=tuple(logs(here, planned)),
        home=frozenset(git(here.repo, "rev-list", "--all").split()),
        refs=refs(here.repo),
        leftovers=tuple(leftovers),
        secrets=tuple(secrets(here)),
    )


def agents(side: Path) -> dict[str, Agent]:
    """Every agent that ever began, by run id; those of probes, too."""
    found = {}
    for path in side.glob("*.notes"):
        notes = [json.loads(line) for line in path.read_text().splitlines()]
        if not notes:
            continue  # it was killed before its first word
        ends = [note for note in notes if note["what"] == "end"]
        found[path.stem] = Agent(
            run_id=path.stem,
            boots=tuple(note["boot"] for note in notes if note["what"] == "start"),
            commits=tuple(note["sha"] for note in notes if note["what"] == "commit"),
            ended=ends[-1]["code"] if ends else None,
            problem=ends[-1].get("error", "") if ends else "",
            first=notes[0]["at"],
            last=notes[-1]["at"],
        )
    return found


def logs(here: World, run_ids: Iterable[str]) -> Iterator[Log]:
    for run_id in run_ids:
        there = [machine.runs / run_id / "out" for machine in here.machines.values()]
        ours = here.batch_folder / "runs" / run_id / "out"
        written = here.side / f"{run_id}.out"
        yield Log(run_id, _bytes(written), next(filter(None, map(_bytes, there)), None), _bytes(ours))


def refs(repo: Path) -> dict[str, str]:
    lines = git(repo, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split() for line in lines)


def left_over(here: World) -> Iterator[str]:
    """Processes, locks and ports that should be gone by now."""
    for machine in here.machines.values():
        for line in machine.strays():
            yield f"a process on {line}"
    yield from (f"a process here: {line}" for line in _strays(here))
    held = [*here.state.glob("batches/*/controller.lock")]
    for machine in here.machines.values():
        held += machine.runs.glob("*/lock")
    yield from (f"a lock that is held: {path}" for path in held if is_held(path))
    places = [here.repo / ".git", *(machine.home / ".overnight" / "mirrors" for machine in here.machines.values())]
    yield from (f"a lock file: {path}" for place in places for path in place.rglob("*.lock"))
    yield from (f"port {port} is listened on" for port in sorted(listening() - here.ports - {_prefect_port(here)}))


def _strays(here: World) -> Iterator[str]:
    """Processes of this side that were not there before: no machine's, not Prefect's."""
    ours = set(pids()) - here.known - {os.getpid()}
    for machine in here.machines.values():
        ours -= machine.own()
    server = here.prefect().get("pid")
    for pid in sorted(ours):
        with suppress(OSError):
            words = command_of(pid)
            if words and server not in _lineage(pid):
                yield words


def _lineage(pid: int) -> list[int]:
    """A process and whoever it descends from."""
    line = [pid]
    with suppress(OSError):
        while line[-1] > 1:
            line.append(int(Path(f"/proc/{line[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
    return line


def is_held(path: Path) -> bool:
    """Whether some process holds a lock on this file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def listening() -> set[int]:
    """Ports of this network namespace that somebody listens on."""
    found = set()
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return found


def _prefect_port(here: World) -> int:
    return int(str(here.prefect().get("url", "0")).rpartition(":")[2])


def secrets(here: World) -> Iterator[str]:
    """Files, and commits, that hold the key."""
    places = [here.state, here.state / "prefect", here.repo, here.side, *here.folder.glob("*.log")]
    places += [machine.home for machine in here.machines.values()]
    places += [machine.folder / "sshd.log" for machine in here.machines.values()]
    for place in places:
        yield from holding(place, KEY.encode())
    if KEY in git(here.repo, "log", "--all", "-p", "--format=%B", "--text"):
        yield f"a commit in {here.repo}"


def holding(place: Path, secret: bytes) -> list[str]:
    """Files at or below a place that hold the secret, by content or by name."""
    argv = ["grep", "-rlaF", "--", secret.decode(), str(place)]
    by_content = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
    by_name = [str(path) for path in place.rglob(f"*{secret.decode()}*")] if place.is_dir() else []
    return [*by_content, *by_name]


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None

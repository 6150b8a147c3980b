"""What a state directory knows of its batches and runs. Reads only; whoever runs a batch is not disturbed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from overnight.failures import BadInput
from overnight.handle import RunHandle
from overnight.ledger import Ledger
from overnight.lockfile import suggest
from overnight.report import BatchReport, RunReport

DOCTOR = "doctor"
"""Folder of the state directory that holds what `doctor` asked; its probes are nobody's batch."""
_NEWEST = 20


@dataclass(frozen=True)
class Entry:
    """One run that was planned here, and so may have been asked of its host."""

    ledger: Ledger
    run_id: str
    plan: dict[str, Any]

    @property
    def directory(self) -> Path:
        return self.ledger.directory / "runs" / self.run_id

    @property
    def task_id(self) -> str:
        return str(self.plan["task_id"])

    @property
    def attempt(self) -> int:
        return int(self.plan["attempt"])

    @property
    def host(self) -> str:
        return str(self.plan["route"]["host"])

    @property
    def is_probe(self) -> bool:
        """Whether it asked if a route is open; such a run works on nothing and is never decided."""
        return self.run_id != f"{self.ledger.batch_id}.{self.task_id}.{self.attempt}"

    @property
    def outcome(self) -> RunReport | None:
        return self.ledger.outcome(self.run_id)

    @property
    def handle(self) -> RunHandle | None:
        return self.ledger.handle(self.run_id)

    @property
    def settled_at(self) -> datetime:
        """When it was decided; of one that is not, when it was planned."""
        decided = self.directory / "outcome.json"
        path = decided if decided.exists() else self.directory / "plan.json"
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)

    @property
    def touched_at(self) -> float:
        """When anything was last written about it; for telling which came last."""
        return max(path.stat().st_mtime for path in self.directory.iterdir())


def ledgers(state: Path, batch_id: str = "") -> list[Ledger]:
    """Every batch that was recorded here, oldest first, the parts of one that was spread after it.

    Args:
        batch_id: That batch and its parts alone.
    """
    whole = [Ledger(state, path.parent.name) for path in state.glob("batches/*/batch.json")]
    parts = [Ledger(state, path.parents[1].name, path.parent.name) for path in state.glob("parts/*/*/batch.json")]
    found = [ledger for ledger in (*whole, *parts) if batch_id in ("", ledger.batch_id)]
    return sorted(found, key=lambda ledger: (ledger.directory / "lock.json").stat().st_mtime)


def batch(state: Path, text: str) -> list[Ledger]:
    """The batch with this id or this unique beginning of one; empty means the newest. First itself, then its parts.

    Raises:
        BadInput: there is none, or several begin so.
    """
    known = list(dict.fromkeys(ledger.batch_id for ledger in ledgers(state)))
    if not known:
        raise BadInput(str(state), "BATCH_ID", "no batch was ever started here", "Name another --state")
    return ledgers(state, _one(text, known, state, "BATCH_ID") if text else known[-1])


def entries(ledger: Ledger) -> Iterator[Entry]:
    """The runs of one batch, probes among them, in the order of their ids."""
    for path in sorted(ledger.directory.glob("runs/*/plan.json")):
        yield Entry(ledger, path.parent.name, json.loads(path.read_text(encoding="utf-8")))


def runs(ledger: Ledger) -> list[Entry]:
    """The attempts at tasks of one batch, by task as they stand in the batch, then by number."""
    return sorted((entry for entry in entries(ledger) if not entry.is_probe), key=lambda e: (e.task_id, e.attempt))


def run(state: Path, text: str, task_id: str = "") -> Entry:
    """One run, by its id, a beginning of its id that fits one task only, or `last`.

    Args:
        task_id: Then `text` is a batch. The newest attempt of the task is meant.

    Raises:
        BadInput: there is none, or it could be several.
    """
    if task_id:
        found = [entry for ledger in batch(state, text) for entry in runs(ledger)]
        tasks = list(dict.fromkeys(entry.task_id for entry in found))
        if task_id not in tasks:
            raise BadInput(str(state), "TASK", f"no run of a task {task_id!r} in that batch", suggest(task_id, tasks))
        return [entry for entry in found if entry.task_id == task_id][-1]
    every = [entry for ledger in ledgers(state) for entry in runs(ledger)]
    if not every:
        raise BadInput(str(state), "RUN_ID", "no run was ever started here", "Name another --state")
    if text == "last":
        return max(every, key=lambda entry: entry.touched_at)
    fitting = {(e.ledger.batch_id, e.task_id): e for e in every if e.run_id.startswith(text)}
    exact = [entry for entry in every if entry.run_id == text]
    if exact or len(fitting) == 1:
        return exact[0] if exact else next(iter(fitting.values()))
    return _named(every, _one(text, [entry.run_id for entry in every], state, "RUN_ID"))


def _named(every: Sequence[Entry], run_id: str) -> Entry:
    return next(entry for entry in every if entry.run_id == run_id)


def _one(text: str, known: Sequence[str], state: Path, field: str) -> str:
    """The name that is `text`, or the only one that begins so."""
    fitting = [text] if text in known else [name for name in known if name.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        newest = ", ".join(fitting[-_NEWEST:])
        raise BadInput(str(state), field, f"{text!r} could be {len(fitting)} of them", f"Write more of it: {newest}")
    raise BadInput(str(state), field, f"there is no {text!r}", suggest(text, known[-_NEWEST:]))


def report(ledger: Ledger) -> BatchReport | None:
    """The batch's last report; None when there is none that reads."""
    try:
        return BatchReport.model_validate_json((ledger.directory / "report.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def is_held(ledger: Ledger) -> bool:
    """Whether some process carries this batch out just now."""
    try:
        with (ledger.directory / "controller.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not take each other for it
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False

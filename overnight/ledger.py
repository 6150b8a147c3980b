"""The state directory: what a batch knows, on disk before it is acted on.

`<state>/batches/<batch_id>/` (and, for an attempt of a batch that was spread over
workers, `<state>/parts/<batch_id>/<part_name>/` on its worker) holds `batch.json` (what was asked), `lock.json`
(the lock it was planned with), `report.json`, `report.md`, `report.html`, and per attempt
`runs/<run_id>/` with `plan.json` (`handed.json` alone where a worker was given it), `handle.json`, the append-only
`out`, `err` and `events.jsonl`, `stop.json` when we ended it for a cause, and `outcome.json`
once it is decided. Nothing about a run
lives only in memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from overnight.failures import BadInput
from overnight.handle import RunHandle
from overnight.lockfile import suggest
from overnight.report import RunReport
from overnight.route import Route
from overnight.spec import BatchSpec
from overnight.stop import Stop

M = TypeVar("M", bound=BaseModel)


class _Asked(BaseModel):
    """`batch.json`."""

    schema_: Literal[1] = Field(alias="schema")
    batch_id: str
    started_at: datetime
    spec: BatchSpec


def part_name(task_id: str, attempt: int) -> str:
    """The folder of one attempt of a spread batch. No id holds a plus."""
    return task_id if attempt == 1 else f"{task_id}+{attempt}"


class Ledger:
    """One batch's folder. Every record is written whole by rename; event logs only grow."""

    def __init__(self, state: Path, batch_id: str, part: str = "") -> None:
        self.state = state
        self.batch_id = batch_id
        self.directory = state / "parts" / batch_id / part if part else state / "batches" / batch_id
        self._name = part or batch_id

    @property
    def is_part(self) -> bool:
        """Whether it is one attempt of a batch that was spread over workers."""
        return self._name != self.batch_id

    def open_new(self, batch: BatchSpec, lock_text: str, started_at: datetime) -> None:
        """Create the folder and write what was asked.

        A part may find its folder, left by a flow that was killed in this very
        moment; the part's name is given, where a batch takes a new one.

        Raises:
            BadInput: the state directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=self.is_part, mode=0o700)
        except OSError as error:
            raise BadInput(
                str(self.state), "--state", f"cannot be written: {error.strerror}", "Give another --state"
            ) from error
        write(self.directory / "lock.json", lock_text)
        asked = _Asked(schema=1, batch_id=self.batch_id, started_at=started_at, spec=batch)
        write(self.directory / "batch.json", asked.model_dump_json(by_alias=True, indent=2))

    def reopen(self) -> tuple[BatchSpec, datetime]:
        """What was asked, from an earlier start of this batch.

        Raises:
            BadInput: there is no such batch here, or its record does not read.
        """
        path = self.directory / "batch.json"
        known = [folder.name for folder in self.directory.parent.glob("*")]
        if self._name not in known:
            near = suggest(self._name, known)
            raise BadInput(str(self.state), "--resume", f"no batch {self.batch_id!r}", near)
        try:
            asked = _Asked.model_validate_json(path.read_bytes())
        except OSError as error:
            raise BadInput(str(path), "file", f"cannot be read: {error.strerror}", "Restore it from a copy") from error
        except ValidationError as error:
            why = error.errors(include_input=False)[0]["msg"]
            raise BadInput(str(path), "file", f"does not fit: {why}", "Restore it from a copy") from None
        return asked.spec, asked.started_at

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other controller off this batch while it runs.

        Raises:
            BadInput: another process holds it, and not just for the moment in
                which `past.is_held` looks.
        """
        with (self.directory / "controller.lock").open("a") as file:
            for tries_left in (3, 2, 1, 0):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not tries_left:
                        problem = f"batch {self.batch_id} is being run by another process"
                        raise BadInput(str(self.state), "--resume", problem, "Wait for it, or stop it first") from None
                    time.sleep(0.05)
            yield

    def run_dir(self, run_id: str) -> Path:
        path = self.directory / "runs" / run_id
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def save(self, run_id: str, name: str, record: BaseModel | dict[str, Any]) -> None:
        """Write one record of a run as `NAME.json`."""
        data = record.model_dump(mode="json") if isinstance(record, BaseModel) else record
        write(self.run_dir(run_id) / f"{name}.json", json.dumps({"schema": 1, **data}, indent=2, ensure_ascii=False))

    def planned(self, run_id: str) -> bool:
        """Whether the host may have been asked for this run already; the plan is written just before."""
        return (self.directory / "runs" / run_id / "plan.json").exists()

    def route(self, run_id: str, record: Literal["plan", "handed"] = "plan") -> Route | None:
        """The route a run was planned on here, or handed out on to another worker; None when it was not."""
        path = self.directory / "runs" / run_id / f"{record}.json"
        if not path.exists():
            return None
        return Route.model_validate(json.loads(path.read_text(encoding="utf-8"))["route"])

    def handle(self, run_id: str) -> RunHandle | None:
        return _read(self.directory / "runs" / run_id / "handle.json", RunHandle)

    def stop(self, run_id: str) -> Stop | None:
        """Why an earlier controller asked the host to end this run, if it did."""
        return _read(self.directory / "runs" / run_id / "stopped.json", Stop)

    def outcome(self, run_id: str) -> RunReport | None:
        return _read(self.directory / "runs" / run_id / "outcome.json", RunReport)

    def knows(self, task_id: str) -> bool:
        """Whether the batch, or this part of it, has such a task."""
        return any(task.id == task_id for task in self.reopen()[0].tasks)

    def attempts(self, task_id: str) -> list[RunReport]:
        """The decided attempts of a task, first to last."""
        pattern = re.compile(re.escape(f"{self.batch_id}.{task_id}.") + r"(\d+)")
        names = [p.name for p in (self.directory / "runs").glob("*") if pattern.fullmatch(p.name)]
        found = [self.outcome(n) for n in sorted(names, key=lambda n: int(n.rpartition(".")[2]))]
        return [run for run in found if run is not None]

    def decided(self) -> list[RunReport]:
        """Every decided attempt of the batch, in no order."""
        found = [self.outcome(path.parent.name) for path in (self.directory / "runs").glob("*/outcome.json")]
        return [run for run in found if run is not None]

    def living(self) -> set[str]:
        """The tasks with an attempt that was started on its host and is not decided."""
        handles = (self.directory / "runs").glob("*/handle.json")
        runs = [path.parent.name for path in handles if not path.with_name("outcome.json").exists()]
        return {run_id.removeprefix(f"{self.batch_id}.").rpartition(".")[0] for run_id in runs}

    def log(self, run_id: str, at: datetime, what: str, **details: Any) -> None:
        """Append one line to the run's event log. A torn last line of an earlier crash stays, on a line of its own."""
        shown = {k: v for k, v in details.items() if v not in (None, "")}
        line = json.dumps({"at": at.isoformat(timespec="milliseconds"), "event": what, **shown}, ensure_ascii=False)
        with (self.run_dir(run_id) / "events.jsonl").open("ab+") as file:
            torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            file.write(b"\n" * torn + line.encode() + b"\n")


def write(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old one or the new one, never half."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _read(path: Path, model: type[M]) -> M | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    del data["schema"]
    return model.model_validate(data)

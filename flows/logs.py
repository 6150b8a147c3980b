"""What a run did and how a batch stands, from the state directory alone; no Prefect, no connection."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from flows.tables import show
from overnight import past
from overnight.failures import Failure
from overnight.morning import many, whereabouts
from overnight.past import Entry
from overnight.printable import safe
from overnight.report import RunReport

Part = Literal["events", "out", "err"]

_LOOK_S, _ASK_S = 0.3, 5.0
_CHUNK_BYTES = 65536
_ENDED = ("ended", "left")


def logs(entry: Entry, part: Part, say: Callable[[str], None], *, follow: bool) -> None:
    """Print what is there of a run; blocks while following, until the run is decided or nobody watches it any more.

    Args:
        part: `events` in words, or the agent's own `out` or `err`, keys masked as they are on the disk.
        say: Prints text as it is, line ends included.
        follow: Go on while the run lives.
    """
    source = _Lines(entry.directory / ("events.jsonl" if part == "events" else part))
    if part == "events":
        say(_heading(entry))
    while True:
        over = not follow or entry.outcome is not None
        abandoned = not over and source.idle_s > _ASK_S and not past.is_held(entry.ledger)
        for text in source.news(last=over or abandoned):
            say(_worded(text) if part == "events" else safe(text))
        if over or abandoned:
            break
        time.sleep(_LOOK_S)
    if part == "events":
        say(_ending(entry))


class _Lines:
    """A file that grows, or is not there yet, by whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._torn = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._grew_at = time.monotonic()

    @property
    def idle_s(self) -> float:
        return time.monotonic() - self._grew_at

    def news(self, *, last: bool) -> Iterator[str]:
        """The lines since the last call; with `last` the unfinished one at the end, too."""
        while data := self._read():
            *lines, self._torn = (self._torn + self._decode(data)).split("\n")
            yield from (f"{line}\n" for line in lines)
        if last and self._torn:
            yield f"{self._torn}\n"
            self._torn = ""

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        self._at += len(data)
        if data:
            self._grew_at = time.monotonic()
        return data


def _heading(entry: Entry) -> str:
    route = entry.plan["route"]
    return safe(
        f"{entry.run_id}: {entry.task_id}, attempt {entry.attempt}\n"
        f"  {route['harness']} on {route['host']} with {route['model']} of {route['provider']}\n"
        f"  files in {entry.directory}\n"
    )


def _worded(line: str) -> str:
    """One line of the event log in words; a line that a crash tore is shown as it is."""
    try:
        event: dict[str, Any] = json.loads(line)
        at, what = datetime.fromisoformat(event.pop("at")), event.pop("event")
    except (ValueError, KeyError, AttributeError):
        return safe(f"  ?         {line.rstrip()}\n")
    return safe(f"  {at.astimezone():%H:%M:%S}  {_what(what, event)}\n")


def _what(what: str, event: dict[str, Any]) -> str:
    match what:
        case "dispatched":
            how = "running" if event.get("answer") == "started" else "found running"
            return f"{how} on {event.get('host')} in {event.get('run_dir')}"
        case "agent":
            return f"agent at {event.get('at_s', 0):7.1f} s: {event.get('said')}"
        case "left":
            return "left to its host, which goes on with it" + _because(event)
        case "ended":
            return _ended(event) + _because(event)
        case "gap":
            return str(event.get("words"))
        case "collected":
            return f"{many(event.get('commits', 0), 'commit')} came home"
        case _:
            return what + "".join(f", {name}: {value}" for name, value in event.items())


def _ended(event: dict[str, Any]) -> str:
    after = f" after {event['seconds']:.0f} s" if "seconds" in event else ""
    match event.get("ending"):
        case "killed":
            return f"ended by {event.get('by')}{after}"
        case "lost":
            return f"lost: {event.get('why')}"
        case _:
            code, signal = event.get("code"), event.get("signal")
            how = f"signal {signal}" if code is None and signal is not None else f"exit code {code}"
            return f"the agent ended with {how}{after}" + (f", {event['exec_error']}" if "exec_error" in event else "")


def _because(event: dict[str, Any]) -> str:
    return f"; we stopped it: {event['stopped']}" if event.get("stopped") else ""


def _ending(entry: Entry) -> str:
    run = entry.outcome
    if run is None:
        now = "is being watched" if past.is_held(entry.ledger) else "is watched by nobody"
        return f"not decided yet; the run {now}. Go on: overnight collect {entry.ledger.batch_id}\n"
    lines = [f"{run.state}" + (f", {whereabouts(run)}" if run.commits else "")]
    if run.failure is not None:
        lines = [f"{run.state}, {run.failure.kind}", *_cause(run.failure)]
    if run.claims:
        lines.append(f"  the agent's claim does not hold: {run.claims}")
    return safe("\n".join(lines)) + "\n"


def _cause(failure: Failure) -> list[str]:
    return [*(f"  seen: {evidence}" for evidence in failure.evidence), f"  mend: {failure.remedy}"]


# --- status ---


def status(state: Path, batch_id: str) -> dict[str, Any]:
    """How a batch stands: one row an attempt, and one for each task that was never begun.

    Raises:
        BadInput: no such batch.
    """
    found = past.batch(state, batch_id)
    entries = [entry for ledger in found for entry in past.runs(ledger)]
    held = {str(ledger.directory): past.is_held(ledger) for ledger in found}
    shown = [_row(entry, held[str(entry.ledger.directory)]) for entry in entries]
    begun = {entry.task_id for entry in entries}
    spec, started_at = found[0].reopen()
    waiting = [{**_nothing(task.id), "host": task.route.host} for task in spec.tasks if task.id not in begun]
    return {
        "schema": 1,
        "batch_id": found[0].batch_id,
        "started_at": started_at.isoformat(timespec="seconds"),
        "running": any(held.values()),
        "runs": shown + waiting,
    }


def _nothing(task_id: str) -> dict[str, Any]:
    return {"task": task_id, "attempt": 0, "run_id": "", "state": "not begun", "cause": "", "commits": 0, "age_s": None}


def _row(entry: Entry, held: bool) -> dict[str, Any]:
    run: RunReport | None = entry.outcome
    living = "running" if entry.handle is not None else "starting"
    state = run.state if run else living if held else "left on its host"
    return {
        "task": entry.task_id,
        "attempt": entry.attempt,
        "run_id": entry.run_id,
        "state": state,
        "cause": str(run.failure.kind) if run and run.failure else "",
        "commits": len(run.commits) if run else 0,
        "age_s": round((datetime.now(UTC) - entry.settled_at).total_seconds()),
        "host": entry.host,
    }


def tell(shown: dict[str, Any]) -> None:
    """The same on a terminal."""
    how = "running" if shown["running"] else "nobody runs it just now"
    rows = [{**row, "since": None if row["age_s"] is None else age(row["age_s"])} for row in shown["runs"]]
    show(rows, ("task", "attempt", "state", "cause", "commits", "since", "host"), f"{shown['batch_id']}: {how}")


def age(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `6 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"

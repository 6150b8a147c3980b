"""Who asked for the end of a batch or of one of its tasks: a file beside its record, so that any process can ask.

Whoever carries the batch out sees it within a second, or the next one to do so
after a crash.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.ledger import write

_LOOK_S = 1.0
_WHOLE = "cancel.json"
_TASKS = "cancel"


def ask_end(directory: Path, task_id: str, by: str, deadline: str = "") -> None:
    """Ask for the end of one task of the batch recorded in `directory`, of all when `task_id` is empty. Idempotent.

    Args:
        deadline: Of the batch, when it is that which asks.
    """
    path = directory / _TASKS / f"{task_id}.json" if task_id else directory / _WHOLE
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        asked = {"schema": 1, "at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by, "deadline": deadline}
        write(path, json.dumps(asked))


class Ends:
    """What was asked for, looked up once a second whoever wants to know. Thread-safe: two may look at once."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._looked: tuple[float, frozenset[str]] = (float("-inf"), frozenset())

    def whole(self) -> bool:
        """Whether the whole batch shall end."""
        return "" in self._asked()

    def of(self, task_id: str) -> bool:
        """Whether this task shall end."""
        return task_id in self._asked()

    def words(self, task_id: str) -> str:
        """Who asked for it and when, of the task or else of the batch; empty when nobody did."""
        asked = self._wish(task_id)
        return f"{asked['by']} asked for its end at {asked['at']}" if asked else ""

    def _wish(self, task_id: str) -> dict[str, str] | None:
        for path in (self._directory / _TASKS / f"{task_id}.json", self._directory / _WHOLE):
            if path.exists():
                found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
                return found
        return None

    def named(self, task_id: str, failure: Failure | None) -> Failure | None:
        """The failure of a cancelled run with who asked for it: a person, or the deadline of the night."""
        if failure is None or failure.kind is not FailureKind.CANCELLED:
            return failure
        asked = self._wish(task_id)
        if asked and asked.get("deadline"):
            late = Evidence(source="clock", seen=f"{asked['deadline']}; ended at {asked['at']}")
            return fail(FailureKind.DEADLINE, late, *failure.evidence)
        return failure.also(Evidence(source="host", seen=self.words(task_id))) if asked else failure

    def served(self) -> None:
        """The whole batch has ended: a later start of it is a new wish. What was asked of single tasks stays."""
        (self._directory / _WHOLE).unlink(missing_ok=True)
        self._looked = (float("-inf"), frozenset())

    def _asked(self) -> frozenset[str]:
        now = self._clock()
        if now - self._looked[0] >= _LOOK_S:
            tasks = {path.name.removesuffix(".json") for path in (self._directory / _TASKS).glob("[!.]*.json")}
            whole = {""} if (self._directory / _WHOLE).exists() else set()
            self._looked = (now, frozenset(tasks | whole))
        return self._looked[1]

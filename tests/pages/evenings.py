"""A night of 20 tasks with something of everything, on disk as a batch leaves it; half of it written by an enemy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from overnight.alarm import sounded
from overnight.attribution import attributed
from overnight.collected import Commit
from overnight.failures import Evidence, FailureKind, fail
from overnight.report import BatchReport, Phases, RouteReport, RunReport, Verify
from tests.overnight.samples import AT, BATCH_ID, ROUTE, report, run

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=http://192.0.2.1/x onerror=\"document.title='owned'\">",
    "\"'><svg onload=document.title='owned'>",
    "{{ 7 * 7 }}{% for x in y %}",
    "</pre></code></style></title><iframe src=//192.0.2.1></iframe>",
    "javascript:document.title='owned'",
    "\x1b]0;owned\x07\x1b[2J\u202etxt.exe\x00\r\x9b5n",
)
"""What an agent, a tool or a provider may write to be taken for something else."""


def mixed_night(directory: Path, hostile: Sequence[str] = ()) -> BatchReport:
    """9 of 20 succeed, all on the host `attic`; 4 keys are refused; the rest fails on `box`, some tried twice.

    Args:
        directory: The batch's folder; the event logs are written there.
        hostile: Texts to stand wherever somebody else than us has the word.
    """
    say = _Words(hostile)
    runs = [*(_well(i, directory, say) for i in range(9))]
    for i in range(7):
        runs += _quiet(i, directory, say)
    refused = fail(FailureKind.AUTH_REJECTED, Evidence(source="probe", seen=say("401: key unknown")), names=_NAMES)
    never = {"attempt": 0, "run_id": "", "state": "skipped", "failure": refused, "model": "glm-5.1"}
    runs += [run(task_id=f"port-module-{i}", **never) for i in range(4)]
    shut = RouteReport(**{**ROUTE.model_dump(), "model": "glm-5.1"}, state="shut", preflight_s=1.1, failure=refused)
    routes = [
        RouteReport(
            **{**ROUTE.model_dump(), "host": host}, state="open", preflight_s=2.1, notes=(say("clock 3 s off"),)
        )
        for host in ("attic", "box")
    ]
    return report(*runs).model_copy(
        update={
            "routes": (*routes, shut),
            "attribution": attributed(runs),
            "alarm": sounded(runs),
            "name": "tonight",
            "source": "tonight.yaml",
        }
    )


class _Words:
    """Gives the next hostile text, where there are any, else what was to be said."""

    def __init__(self, hostile: Sequence[str]) -> None:
        self._hostile = hostile
        self._next = 0

    def __call__(self, plain: str) -> str:
        if not self._hostile:
            return plain
        self._next += 1
        return self._hostile[self._next % len(self._hostile)]


_NAMES = ROUTE.names
_FACTS: dict[str, Any] = {"harness_version": "2.1.330", "credential": "5f1c8a90b2e4", "environment": "c0ffee123456"}


def _well(i: int, directory: Path, say: _Words) -> RunReport:
    run_id = f"{BATCH_ID}.add-tests-{i}.1"
    seconds = 400.0 + 97 * i
    events = [(2.0, "started, model glm-5.2"), *((9.0 + 23 * n, say("tool Bash")) for n in range(int(seconds) // 25))]
    _write(directory, run_id, [*events, (150.0, "retry 1: 529 overloaded"), (seconds - 5, "commit 1234567890")])
    commits = tuple(
        Commit(sha=f"{i}{n}" * 20, subject=say(f"Cover the parser, part {n + 1}"), author_date=AT)
        for n in range(1 + i % 3)
    )
    return run(
        task_id=f"add-tests-{i}",
        run_id=run_id,
        host="attic",
        commits=commits,
        branch=f"overnight/{BATCH_ID}/add-tests-{i}",
        repo="/srv/git/app.git",
        base_sha="a" * 40,
        diffstat=say("2 files changed, 31 insertions(+)"),
        verify=Verify(command="make test", exit_code=0, seconds=21.5),
        seconds=Phases(queued=60.0 * i, start=4.2, run=seconds, collect=1.4),
        first_event_s=2.0,
        tokens=51_000 + 1000 * i,
        usd=0.31 if i % 2 else None,
        started_at=AT + timedelta(minutes=10 * i),
        log=str(directory / "runs" / run_id),
        **_FACTS,
    )


def _quiet(i: int, directory: Path, say: _Words) -> list[RunReport]:
    """A task that fell silent, was tried again, and committed nothing."""
    tries = []
    for attempt, kind in ((1, FailureKind.WENT_QUIET), (2, FailureKind.NO_COMMIT)):
        run_id = f"{BATCH_ID}.fix-parser-{i}.{attempt}"
        events = [(3.0, "started, model glm-5.2"), (30.0, say("tool Read")), (60.0, "retry 2: 500 server error")]
        _write(directory, run_id, events if attempt == 1 else [*events, (95.0, "error api_error")])
        source, seen = ("clock", "no event for 420 s") if attempt == 1 else ("git", "0 commits since the base")
        sighting = Evidence(source=source, seen=say(seen), at_s=480.0)
        tries.append(
            run(
                task_id=f"fix-parser-{i}",
                run_id=run_id,
                attempt=attempt,
                state="failed",
                failure=fail(kind, sighting, Evidence(source="event", seen=say("last event: tool Read")), names=_NAMES),
                seconds=Phases(queued=20.0 + 500 * (attempt - 1), start=3.1, run=480.0 if attempt == 1 else 140.0),
                verify=Verify(command=say("make test"), exit_code=2, seconds=3.0, tail=say("1 failed\n")),
                claims=say("it reported success; there is no commit") if attempt == 2 else None,
                started_at=AT + timedelta(minutes=7 * i),
                log=str(directory / "runs" / run_id),
                **_FACTS,
            )
        )
    return tries


def _write(directory: Path, run_id: str, said: Sequence[tuple[float, str]]) -> None:
    folder = directory / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"at": AT.isoformat(), "event": "agent", "at_s": at_s, "said": words} for at_s, words in said]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "out").write_text("")

"""`overnight rehearse --night`: a whole night with planted troubles in two minutes, and whether the morning tells them.

The agents, the SSH host, git, the batch and its report are the real ones. The
provider is emulated, and the clock by which the night is planned (waits,
cooldowns, the deadline) goes 300 times as fast.
"""

from __future__ import annotations

import copy
import json
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.rehearse import INCIDENT, PROJECT, RIGHT, incident_lock, repository, to_its_end
from flows.tables import show
from overnight import keyshape
from overnight.clock import VARIABLE, Clock
from overnight.ledger import write
from overnight.night import now
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Shell, Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import MODELS, Site
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.report import BatchReport, RunReport, last_attempts

SPEED = 300.0
HOURS = 8.0
RESET_H = 2.5
WINDOW, DYING = "rehearsal-window", "rehearsal-dying"
_COMMIT = "git add -A && git commit -qm"
_NOTE = 'echo "a note" >> notes-$(date +%s%N).md'
_WORK, _LONG, _FAILS = "Write a note", "Write a note, then go on for ever", "Write what the check refuses"
TAPES = (
    Tape(_LONG, (Shell(f'{_NOTE} && {_COMMIT} "A note"'), Shell("sleep 1000"))),
    Tape(_FAILS, (Shell(f'echo no > refused && {_COMMIT} "Refused"'),)),
    Tape(_WORK, (Shell(f'{_NOTE} && {_COMMIT} "A note"'),)),
)


@dataclass(frozen=True)
class Planted:
    """A task of the night, what is wrong with it, and so what the morning must say: states, cause, provider."""

    id: str
    trouble: str
    route: str | tuple[str, ...] = RIGHT
    instruction: str = _WORK
    after: tuple[str, ...] = ()
    stacked: bool = False
    verify: str = ""
    attempts: int = 2
    states: tuple[str, ...] = ("succeeded",)
    kind: str | None = None
    provider: str = ""

    def task(self, harness: str) -> dict[str, Any]:
        """As a batch file has it."""
        names = (self.route,) if isinstance(self.route, str) else self.route
        routes = [{"host": "rehearsal", "harness": harness, "provider": name, "model": MODELS[0]} for name in names]
        route = routes[0] if isinstance(self.route, str) else routes
        given = {"after": list(self.after), "stacked": self.stacked, "verify": self.verify}
        more = {name: value for name, value in given.items() if value}
        limits = {"attempts": self.attempts}
        return {"id": self.id, "instruction": self.instruction, "route": route, "limits": limits, **more}

    def told(self, run: RunReport) -> bool:
        """Whether the morning says so."""
        kind = run.failure.kind if run.failure else None
        return run.state in self.states and kind == self.kind and run.provider == (self.provider or run.provider)


_DEAD = ("failed", "skipped")
NIGHT = (
    Planted("plain", "nothing"),
    Planted("stacked", "nothing; it starts from what `plain` committed", after=("plain",), stacked=True),
    Planted("refused", "its check never passes", instruction=_FAILS, verify="test ! -e refused", states=("failed",),
            kind="verify-failed"),
    Planted("unbuilt", "it comes after `refused`", after=("refused",), states=("skipped",), kind="predecessor"),
    Planted("window-1", f"the plan's window is used up, and opens {RESET_H:g} h later", WINDOW),
    Planted("window-2", "the same", WINDOW),
    Planted("dying-1", "nothing: its provider lives still", DYING),
    Planted("moves", "its provider is dead by then; it has another", (DYING, RIGHT), after=("dying-1",),
            attempts=4, provider=RIGHT),
    Planted("stays-1", "its provider is dead by then", DYING, after=("dying-1",), states=_DEAD, kind="provider-error"),
    Planted("stays-2", "the same", DYING, after=("dying-1",), states=_DEAD, kind="provider-error"),
    Planted("incident", "the key is in the wrong variable", INCIDENT, states=("skipped",), kind="wrong-header"),
    Planted("endless", f"it is not done when the night is over, after {HOURS:g} h", instruction=_LONG,
            states=("cancelled",), kind="deadline"),
)  # fmt: skip


def rehearse_night(state: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Play it in a new folder below `state`; 0 when the morning tells every planted trouble and nothing else."""
    directory = state / "rehearsals" / f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    directory.mkdir(parents=True, mode=0o700)
    repo = repository(directory / "repo", environ)
    with _world(directory, environ) as (provider, host, env):
        batch = directory / "night.yaml"
        clock = Clock(SPEED, time.time())
        tasks = [planted.task("scripted") for planted in NIGHT]
        limits = {"first_event_s": 60, "quiet_s": None, "total_s": 900, "grace_s": 1}
        defaults = {"repo": str(repo.path), "base": "main", "ask_for_commit": False, "limits": limits}
        deadline = datetime.fromtimestamp(clock.since + HOURS * 3600, UTC).isoformat(timespec="seconds")
        whole = {"schema": 1, "name": "night", "deadline": deadline, "hosts": {"rehearsal": host}}
        write(batch, json.dumps({**whole, "defaults": defaults, "tasks": tasks}, indent=1))
        say(f"A night of {HOURS:g} hours, {SPEED:g} times as fast: {len(NIGHT)} tasks, planted troubles among them.\n")
        with _troubles(provider, clock):
            report_path = directory / "report.json"
            argv = [sys.executable, "-m", "flows.batch", str(batch), "--lock", str(directory / "providers.lock.json")]
            argv += ["--state", str(directory / "state"), "--json", str(report_path)]
            to_its_end(argv, PROJECT, {**env, VARIABLE: str(clock)})
    if not report_path.exists():
        say("The batch wrote no report; see its words above.")
        return 1
    return _compared(BatchReport.model_validate_json(report_path.read_text(encoding="utf-8")), say)


def _compared(report: BatchReport, say: Callable[[str], None]) -> int:
    """Print what was planted beside what is told; 0 when they agree."""
    last = {run.task_id: run for run in last_attempts(report.runs)}
    rows, wrong = [], []
    for planted in NIGHT:
        run = last[planted.id]
        ends = f"{run.state}{f': {run.failure.kind}' if run.failure else f', {run.provider}'}"
        rows.append({"task": planted.id, "planted": planted.trouble, "told": ends, "": planted.told(run) or "WRONG"})
        wrong += [] if planted.told(run) else [planted.id]
    say("")
    show([{**row, "": "as planted" if row[""] is True else row[""]} for row in rows], ["task", "planted", "told", ""])
    if wrong:
        say(f"\nThis rehearsal did NOT go as it must: {', '.join(wrong)}.")
    return 1 if wrong else 0


@contextmanager
def _world(
    directory: Path, environ: Mapping[str, str]
) -> Iterator[tuple[EmulatedProvider, dict[str, Any], dict[str, str]]]:
    """The emulated parts, up while the block runs: the provider, the host as a batch file has it, the environment."""
    keys = {name: f"sk-rehearsal-{secrets.token_hex(12)}" for name in (RIGHT, INCIDENT, WINDOW, DYING)}
    (directory / "home").mkdir()
    with ExitStack() as stack:
        sites = [Site(name, key) for name, key in keys.items()]
        provider = stack.enter_context(EmulatedProvider(sites, TAPES))
        public = make_key(directory / "key")
        host = stack.enter_context(LoopbackHost("rehearsal", [public], home=directory / "home"))
        lock = incident_lock({name: provider.url(name) for name in (RIGHT, INCIDENT)})
        for name in (WINDOW, DYING):
            lock["providers"][name] = copy.deepcopy(lock["providers"][RIGHT])
            for endpoint in lock["providers"][name]["endpoints"].values():
                endpoint["url"] = provider.url(name)
        write(directory / "providers.lock.json", json.dumps(lock))
        there = {"address": host.address, "port": host.port, "user": "rehearsal", "host_key": host.host_key}
        python = Path(shutil.which("python3", path=environ.get("PATH")) or sys.executable).parent
        more = {"key_file": str(directory / "key"), "slots": 3, "path": [str(python)], "min_free_bytes": 0}
        held = {keyshape.variable(name): key for name, key in keys.items()}
        yield provider, {**there, **more}, {**environ, "DO_NOT_TRACK": "1", **held}


@contextmanager
def _troubles(provider: EmulatedProvider, clock: Clock) -> Iterator[None]:
    """Plant them, each at its moment: the window is used up from the start, a provider dies after its first task."""
    opens = clock.since + RESET_H * 3600
    at = datetime.fromtimestamp(opens, UTC).replace(microsecond=0)
    provider.set_fault(WINDOW, Fault(FaultKind.WINDOW_USED_UP, resets_at=at, spares_probes=True))
    over = threading.Event()

    def play() -> None:
        dead = is_open = False
        while not over.wait(0.05):
            if not is_open and clock.now() >= at.timestamp():
                is_open = True
                provider.set_fault(WINDOW, None)
            done = [call for call in provider.calls_of(DYING) if call.tools and not call.is_probe]
            if not dead and len(done) >= 2:  # the two turns of its first task
                dead = True
                provider.set_fault(DYING, Fault(FaultKind.SERVER_ERROR, spares_probes=True))

    player = threading.Thread(target=play, name="troubles")
    player.start()
    try:
        yield
    finally:
        over.set()
        player.join()

"""One batch from a terminal: server, flow, progress, interrupt, exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from prefect import tags
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogWorker

from flows.api import ended, prefect_api, quiet_console
from flows.batch import batch
from flows.desk import DESK, Desk
from flows.prepare import check_here, prepare, record, state_directory, with_hosts
from flows.private_server import OutOfReach, PrivateServer
from flows.progress import Progress
from flows.spread import find_unit
from overnight.failures import BadInput
from overnight.ledger import Ledger, write
from overnight.morning import summary
from overnight.night import Night
from overnight.report import EXIT_FAILED, EXIT_INTERRUPTED, BatchReport
from overnight.station import Interrupt


def dry_run(files: Sequence[Path], lock: Path | None, only: Sequence[str]) -> list[dict[str, Any]]:
    """Every run's plan as JSON data; nothing is started or written.

    Raises:
        BadInput: as for a real start.
    """
    return [plan.shown() for plan in prepare(files, lock, only, os.environ).plans]


def run_batch(
    files: Sequence[Path],
    lock: Path | None,
    state: Path | None,
    only: Sequence[str],
    resume: str | None,
    json_path: Path | None,
    on_interrupt: str | None,
) -> int:
    """Run or resume a batch and return the exit code.

    Raises:
        BadInput: nothing was started.
    """
    directory = state_directory(state, os.environ)
    if json_path is not None:
        check_writable(json_path.absolute())
    prepared = None
    if resume:
        _check_resumable(Ledger(directory, resume))
    else:
        prepared = prepare(files, lock, only, os.environ)
    quiet_console()
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(sys.stderr))
        interrupt = stack.enter_context(Interrupts(on_interrupt, progress))
        server = stack.enter_context(prefect_api(directory, progress))
        batch_id = resume or ""
        if prepared is not None:
            if prepared.batch.spread:
                asyncio.run(find_unit())
            batch_id = record(with_hosts(prepared), directory).batch_id
        report_path = directory / "batches" / batch_id / "report.json"
        before = stamp(report_path)
        progress.tell(batch_id, "batch", f"state in {report_path.parent}")
        words, orderly = _carry_out(directory, batch_id, lock, Desk(progress.tell, interrupt.opened), server)
    report = written_anew(report_path, before)
    if report is None:
        sys.stderr.write(f"The batch ended without a report: {words}\n")
        code = EXIT_INTERRUPTED if interrupt.happened else EXIT_FAILED
    else:
        if json_path is not None:
            write(json_path.absolute(), report.to_json())
        pages = f"overnight pages --state {directory}" if server is not None else None
        sys.stdout.write(summary(report, report_path.parent, pages))
        code = report.exit_code
    if not orderly:
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End now: Prefect 3.8.8 tries to send each event for 7 s before it lets a process end, and threads are joined."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _carry_out(
    directory: Path, batch_id: str, lock: Path | None, desk: Desk, server: PrivateServer | None
) -> tuple[str, bool]:
    """The flow's last words, and whether it came to an orderly end.

    Its report is on disk before Prefect hears of it, so an API that went away
    meanwhile costs pages and nothing else.
    """
    token = DESK.set(desk)
    try:
        outcome = asyncio.run(_run(directory, batch_id, str(lock.absolute()) if lock else ""))
        if server is not None and outcome.state_details.flow_run_id is not None:
            APILogWorker.drain_all(timeout=10)
            server.drain(outcome.state_details.flow_run_id)
    except OutOfReach as error:
        return f"the Prefect API went away: {error or type(error).__name__}", False
    except KeyboardInterrupt:
        return f"given up; what runs on hosts goes on: python -m flows.batch --resume {batch_id}", False
    finally:
        DESK.reset(token)
    return str(outcome.message), True


def check_writable(path: Path) -> None:
    """Refuse now what could not be written in the morning."""
    if not path.parent.is_dir():
        raise BadInput("command line", "--json", f"no folder {path.parent}", "Create it first")
    if path.is_dir():
        raise BadInput("command line", "--json", f"{path} is a folder", "Name a file")
    if not os.access(path.parent, os.W_OK):
        raise BadInput("command line", "--json", f"{path.parent} cannot be written", "Name another place")


def _check_resumable(ledger: Ledger) -> None:
    """Refuse what the flow would refuse, while nothing is started yet."""
    check_here(ledger, os.environ)
    with ledger.held():
        pass


def stamp(path: Path) -> tuple[int, int] | None:
    """What tells one writing of a file from another, as each makes a new one; None when there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def written_anew(path: Path, before: tuple[int, int] | None) -> BatchReport | None:
    """The report of this very start; one of an earlier start of the batch does not count.

    Its own moments decide nothing: a clock may be set back in the night.
    """
    if stamp(path) in (None, before):
        return None
    return BatchReport.model_validate_json(path.read_text(encoding="utf-8"))


async def _run(directory: Path, batch_id: str, lock: str) -> State[Any]:
    spec, _ = Ledger(directory, batch_id).reopen()
    with tags("overnight"):  # as deployments have it: the automation for crashed runs looks at these alone
        return await ended(batch(name=spec.name, resume=batch_id, state=str(directory), lock=lock, return_state=True))


class Interrupts:
    """Turns signals into `cancel` or `detach`, so that the batch ends with a report and leaves nobody behind.

    A second Ctrl-C always cancels, a third gives up at once. A lost terminal
    and a request to end (SIGHUP, SIGTERM) ask nobody: they leave the runs to
    their hosts, unless `--on-interrupt` says otherwise.
    """

    def __init__(self, wish: str | None, progress: Progress) -> None:
        self._wish = wish
        self._progress = progress
        self._night: Night | None = None
        self._count = 0
        self._before: dict[int, Any] = {}

    @property
    def happened(self) -> bool:
        return self._count > 0

    def opened(self, night: Night) -> None:
        """The batch is up and can be told. Called in the main thread."""
        self._night = night
        signal.signal(signal.SIGTERM, self._handle)  # a flow has a handler of its own, which ends it without a report

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP for us
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._night is None or (number == signal.SIGINT and self._count > 2):
            raise KeyboardInterrupt
        threading.Thread(target=self._tell, args=(self._night, number), daemon=True).start()

    def _tell(self, night: Night, number: int) -> None:
        if number != signal.SIGINT:
            how = self._wish or "detach"
        else:
            how = "cancel" if self._count > 1 else (self._wish or self._asked())
        self._progress.say(
            "Interrupted: ending the runs and collecting what they committed"
            if how == "cancel"
            else f"Interrupted: leaving the runs to their hosts; go on with --resume {night.ledger.batch_id}"
        )
        night.stop("cancel" if how == "cancel" else "detach")

    def _asked(self) -> Interrupt:
        if not sys.stdin.isatty():
            return "detach"
        self._progress.say("Interrupted. End the runs [c], or leave them on their hosts [d]? (Ctrl-C again ends them)")
        return "cancel" if sys.stdin.readline().strip().lower().startswith("c") else "detach"

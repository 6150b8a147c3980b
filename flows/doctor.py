"""Is every route open, and if not, what mends it? `python -m flows.doctor`."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.api import ended
from flows.by_hand import by_hand
from flows.desk import DESK, night_of
from flows.doctor_mends import mend
from flows.doctor_routes import asked, from_files
from flows.prepare import record
from flows.run_batch import check_writable
from flows.state import state_directory
from flows.tables import show
from overnight import layers, lockfile
from overnight.doctor import proposal, words
from overnight.doctor.memory import remembered
from overnight.doctor.records import Checkup
from overnight.doctor.visit import Visit
from overnight.failures import BadInput, Evidence, FailureError, FailureKind, fail
from overnight.history import history
from overnight.ledger import Ledger, write
from overnight.lockfile import ProviderLock
from overnight.morning import many
from overnight.night import Night
from overnight.past import DOCTOR
from overnight.report import EXIT_FAILED, EXIT_NOTHING_STARTED, EXIT_SUCCEEDED
from overnight.spec import TaskSpec
from tasks.calls import in_thread
from tasks.examine import examine
from tasks.look import look
from tasks.publish import publish_checkup

_NIGHTS = 30  # whose causes are remembered


def _named() -> str:
    files = [Path(file).name for file in flow_run.parameters.get("files", ())]
    return f"doctor {' '.join(files) or 'of all that is saved'}"


@flow(name="doctor", flow_run_name=_named)
async def doctor(
    files: Sequence[str] = (),
    routes: Sequence[str] = (),
    hosts: Sequence[str] = (),
    providers: Sequence[str] = (),
    find: bool = False,
    state: str = "",
    lock: str = "",
) -> State[Any]:
    """Look at every host and ask every model one short question, directly and through the agent, as a night does.

    No task is run. Causes of past nights are looked for where they were seen.
    The table says of every route whether it is open, and else which layer is at
    fault, and what mends it: where the answers disagree, the variable, header,
    URL, model or flag that works is searched for, one at a time.

    Args:
        files: Batch files (YAML), or Markdown files with front matter. Paths on the worker. Empty: all that is saved.
        routes: Only these, as HOST/HARNESS/PROVIDER/MODEL; the end may be left out.
        hosts: Only these hosts.
        providers: Only these providers.
        find: Search for what works also where all answers agree; may show the key to other servers of its vendor.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
        lock: Provider lock on the worker. Empty means $OVERNIGHT_LOCK, else the one of this project.
    """
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        batches = await in_thread(asked, files, routes, hosts, providers, lock, os.environ)
    except BadInput as error:
        return Failed(message=str(error), data=error)
    found = await asyncio.gather(*(_visited(record(prepared, directory / DOCTOR), find=find) for prepared in batches))
    checkup = Checkup(
        hosts=tuple(each for one in found for each in one.hosts),
        diagnoses=tuple(each for one in found for each in one.diagnoses),
    )
    if not files:
        checkup = checkup.where_installed()
    past = await in_thread(history, directory, _NIGHTS)
    checkup = checkup.model_copy(update={"remembered": remembered(checkup, past.signatures)})
    await publish_checkup(" and ".join(dict.fromkeys(prepared.batch.name for prepared in batches)), checkup)
    return _end_state(checkup)


async def _visited(ledger: Ledger, *, find: bool) -> Checkup:
    desk = DESK.get()
    night = night_of(ledger)
    desk.opened(night)
    visit = Visit(night, lockfile.load(), find=find)
    firsts = {task.route: task for task in reversed(night.batch.placed)}
    try:
        looks = [ended(look(visit, host, return_state=True)) for host in night.stations]
        await asyncio.gather(*looks, *(_examined(visit, task) for task in firsts.values()))
        return visit.checkup()
    except asyncio.CancelledError:
        await in_thread(visit.break_off)
        raise
    finally:
        await in_thread(night.close)


async def _examined(visit: Visit, task: TaskSpec) -> None:
    """Nothing is left open: what could not be found out is a route that is shut, with what was seen."""
    began = time.monotonic()
    state = await ended(examine(visit, task, return_state=True))
    if visit.settled(task.route):
        return
    error = await state.aresult(raise_on_failure=False)
    seen = Evidence(source="host", seen=f"{type(error).__name__}: {error}", where="overnight")
    failure = error.failure if isinstance(error, FailureError) else fail(FailureKind.INTERNAL, seen)
    visit.give_up(task.route, failure, time.monotonic() - began)


def _end_state(checkup: Checkup) -> State[Any]:
    shut = [route for route in checkup.routes if route.failure is not None]
    told = f"{many(len(checkup.routes) - len(shut), 'route')} open"
    if not shut:
        return Completed(message=told, data=checkup)
    return Failed(message=f"{told}, {len(shut)} shut: {shut[0].failure}", data=checkup)


def visit(
    files: Sequence[Path],
    routes: Sequence[str],
    hosts: Sequence[str],
    providers: Sequence[str],
    lock: Path | None,
    state: Path | None,
    json_path: Path | None,
    *,
    find: bool,
    proposing: bool,
    fixing: bool,
    yes: bool,
) -> int:
    """The flow from a terminal; the exit code: 0 all open, 1 some shut, 3 all shut.

    Raises:
        BadInput: nothing was asked.
    """
    directory = state_directory(state, os.environ)
    if json_path is not None:
        check_writable(json_path.absolute())
    names, place = [str(file) for file in files], str(lock or "")
    from_files(names, place, os.environ)  # refused before a server is started
    nights: list[Night] = []
    checkup: Checkup = by_hand(
        lambda: doctor(
            files=names,
            routes=list(routes),
            hosts=list(hosts),
            providers=list(providers),
            find=find,
            state=str(directory),
            lock=place,
            return_state=True,
        ),
        directory,
        nights.append,
    )
    if json_path is not None:
        write(json_path.absolute(), json.dumps(checkup.shown(), indent=2, ensure_ascii=False) + "\n")
    _show(checkup)
    if proposing:
        _propose(checkup, layers.in_use(lock, os.environ))
    if fixing:
        mend(checkup, {name: host for night in nights for name, host in night.batch.hosts.items()}, yes=yes)
    shut = sum(route.failure is not None for route in checkup.routes)
    return EXIT_SUCCEEDED if not shut else EXIT_NOTHING_STARTED if shut == len(checkup.routes) else EXIT_FAILED


def _show(checkup: Checkup) -> None:
    """The table on standard output; what is long, below it."""
    rows = words.rows(checkup)
    long = ("seen", "mend", "notes")
    show(rows, [name for name in rows[0] if name not in long])
    sys.stdout.write("\n".join([*words.details(checkup), ""]))


def _propose(checkup: Checkup, lock: ProviderLock) -> None:
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    path = proposal.write(proposal.proposed(checkup, lock, who, date.today()), lock, Path.cwd())
    tries, keeps = f"  try it:  --lock {path.name}", f"  keep it: mv {path.name} {lockfile.OVERLAY}"
    sys.stdout.write("\n".join(["", f"proposed overlay: {path}", tries, keeps, ""]))


if __name__ == "__main__":
    from flows.cli_doctor import main

    main()

"""Is every route of a batch open? `python -m flows.doctor FILE`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.attempts import preflights
from flows.by_hand import by_hand
from flows.desk import DESK, night_of
from flows.prepare import Prepared, prepare, record, with_hosts
from flows.run_batch import check_writable
from flows.state import state_directory
from flows.tables import show
from overnight.failures import BadInput
from overnight.ledger import Ledger, write
from overnight.morning import doctor_rows, many
from overnight.past import DOCTOR
from overnight.report import EXIT_FAILED, EXIT_NOTHING_STARTED, EXIT_SUCCEEDED, RouteReport
from tasks.calls import in_thread
from tasks.publish import publish_routes


def _named() -> str:
    return f"doctor {' '.join(Path(file).name for file in flow_run.parameters.get('files', ()))}"


@flow(name="doctor", flow_run_name=_named)
async def doctor(
    files: Sequence[str] = (),
    state: str = "",
    lock: str = "",
) -> State[Any]:
    """Probe every route of batch files the way a night does: one short answer from each model.

    No task is run. The table says of every route whether it is open, and else
    why not, and what mends it.

    Args:
        files: Batch files (YAML), or Markdown files with front matter. Paths on the worker.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
        lock: Provider lock on the worker. Empty means $OVERNIGHT_LOCK, else the one of this project.
    """
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        asked = [with_hosts(prepared) for prepared in _prepared(files, lock)]
    except BadInput as error:
        return Failed(message=str(error), data=error)
    found = await asyncio.gather(*(_probed(record(prepared, directory / DOCTOR)) for prepared in asked))
    routes = [route for each in found for route in each]
    await publish_routes(" and ".join(dict.fromkeys(prepared.batch.name for prepared in asked)), routes)
    for route in routes:
        get_run_logger().info("%s %s: %s", route.harness, route.host, route.failure or "open")
    return _end_state(routes)


def _prepared(files: Sequence[str], lock: str) -> list[Prepared]:
    """One batch for each YAML file, and one for all Markdown files together."""
    paths = [Path(file).expanduser() for file in files]
    markdown = [path for path in paths if path.suffix.lower() in (".md", ".markdown")]
    groups = [[path] for path in paths if path not in markdown] + ([markdown] if markdown or not paths else [])
    return [prepare(group, Path(lock) if lock else None, [], os.environ) for group in groups]


async def _probed(ledger: Ledger) -> tuple[RouteReport, ...]:
    desk = DESK.get()
    night = night_of(ledger)
    desk.opened(night)
    try:
        await preflights(night)
        return night.routes()
    finally:
        await in_thread(night.close)


def _end_state(routes: Sequence[RouteReport]) -> State[Any]:
    shut = [route for route in routes if route.failure is not None]
    words = f"{many(len(routes) - len(shut), 'route')} open"
    if not shut:
        return Completed(message=words, data=routes)
    return Failed(message=f"{words}, {len(shut)} shut: {shut[0].failure}", data=routes)


def examine(files: Sequence[Path], lock: Path | None, state: Path | None, json_path: Path | None) -> int:
    """The flow from a terminal; returns the exit code: 0 all open, 1 some shut, 3 all shut.

    Raises:
        BadInput: nothing was probed.
    """
    directory = state_directory(state, os.environ)
    if json_path is not None:
        check_writable(json_path.absolute())
    names, place = [str(file) for file in files], str(lock or "")
    _prepared(names, place)  # refused before a server is started
    routes: list[RouteReport] = by_hand(
        lambda: doctor(files=names, state=str(directory), lock=place, return_state=True), directory
    )
    if json_path is not None:
        shown = {"schema": 1, "routes": [route.model_dump(mode="json") for route in routes]}
        write(json_path.absolute(), json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    _show(routes)
    shut = sum(route.failure is not None for route in routes)
    return EXIT_SUCCEEDED if not shut else EXIT_NOTHING_STARTED if shut == len(routes) else EXIT_FAILED


def _show(routes: Sequence[RouteReport]) -> None:
    """The table on standard output; what is long, below it."""
    rows = doctor_rows(routes)
    long = ("seen", "mend", "notes")
    show(rows, [name for name in rows[0] if name not in long])
    for row in rows:
        said = [f"    {name}: {row[name]}\n" for name in long if row[name]]
        if said:
            named = f"  {row['harness']} on {row['host']}, {row['model']} of {row['provider']}\n"
            sys.stdout.write("".join([named, *said]))


if __name__ == "__main__":
    from flows.cli_runs import doctor_main

    doctor_main()

"""Frees room on hosts and here: `python -m flows.gc`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows.state import state_directory
from flows.tables import show
from flows.terminal import print_json
from overnight import past, sweep, tidy
from overnight.failures import BadInput
from overnight.night import now
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED
from overnight.sweep import Place, Verdict
from tasks.calls import in_thread


@flow(name="gc", flow_run_name="gc")
async def gc(
    keep_days: Annotated[float, Field(ge=0)] = 14,
    dry_run: bool = True,
    records: bool = False,
    state: str = "",
) -> State[Any]:
    """Remove what decided runs left: on hosts, and as refs in repositories on this machine.

    From a host goes a run whose commits are at home, a mirror that no run
    needs, a supervisor of an older version. Here goes a ref of ours whose
    commit is in a branch.

    Never removed: a living run, one that is not decided, one with work that is
    on its host alone, one that no batch of the state directory knows. The
    table says of each run what became of it, and why.

    Args:
        keep_days: Keep what was decided later than so many days ago.
        dry_run: Only say what would be removed.
        records: Also remove the folders of batches that are over and of which no host holds anything.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
    """
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
    except BadInput as error:
        return Failed(message=str(error), data=error)
    verdicts, unheard = await in_thread(_swept, directory, keep_days, dry_run, records)
    await acreate_table_artifact(_rows(verdicts), key="gc", description=_words(verdicts, unheard))
    for line in (*_sums(verdicts), *_unheard(unheard)):
        get_run_logger().info(line)
    failed = bool(unheard) or any(each.verdict == "failed" for each in verdicts)
    return (Failed if failed else Completed)(message=_words(verdicts, unheard), data=verdicts)


def _swept(state: Path, keep_days: float, dry_run: bool, records: bool) -> tuple[list[Verdict], list[Place]]:
    """Say of all that lies on hosts and here what may become of it, and do it unless `dry_run`; blocks."""
    known, keep, path = sweep.known_runs(state), timedelta(days=keep_days), os.environ.get("PATH", os.defpath)
    every = [*past.ledgers(state), *past.ledgers(state / past.DOCTOR)]
    places = sweep.look(sweep.hosts(every))
    made: list[Verdict] = []
    try:
        for place in places:
            verdicts = sweep.judge(place, known, keep, now(), path)
            made += verdicts if dry_run else sweep.remove(place, verdicts)
    finally:
        for place in places:
            place.station.close()
    refs = tidy.judge_refs(known, keep, now(), path)
    made += [each.verdict for each in refs] if dry_run else tidy.drop_refs(refs)
    if records:
        folders = tidy.judge_records(every, places, keep, now())
        made += [each.verdict for each in folders] if dry_run else tidy.drop_records(folders)
    return made, [place for place in places if place.failure is not None]


def _rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [{**asdict(each), "MB": round(each.bytes / 1e6, 1)} for each in verdicts]


def _sums(verdicts: Sequence[Verdict]) -> list[str]:
    """One line a host."""
    lines = []
    for host in dict.fromkeys(each.host for each in verdicts):
        counts: dict[str, int] = {}
        for each in verdicts:
            if each.host == host:
                counts[each.verdict] = counts.get(each.verdict, 0) + 1
        freed = sum(each.bytes for each in verdicts if each.host == host)
        lines.append(f"{host}: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}, {freed / 1e6:.1f} MB")
    return lines


def _unheard(places: Sequence[Place]) -> list[str]:
    return [f"{place.name}: {place.failure.failure.brief}" for place in places if place.failure is not None]


def _words(verdicts: Sequence[Verdict], unheard: Sequence[Place]) -> str:
    return "; ".join([*_sums(verdicts), *_unheard(unheard)]) or "no run lies on any host"


def sweep_by_hand(keep_days: float, state: Path | None, *, dry_run: bool, records: bool, as_json: bool) -> int:
    """The same from a terminal, without a flow run, since it needs no key; exit code 1 when something failed.

    Raises:
        BadInput: the state directory cannot be one.
    """
    directory = state_directory(state, os.environ)
    if not directory.exists():
        raise BadInput(str(directory), "--state", "there is no such folder", "Name the state directory of your batches")
    verdicts, unheard = _swept(directory, keep_days, dry_run, records)
    if as_json:
        problems = {place.name: place.failure.failure.brief for place in unheard if place.failure is not None}
        print_json({"schema": 1, "runs": [asdict(each) for each in verdicts], "unheard": problems})
    else:
        show(_rows(verdicts), ("host", "run_id", "verdict", "MB", "why"), _words(verdicts, unheard))
    return EXIT_FAILED if unheard or any(each.verdict == "failed" for each in verdicts) else EXIT_SUCCEEDED


if __name__ == "__main__":
    from flows.cli_runs import gc_main

    gc_main()

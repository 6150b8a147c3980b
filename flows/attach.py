"""What lives on a host, and brought home from there, by somebody without the state directory it was started from."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blocks.keys import reveal
from flows.api import prefect_api
from flows.hosts import saved_host
from flows.logs import age
from flows.progress import Progress
from flows.state import state_directory
from flows.tables import show
from flows.terminal import print_json
from overnight import sweep
from overnight.adopt import Unread, adopt, followed
from overnight.events import Ending, Killed, Lost
from overnight.failures import BadInput, CollectError, FailureError, HostError
from overnight.follow import LinkState
from overnight.git import Repo
from overnight.ledger import write
from overnight.lockfile import suggest
from overnight.morning import many
from overnight.printable import safe
from overnight.report import EXIT_FAILED, EXIT_SUCCEEDED
from overnight.runcopy import RunCopy, gaps
from overnight.spec import HostSpec
from overnight.sweep import Found, Place, Trace

Became = Literal["listed", "ours", "adopted", "nothing", "left"]
_OF_A_BATCH = re.compile(r".+?-\d{8}-\d{6}-[0-9a-f]{4}\.(?P<task>.+)\.\d+")
_SHOWN = ("run_id", "state", "age", "MB", "task", "branch", "commits", "became", "words")


@dataclass(frozen=True)
class Row:
    """One run of the host, and what became of it.

    `became`: listed, nothing was asked for; ours, a batch of this state
    directory knows it, and it is left to that; adopted, its commits are at
    home; nothing, there was nothing to bring; left, it lies where `words` says.
    """

    run_id: str
    state: str
    age_s: float | None
    bytes: int
    task: str | None
    asks: str
    branch: str | None
    commits: int | None
    became: Became = "listed"
    words: str = ""
    refs: tuple[str, ...] = ()
    logs: str | None = None


@dataclass
class _Attached:
    """One attaching: where from, where to, and what was found."""

    place: Place
    repos: Sequence[Repo]
    state: Path
    progress: Progress
    rows: dict[str, Row]

    def became(self, run_id: str, became: Became, words: str, refs: Sequence[str] = ()) -> None:
        self.rows[run_id] = replace(self.rows[run_id], became=became, words=words, refs=tuple(refs))
        self.progress.tell(run_id, "done", f"{became}: {words}")

    def folder(self, run_id: str) -> Path:
        return self.state / "adopted" / run_id


def attach(
    host: str,
    spec: HostSpec | None,
    run_ids: Sequence[str],
    repos: Sequence[Path],
    state: Path | None,
    *,
    end: bool,
    as_json: bool,
) -> int:
    """List a host's runs; with `repos` bring home what ended, and follow what lives to its end first. The exit code.

    Args:
        host: What to call it; the name of a saved block when `spec` is None.
        run_ids: Those alone; all when there are none.
        repos: Repositories on this machine that take commits, each those of its own.
        end: End what lives, instead of waiting for it.

    Raises:
        BadInput: no such block, run or repository.
        HostError: the host cannot be reached.
    """
    if end and not repos:
        problem = "ends what lives and brings it home, so it needs a place"
        raise BadInput("command line", "--end", problem, "Give --repo PATH, too")
    directory = state_directory(state, os.environ)
    homes = [_home(path) for path in repos]
    with Progress(sys.stderr) as progress:
        spec = spec or saved_host(host, directory, progress)
        [place] = sweep.look({host: spec}, traced=True, tell=_link(host, progress))
        try:
            if place.failure is not None:
                raise place.failure
            found = _chosen(place, run_ids)
            attached = _Attached(place, homes, directory, progress, {each.run_id: _row(each) for each in found})
            _known(attached, found)
            if homes:
                _adopt_all(attached, [each for each in found if attached.rows[each.run_id].became == "listed"], end)
        finally:
            place.station.close()
    return _tell(place, list(attached.rows.values()), as_json=as_json, asked=bool(homes))


def _home(path: Path) -> Repo:
    repo = Repo(path.expanduser().absolute(), os.environ.get("PATH", os.defpath))
    try:
        repo.resolve("HEAD")
    except FailureError as error:
        mend = "Name a repository on this machine; a new one: git clone URL PATH"
        raise BadInput("command line", "--repo", error.failure.evidence[0].seen, mend) from None
    return repo


def _link(host: str, progress: Progress) -> Callable[[LinkState], None]:
    def say(state: LinkState) -> None:
        if state.failure is not None:
            progress.tell(host, "link", f"down: {state.failure.brief}")

    return say


def _chosen(place: Place, run_ids: Sequence[str]) -> list[Found]:
    there = {each.run_id: each for each in place.found if each.state != "absent"}
    for run_id in run_ids:
        if run_id not in there:
            raise BadInput(f"host {place.name}", "RUN_ID", f"no run {run_id!r} lies there", suggest(run_id, there))
    return [there[run_id] for run_id in run_ids or there]


def _row(found: Found) -> Row:
    trace = found.trace or Trace()
    match = _OF_A_BATCH.fullmatch(found.run_id)
    return Row(
        run_id=found.run_id,
        state=found.state,
        age_s=found.started_s,
        bytes=found.bytes,
        task=match["task"] if match else None,
        asks=safe(trace.asks),
        branch=None if trace.branch is None else safe(trace.branch),
        commits=trace.commits,
    )


def _known(attached: _Attached, found: Sequence[Found]) -> None:
    """Leave to their batches the runs that the state directory knows, and to nobody what works on nothing."""
    known = sweep.known_runs(attached.state)
    strange = {each.run_id for each in sweep.unknown(attached.place, known)}
    for each in found:
        row = attached.rows[each.run_id]
        if each.run_id not in strange and each.run_id in known:
            words = f"a batch of {attached.state} knows it: overnight collect {known[each.run_id].ledger.batch_id}"
            attached.rows[each.run_id] = replace(row, became="ours", words=words)
        elif each.base_sha is None and not each.lives:
            attached.rows[each.run_id] = replace(row, became="nothing", words="a probe or a check; it has no commits")


def _adopt_all(attached: _Attached, found: Sequence[Found], end: bool) -> None:
    """Each run's output, then its commits: of what ended at once, of what lives when it has ended."""
    there = {each.run_id: each for each in found}
    with _keys(attached, found):
        copies = {run_id: _copy(attached, each) for run_id, each in there.items()}
    for run_id, ending in followed(attached.place, copies, end=end):
        if ending is None:
            attached.became(run_id, "left", "nothing was heard of its host; it may live on there")
            continue
        attached.rows[run_id] = replace(attached.rows[run_id], state="lost" if isinstance(ending, Lost) else "finished")
        _adopt(attached, there[run_id], _how(ending))


def _keys(attached: _Attached, found: Iterable[Found]) -> AbstractContextManager[Any]:
    """The Prefect API in which keys are looked for, where any is needed."""
    needs = any((each.trace or Trace()).providers for each in found)
    return prefect_api(attached.state, attached.progress) if needs else nullcontext()


def _copy(attached: _Attached, found: Found) -> RunCopy:
    """Our copy of its output, masked; none of an output that we could not mask."""
    folder, providers = attached.folder(found.run_id), (found.trace or Trace()).providers
    try:
        keys = [reveal(provider, os.environ).encode() for provider in providers]
    except (FailureError, BadInput) as error:
        why = error.failure.brief if isinstance(error, FailureError) else str(error)
        attached.progress.tell(found.run_id, "run", f"taken without its output, which could not be masked: {why}")
        return Unread()
    attached.rows[found.run_id] = replace(attached.rows[found.run_id], logs=str(folder))
    attached.progress.tell(found.run_id, "run", f"{found.state}; its output comes to {folder}")
    return RunCopy(folder, keys)


def _how(ending: Ending) -> str:
    match ending:
        case Killed(by=by):
            return f"ended by {by}"
        case Lost(why=why):
            return f"lost: {why}"
        case _:
            return f"it ended with exit code {ending.code}" if ending.signal is None else f"signal {ending.signal}"


def _adopt(attached: _Attached, found: Found, how: str) -> None:
    how = "; ".join([how, *map(str, gaps(attached.folder(found.run_id)))])
    lies = f"it lies in {attached.place.folder(found.run_id)}"
    base = found.base_sha
    repo = next((repo for repo in attached.repos if base is not None and repo.has(base)), None)
    if base is None or repo is None:
        named = ", ".join(str(repo.path) for repo in attached.repos)
        want = "no base commit is kept for it" if base is None else f"its base {base[:12]} is not in {named}"
        attached.became(found.run_id, "left", f"{how}; {want}; {lies}")
        return
    try:
        got = adopt(attached.place, found, repo)
    except (CollectError, HostError) as error:
        attached.became(found.run_id, "left", f"{how}; {error.failure.brief}; {lies}")
        return
    left = [got.leftovers.ref] if got.leftovers else []
    refs = [*got.others, *left]
    if not refs:
        attached.became(found.run_id, "nothing", f"{how}; it committed nothing and left nothing")
        return
    uncommitted = f", {many(got.leftovers.count, 'file')} not committed" if got.leftovers else ""
    words = f"{how}; {many(len(got.commits), 'commit')}{uncommitted} in {got.repo}"
    attached.became(found.run_id, "adopted", words, refs)
    attached.folder(found.run_id).mkdir(parents=True, exist_ok=True)
    record = {"schema": 1, "host": attached.place.name, "repo": got.repo, "refs": refs, "ending": how}
    write(attached.folder(found.run_id) / "adopted.json", json.dumps(record, indent=2))


def _tell(place: Place, rows: Sequence[Row], *, as_json: bool, asked: bool) -> int:
    if as_json:
        print_json({"schema": 1, "host": place.name, "runs": [asdict(row) for row in rows]})
    else:
        title = f"{place.name}: {many(len(rows), 'run')}" + ("" if asked or not rows else "; --repo PATH adopts them")
        show([_shown(row) for row in rows], _SHOWN, title)
    return EXIT_FAILED if any(row.became == "left" for row in rows) else EXIT_SUCCEEDED


def _shown(row: Row) -> dict[str, Any]:
    words = row.words or row.asks
    if row.refs:
        words = f"{words}: {' '.join(row.refs)}"
    old = None if row.age_s is None else age(row.age_s)
    return {**asdict(row), "age": old, "MB": round(row.bytes / 1e6, 1), "words": words}

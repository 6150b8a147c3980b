"""What lies on the hosts of a state directory: which runs are ours, which are not, and which may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from overnight.failures import BadInput, HostError
from overnight.follow import LinkState
from overnight.git import GitError, Repo
from overnight.harnesses.protocol import Harness
from overnight.ledger import Ledger
from overnight.lockfile import load as load_lock
from overnight.morning import many
from overnight.past import DOCTOR, Entry, entries, is_held, ledgers
from overnight.plan import Planner, RunPlan
from overnight.report import RunReport
from overnight.spec import HostSpec
from overnight.station import Station
from overnight.workspace import mirror_name

_CHECKS = (".verify", ".verify2")
_IN_USE = timedelta(days=1)


@dataclass(frozen=True)
class Trace:
    """What a run directory tells of its task.

    `asks` is how its last argument begins, which is the instruction. `commits`
    are those of `branch`, or of a detached HEAD, beyond the base; None where
    they cannot be counted.
    """

    asks: str = ""
    providers: tuple[str, ...] = ()
    branch: str | None = None
    commits: int | None = None


@dataclass(frozen=True)
class Found:
    """One run directory as its host tells of it. Ages in seconds by the host's clock; `bytes` on its disk.

    `state` is the supervisor's word: absent (nothing was started), starting,
    running, orphaned (its supervisor died, its processes live), finished, lost.
    `base_sha` and `mirror` are None when no mirror keeps a commit for it. `trace`
    is None unless it was asked for.
    """

    run_id: str
    state: Literal["absent", "starting", "running", "orphaned", "finished", "lost"]
    why: str
    bytes: int
    started_s: float | None
    ended_s: float | None
    base_sha: str | None = None
    mirror: str | None = None
    trace: Trace | None = None

    @property
    def lives(self) -> bool:
        return self.state in ("starting", "running", "orphaned")


@dataclass(frozen=True)
class Spare:
    """A mirror that keeps no run's base, or a supervisor of another version, by its name below the root there."""

    name: str
    bytes: int
    idle_s: float


@dataclass(frozen=True)
class Place:
    """One host, under the name the newest batch gave it, and what was found there; `failure` when it was not heard."""

    name: str
    station: Station
    root: str = ""
    found: tuple[Found, ...] = ()
    spare: tuple[Spare, ...] = ()
    failure: HostError | None = None

    def folder(self, run_id: str) -> str:
        return f"{self.root}/runs/{run_id}"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one run directory, and why. `bytes` are those that go.

    What is no run, of a host or of this machine, has its path for a `run_id`.
    """

    host: str
    run_id: str
    bytes: int
    verdict: Literal["may go", "removed", "kept", "failed"]
    why: str


def known_runs(state: Path) -> dict[str, Entry]:
    """Every run this state directory ever planned, by id; those of `doctor` too."""
    every = [*ledgers(state), *ledgers(state / DOCTOR)]
    return {entry.run_id: entry for ledger in every for entry in entries(ledger)}


def hosts(batches: Iterable[Ledger]) -> dict[str, HostSpec]:
    """The machines that batches ran on, each once, the newest name and way first.

    Batches whose record does not read are left out. Two machines of one name
    get their addresses into it.
    """
    specs: dict[tuple[Any, ...], tuple[str, HostSpec]] = {}
    for ledger in reversed(list(batches)):
        try:
            batch = ledger.reopen()[0]
        except BadInput:
            continue
        for name in dict.fromkeys(route.host for route in batch.routes):
            spec = batch.hosts[name]
            specs.setdefault(_machine(spec), (name, spec))
    named: dict[str, HostSpec] = {}
    for name, spec in specs.values():
        named[name if name not in named else f"{name} ({spec.user}@{spec.address}:{spec.port} {spec.directory})"] = spec
    return named


def _machine(spec: HostSpec) -> tuple[Any, ...]:
    return spec.kind, spec.address, spec.port, spec.user, spec.directory


def look(
    machines: Mapping[str, HostSpec], *, traced: bool = False, tell: Callable[[LinkState], None] = lambda _: None
) -> list[Place]:
    """Ask every host what lies there, all at once. A host that is not heard is a place with a failure.

    Close the stations.

    Args:
        traced: Ask also what each run is about.
        tell: Told by whoever follows runs of a place later, when its host is heard again or no more.
    """
    with ThreadPoolExecutor(max(1, len(machines))) as pool:
        return list(pool.map(lambda each: _look(each[0], each[1], traced, tell), machines.items()))


def _look(name: str, spec: HostSpec, traced: bool, tell: Callable[[LinkState], None]) -> Place:
    station = Station(name, spec, tell)
    try:
        root = station.remote.install().root
        answer = station.remote.inventory(traced=traced)
    except HostError as error:
        return Place(name, station, failure=error)
    pins = answer["pins"]
    traces = {run["run_id"]: Trace(**run.pop("trace")) for run in answer["runs"] if "trace" in run}
    found = [Found(**run, **pins.pop(run["run_id"], {}), trace=traces.get(run["run_id"])) for run in answer["runs"]]
    found += [
        Found(run_id, "absent", "only its base commit is kept", 0, None, None, **pin) for run_id, pin in pins.items()
    ]
    return Place(name, station, root, tuple(found), tuple(Spare(**each) for each in answer["spare"]))


def unknown(place: Place, known: Mapping[str, Entry]) -> list[Found]:
    """Runs that were started there by somebody else, or by a state directory that is gone; not their checks."""
    strange = [each for each in place.found if each.state != "absent" and _owner(each.run_id) not in known]
    return [each for each in strange if each.lives or not each.run_id.endswith(_CHECKS)]


def at(places: Sequence[Place], spec: HostSpec) -> Place:
    """The place that a batch calls by this spec."""
    return next(place for place in places if _machine(place.station.spec) == _machine(spec))


def there(place: Place, run_id: str) -> Found:
    """A run as the place told of it; absent when it did not."""
    none = Found(run_id, "absent", "the host has no such run directory", 0, None, None)
    return next((each for each in place.found if each.run_id == run_id), none)


def repositories(batches: Iterable[Ledger], harnesses: Mapping[str, Harness]) -> dict[str, RunPlan]:
    """Folder name of a mirror -> the plan of some task of that repository, which says where its commits belong."""
    found: dict[str, RunPlan] = {}
    for ledger in batches:
        try:
            batch = ledger.reopen()[0]
            lock_path = ledger.directory / "lock.json"
            planner = Planner(load_lock(lock_path), str(lock_path), harnesses, batch, ledger.batch_id)
            for plan in planner.check():
                found[f"{mirror_name(plan.repo)}.git"] = plan
        except BadInput:
            continue  # of an older version of this project; its runs are named and stay where they are
    return found


def _owner(run_id: str) -> str:
    """The run whose check this is, else itself."""
    return next((run_id.removesuffix(check) for check in _CHECKS if run_id.endswith(check)), run_id)


# --- removing ---


def judge(place: Place, known: Mapping[str, Entry], keep: timedelta, now: datetime, search_path: str) -> list[Verdict]:
    """Say of every run directory whether it may go. Asks git on this machine, changes nothing.

    May go: what is over, was decided here longer ago than `keep`, and has
    nothing on the host alone. Batches that somebody carries out just now keep all.
    """
    busy = {ledger.directory: is_held(ledger) for ledger in {id(e.ledger): e.ledger for e in known.values()}.values()}
    made = []
    for each in place.found:
        entry = known.get(_owner(each.run_id))
        if entry is None:
            why = "no batch of this state directory knows it"
        elif each.lives:
            why = f"it is {each.state}"
        elif busy[entry.ledger.directory]:
            why = "its batch is being run by another process"
        else:
            why = _needed(entry, each, search_path)
            young = now - entry.settled_at < keep
            why = why or (f"younger than {keep.total_seconds() / 86400:g} days" if young else "")
        gone = 0 if why else each.bytes
        made.append(Verdict(place.name, each.run_id, gone, "kept" if why else "may go", why or _reason(entry)))
    return made + [_spared(place, each, keep) for each in place.spare]


def _spared(place: Place, spare: Spare, keep: timedelta) -> Verdict:
    """A day at least: somebody may be about to begin a run with it."""
    if timedelta(seconds=spare.idle_s) < max(keep, _IN_USE):
        return Verdict(place.name, spare.name, 0, "kept", "no run needs it now; it was used not long ago")
    return Verdict(place.name, spare.name, spare.bytes, "may go", "no run needs it")


def _needed(entry: Entry, found: Found, search_path: str) -> str:
    """Why a run that is over must stay; empty when nothing of it is needed any more."""
    if entry.is_probe:
        return ""
    run = entry.outcome
    if run is None:
        return f"not decided yet: overnight collect {entry.ledger.batch_id}"
    return "" if found.state == "absent" and found.base_sha is None else _not_home(run, search_path)


def _not_home(run: RunReport, search_path: str) -> str:
    if run.repo is None:
        return "its commits did not come home"
    left = run.leftovers
    if left is not None and (left.missed or not left.ref.startswith("refs/")):
        return "work that was not committed lies there alone"
    tips = {*run.other_refs.values(), *(c.sha for c in run.commits[-1:]), *([left.sha] if left else [])}
    repo = Repo(Path(run.repo), search_path)
    try:
        missing = tips - {sha for sha in repo.having(sorted(tips)) if repo.leads_to(sha)}
    except GitError:
        return f"its commits cannot be seen in {run.repo}"
    return f"{many(len(missing), 'commit')} of it went from {run.repo}" if missing else ""


def _reason(entry: Entry | None) -> str:
    if entry is None or entry.is_probe:
        return "a probe"
    run = entry.outcome
    return f"{run.state}, {many(len(run.commits), 'commit')} at home" if run else ""


def remove(place: Place, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Remove those of the place that may go; the host looks once more that none of them lives.

    A host that is lost on the way leaves them failed; another call goes on.
    """
    going = [each.run_id for each in verdicts if each.verdict == "may go"]
    if not going:
        return list(verdicts)
    spare = {each.name for each in place.spare} & set(going)
    runs = [run_id for run_id in going if run_id not in spare]
    try:
        told = place.station.remote.inventory(runs, sorted(spare))
        answers = {answer["run_id"]: answer for answer in told["removed"]}
    except HostError as error:
        problem = {"bytes": 0, "problem": error.failure.brief}
        answers = dict.fromkeys(going, problem)
    return [_removed(each, answers[each.run_id]) if each.run_id in going else each for each in verdicts]


def _removed(verdict: Verdict, answer: Mapping[str, Any]) -> Verdict:
    if answer["problem"]:
        return replace(verdict, bytes=0, verdict="failed", why=answer["problem"])
    return replace(verdict, bytes=answer["bytes"], verdict="removed")

"""`overnight rehearse FILE`: the user's own batch on their own hosts, with every provider emulated here.

What a night is made of stays: the hosts, their agents, the tasks, and the very
command that runs it. What is the user's is not touched: repositories on this
machine are borrowed from, hosts get a folder beside their own, keys are made
up, and the Prefect server is a private one of the rehearsal.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from flows.api import prefect_api
from flows.prepare import Prepared, prepare, record, with_hosts
from flows.progress import Progress
from flows.rehearse import PROJECT, to_its_end
from overnight import keyshape
from overnight.clock import VARIABLE, Clock
from overnight.failures import BadInput, FailureError
from overnight.git import Repo, bare
from overnight.harnesses import FOLDER_VARIABLE
from overnight.morning import many
from overnight.night import now
from overnight.rehearsal.model import Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.reach import Guest, PortTakenError, guest
from overnight.rehearsal.site import Site
from overnight.rehearsal.staged import Staged, sites, staged
from overnight.rehearsal.troubles import Trouble
from overnight.report import EXIT_FAILED, BatchReport, RunReport
from overnight.spec import BatchSpec, is_url
from overnight.workspace import mirror_name

Say = Callable[[str], None]
_SPEED = 3600.0  # a window that opens in five hours is waited for all the same
_PORTS = 5  # so many are tried before we say that a host has none for us
# all that the batch gets of the user's environment: no key, no proxy, no Prefect of theirs
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TERM", "COLUMNS", "NO_COLOR", "TMPDIR", "TZ")


@dataclass(frozen=True)
class Wish:
    """What to rehearse, and with what.

    Args:
        keep: Leave on the hosts what the rehearsal put there.
        port: Where hosts find the provider, when not at the port that it has here; somebody else has
            to lead this port here to it, too.
    """

    files: Sequence[Path]
    trouble: Trouble
    only: Sequence[str] = ()
    tapes: Sequence[Tape] = ()
    keep: bool = False
    lock: Path | None = None
    port: int = 0


def rehearse_own(wish: Wish, state: Path, environ: Mapping[str, str], say: Say) -> int:
    """Run the batch to its end in a new folder below `state`; the exit code is the batch's own.

    Raises:
        BadInput: as for a real start, or no port serves all hosts; nothing was started.
        HostError: a host is not reached, or does not let the emulated provider through; nothing was started.
    """
    prepared = prepare(wish.files, wish.lock, wish.only, environ)
    if any(host.block for host in prepared.batch.hosts.values()):
        with Progress(sys.stderr) as progress, prefect_api(state, progress):
            prepared = with_hosts(prepared)
    mark = secrets.token_hex(3)
    directory = state / "rehearsals" / f"{now():%Y%m%d-%H%M%S}-{mark}"
    given = sites(prepared.batch, prepared.lock, wish.trouble)
    with _stage(prepared, wish, given, mark, say) as show:
        batch = _borrowed(show.batch, directory / "repos", environ.get("PATH", ""))
        rehearsed = replace(prepared, batch=batch, lock=show.lock)
        _ = rehearsed.plans  # the waits that were cut short must fit, too
        ledger = record(rehearsed, directory / "state")
        argv = [sys.executable, "-m", "flows.batch", "--resume", ledger.batch_id, "--on-interrupt", "cancel"]
        argv += ["--state", str(directory / "state")]
        # not where the user is: Prefect reads settings from files there
        code = to_its_end(argv, directory, _environment(environ, directory, given), alone=True)
    path = ledger.directory / "report.json"
    if not path.exists():
        say("The batch wrote no report; see its words above.")
        return code or EXIT_FAILED
    for line in _told(BatchReport.model_validate_json(path.read_text(encoding="utf-8")), wish.trouble):
        say(line)
    return code


@contextmanager
def _stage(prepared: Prepared, wish: Wish, given: Mapping[str, Site], mark: str, say: Say) -> Iterator[Staged]:
    """The emulated providers up and reached from every host; the hosts cleaned afterwards, however it ends."""
    hello = Site(f"here-{secrets.token_hex(8)}", secrets.token_hex(16))
    tapes = [*wish.tapes, Tape("", wish.trouble.steps)]
    for _ in range(_PORTS):
        with ExitStack() as up:
            provider = up.enter_context(EmulatedProvider([*given.values(), hello], tapes))
            to = urlsplit(provider.url(hello.name)).port or 0
            port = wish.port or to
            show = staged(prepared.batch, prepared.lock, wish.trouble, lambda name: _url(port, name), mark)  # noqa: B023  # called at once
            names = dict.fromkeys(route.host for route in show.batch.routes)
            guests = [guest(name, show.batch.hosts[name]) for name in names]
            try:
                ways = {
                    each.name: up.enter_context(_reached(each, wish.keep, say, (port, to, hello.name)))
                    for each in guests
                }
            except PortTakenError as error:
                taken = str(error)
                continue
            for line in _opening(prepared, wish.trouble, given, ways, show):
                say(line)
            yield show
            return
    mend = "End what listens there, or start again"
    raise BadInput("hosts", taken, f"is taken, as were {_PORTS - 1} ports before it", mend)


def _url(port: int, provider: str) -> str:
    return f"http://127.0.0.1:{port}/{provider}"


@contextmanager
def _reached(each: Guest, keep: bool, say: Say, way: tuple[int, int, str]) -> Iterator[str]:
    """One host, with the emulated provider at its port meanwhile, and cleaned afterwards; how it is reached."""
    try:
        each.remote.install()
        try:
            with each.reached(*way) as how:
                yield how
        finally:
            stays = "it was asked for" if keep else _cleaned(each)
            if stays:
                say(f"Left on {each.name}: {each.spec.directory} ({stays})")
    finally:
        each.remote.close()


def _cleaned(each: Guest) -> str:
    """Why the rehearsal's folder stays on a host; empty when it is gone. Raises nothing: others come after it."""
    try:
        return each.clean()
    except FailureError as error:
        return error.failure.brief
    except TimeoutError as error:
        return str(error)


def _borrowed(batch: BatchSpec, folder: Path, search_path: str) -> BatchSpec:
    """The same batch on repositories of the rehearsal's own, which read the user's objects and write none of them."""
    tasks = []
    for task in batch.tasks:
        if is_url(task.repo):
            tasks.append(task)
            continue
        own = Repo(Path(task.repo), search_path)
        repo = bare(folder / f"{mirror_name(task.repo)}.git", search_path)
        objects = (own.path / own.run("rev-parse", "--git-path", "objects")).resolve()
        (repo.path / "objects" / "info" / "alternates").write_text(f"{objects}\n", encoding="utf-8")
        if ends := own.shallow():
            (repo.path / "shallow").write_text("".join(f"{sha}\n" for sha in ends), encoding="ascii")
        tasks.append(task.model_copy(update={"repo": str(repo.path), "base": own.resolve(task.base)}))
    return batch.model_copy(update={"tasks": tuple(tasks)})


def _environment(environ: Mapping[str, str], directory: Path, given: Mapping[str, Site]) -> dict[str, str]:
    """All that the batch gets. Its Prefect server is a new one, in which no key is saved, so these keys are used."""
    declared = environ.get(FOLDER_VARIABLE)
    return {
        **{name: environ[name] for name in _KEPT if name in environ},
        **({FOLDER_VARIABLE: str(Path(declared).expanduser().absolute())} if declared else {}),
        **{keyshape.variable(name): site.key for name, site in given.items()},
        "PREFECT_HOME": str(directory / "state" / "prefect"),
        VARIABLE: str(Clock(_SPEED, time.time())),
        "PYTHONPATH": str(PROJECT),
        "DO_NOT_TRACK": "1",
    }


def _opening(
    prepared: Prepared, trouble: Trouble, given: Mapping[str, Site], ways: Mapping[str, str], show: Staged
) -> Iterator[str]:
    """What is emulated, how hosts reach it, and what is not as on a real night."""
    asked = f"{trouble.name} ({trouble.written})" if trouble.written != trouble.name else trouble.name
    yield f"Rehearsing {prepared.batch.name}, {many(len(show.batch.tasks), 'task')}: {asked or 'all goes well'}"
    for name, site in given.items():
        yield f"  {name}: emulated on this machine, in the words of {site.shape}, with a key made up for it"
    for name, way in ways.items():
        yield f"  {name}: {way}; works in {show.batch.hosts[name].directory}"
    waits = "waits for a provider, an hour a second"
    yield f"  shorter than on a real night: {'; '.join([*show.shortened, waits])}"
    if prepared.batch.deadline is not None:
        yield "  the deadline does not count"
    if any(task.approve for task in prepared.batch.tasks):
        yield "  nobody is asked to approve"
    if any(task.deliver.how != "branch" for task in prepared.batch.tasks):
        yield "  nothing is pushed anywhere"
    yield ""


def _told(report: BatchReport, trouble: Trouble) -> Iterator[str]:
    """The night in a sentence a task, after the summary that the batch itself gave."""
    yield "What the morning would look like is above. In a sentence a task:"
    tries: dict[str, list[RunReport]] = {}
    for run in report.runs:
        tries.setdefault(run.task_id, []).append(run)
    for task_id, runs in tries.items():
        yield f"  {task_id}: {', then '.join(map(_sentence, runs))}"
    named = {run.failure.kind for run in report.runs if run.failure is not None}
    if trouble.expected is not None and named and trouble.expected not in named:
        yield f"  {trouble.expected} was asked for; this is how it shows with these agents: {', '.join(sorted(named))}"


def _sentence(run: RunReport) -> str:
    after = f" after {run.seconds.run:.0f} s" if run.seconds.run is not None else ""
    if run.failure is None:
        return f"{run.state}{after} with {many(len(run.commits), 'commit')}"
    if run.attempt == 0:
        return f"not started, {run.failure.kind}"
    return f"named {run.failure.kind}{after}"

"""What it costs to bring commits home: 5 new ones, and a whole history of 200 MB, against `git fetch ssh://`.

    python -m tests.bench.collection [--megabytes 200] [--rounds 5]

Ours is the collect stage: it reads what the run left, also uncommitted, brings
the objects over the connection that is there anyway, checks every one of them
(fsck), sets the refs, counts the commits. The peer is `git fetch` with a
connection of its own, as anybody would type it; other rows tell it to check
objects, too, or give it a connection that ssh holds open already, as ours is.
Both write and sync one pack; git proves that nothing is missing by a walk from
the tip, ours by `index-pack --strict`, which looks up the links of all objects.
They take turns in going first, and each must have brought the same tip, whole
(`git fsck`, outside the clock).
"""

from __future__ import annotations

import getpass
import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from overnight.git import bare
from overnight.handle import RunHandle
from overnight.remote import Remote
from overnight.spec import HostSpec
from overnight.station import make_host
from overnight.workspace import Workspaces
from tests import sshd
from tests.bench.rig import Part, Row, against, command_of, folder, parser, quiet, tell
from tests.overnight.desks import plan_of
from tests.overnight.nights import PYTHON, SEARCH_PATH, commit, git

NEW = 5
MOST_BYTES = 2_000_000_000


def history(place: Path, megabytes: int) -> None:
    """A repository with a commit for each megabyte of noise."""
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    argv = ["git", "-C", str(place), "fast-import", "--quiet"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as importer:
        assert importer.stdin is not None
        for number in range(megabytes):
            text, noise = f"add {number}".encode(), os.urandom(1_000_000)
            head = b"commit refs/heads/main\ncommitter You <you@example.invalid> %d +0000\n" % (1_700_000_000 + number)
            importer.stdin.write(head + b"data %d\n%s\n" % (len(text), text))
            importer.stdin.write(b"M 100644 inline f%d\ndata %d\n%s\n" % (number % 20, len(noise), noise))
    git(place, "checkout", "-q", "-f", "main")


@dataclass
class Site:
    """A host with a run that has ended, and ways to bring its commits into a repository here."""

    directory: Path
    remote: Remote
    ssh: str
    port: int
    found: dict[str, list[float]] = field(default_factory=dict)

    def timed(self, name: str, call: Callable[[], object]) -> None:
        began = time.monotonic()
        call()
        self.found.setdefault(name, []).append(time.monotonic() - began)

    def median(self, name: str) -> float:
        return statistics.median(self.found[name])

    def workspace(self, name: str, source: Path) -> tuple[Path, RunHandle, str]:
        """The clone of a run at `source`'s tip, its handle, and that tip."""
        run_dir = self.directory / "host" / "runs" / name
        run_dir.mkdir(parents=True)
        subprocess.run(["git", "clone", "-q", "--shared", str(source), str(run_dir / "work")], check=True)
        git(run_dir / "work", "checkout", "-q", "-b", "overnight/b/t")
        base = git(run_dir / "work", "rev-parse", "HEAD")
        handle = RunHandle(
            run_id="b.t.1",
            host="box",
            run_dir=str(run_dir),
            work_dir=str(run_dir / "work"),
            base_sha=base,
            started_at=datetime.now(UTC),
        )
        return run_dir / "work", handle, base

    def collect(self, handle: RunHandle, home: Path, base: str) -> int:
        plan = plan_of(str(home), max_bytes=MOST_BYTES).based(base)
        found = Workspaces(self.remote).collect(plan, handle, bare(home, SEARCH_PATH))
        return len(found.commits)

    def fetch(self, work: str, home: Path, *options: str, ssh: str = "") -> None:
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{work}"
        what = "+refs/heads/overnight/b/t:refs/peer/b/t"
        argv = ["git", *options, "-C", str(home), "fetch", "-q", "--no-tags", "--no-write-fetch-head", url, what]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "GIT_SSH_COMMAND": f"{self.ssh}{ssh}"}
        subprocess.run(argv, env=env, check=True)

    @contextmanager
    def held(self) -> Iterator[str]:
        """An option of ssh for a connection that is open already."""
        option = f" -oControlPath={self.directory / 'held'}"
        argv = [*shlex.split(self.ssh + option), "-MN", "-p", str(self.port), "127.0.0.1"]
        with subprocess.Popen(argv) as holder:
            try:
                sshd.wait_until((self.directory / "held").exists)
                yield option
            finally:
                holder.terminate()


@contextmanager
def site() -> Iterator[Site]:
    with folder() as place, sshd.serving(place) as server:
        known = place / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        ssh = ["ssh", "-F", "none", "-i", str(server.key_file), f"-oUserKnownHostsFile={known}"]
        host = make_host("box", HostSpec.model_validate(server.described(place / "host", PYTHON, 4)))
        remote = Remote(host, str(place / "host"))
        remote.install()
        yield Site(place, remote, shlex.join(ssh), server.port)
        remote.close()


def full(here: Site, source: Path, number: int) -> None:
    """Into an empty repository: a first run on a repository that the host fetched from a URL."""
    work, handle, tip = here.workspace(f"full-{number}", source)
    root = git(work, "rev-list", "--max-parents=0", "HEAD")
    homes = {
        name: bare(here.directory / f"{name}-{number}.git", SEARCH_PATH).path
        for name in ("ours", "git", "strict", "held")
    }
    based = handle.model_copy(update={"base_sha": root})
    checked = ("-c", "fetch.fsckObjects=true")
    ways: list[tuple[str, Callable[[], object]]] = [
        ("full", lambda: here.collect(based, homes["ours"], root)),
        ("full git", lambda: here.fetch(handle.work_dir, homes["git"])),
        ("full strict", lambda: here.fetch(handle.work_dir, homes["strict"], *checked)),
    ]
    with quiet(), here.held() as held:
        ways.append(("full held", lambda: here.fetch(handle.work_dir, homes["held"], ssh=held)))
        first = number % len(ways)
        for name, call in ways[first:] + ways[:first]:
            here.timed(name, call)
    for home in homes.values():
        if not git(home, "for-each-ref", "--points-at", tip):
            raise SystemExit(f"{tip} did not come home to {home}")
        if number == 0:
            git(home, "fsck", "--full")
        subprocess.run(["rm", "-r", str(home)], check=True)


def incremental(here: Site, source: Path, number: int) -> None:
    """Into a repository that has the base: what every night does."""
    work, handle, base = here.workspace(f"new-{number}", source)
    for each in range(NEW):
        commit(work, f"new-{each}.txt", f"{number} {each}\n" * 20)
    homes = {}
    for name in ("ours", "git", "strict"):
        homes[name] = here.directory / f"home-{name}-{number}.git"
        git(here.directory, "clone", "-q", "--bare", "--shared", str(source), str(homes[name]))
    with quiet():
        here.timed("new", lambda: _exactly(NEW, here.collect(handle, homes["ours"], base)))
        here.timed("new git", lambda: here.fetch(handle.work_dir, homes["git"]))
        checked = ("-c", "fetch.fsckObjects=true")
        here.timed("new strict", lambda: here.fetch(handle.work_dir, homes["strict"], *checked))


def _exactly(wanted: int, found: int) -> None:
    if found != wanted:
        raise SystemExit(f"{found} commits came home instead of {wanted}")


def measure(megabytes: int, rounds: int) -> tuple[Row, ...]:
    with site() as here:
        source = here.directory / "source"
        history(source, megabytes)
        for number in range(rounds * 3):
            incremental(here, source, number)
        for number in range(rounds):
            full(here, source, number)
        seen = {name: here.median(name) for name in here.found}
    size = f"{megabytes} MB"
    return (
        against(f"{NEW} new commits, {size} of history there", seen["new"], seen["new git"], "s", most=1.0, digits=2),
        against("the same, git told to check", seen["new"], seen["new strict"], "s", digits=2),
        against(f"a whole history of {size}", seen["full"], seen["full git"], "s", most=1.1, digits=2),
        against("the same, git told to check", seen["full"], seen["full strict"], "s", digits=2),
        against("the same, git's connection open already", seen["full"], seen["full held"], "s", digits=2),
    )


def main() -> None:
    options = parser(__doc__, megabytes=200, rounds=5).parse_args()
    rows = measure(options.megabytes, options.rounds)
    notes = (f"Medians of {options.rounds} interleaved rounds, {3 * options.rounds} of the small ones.",)
    tell(Part("Collection", command_of("collection", options), rows, notes), options.json)


if __name__ == "__main__":
    main()

"""The repository's way to the host and the commits' way home.

A bare mirror per repository lies on the host; each run gets a shared clone of
it with its own configuration. What an agent wrote is only ever read through a
second repository of ours that borrows its objects, so no configuration or hook
of the agent's is loaded, here or there.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Protocol

from overnight import errands
from overnight.collected import Collected, Leftovers
from overnight.failures import CollectError, Evidence, FailureKind, WorkspaceError, fail
from overnight.git import GitError, Repo
from overnight.handle import RunHandle
from overnight.handover import Finding, held
from overnight.plan import RunPlan
from overnight.remote import Done, Remote
from overnight.room import check_room
from overnight.spec import Limits, is_url

_K = FailureKind
_GIT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "overnight",
    "GIT_AUTHOR_EMAIL": "overnight@localhost",
    "GIT_COMMITTER_NAME": "overnight",
    "GIT_COMMITTER_EMAIL": "overnight@localhost",
}
_QUICK_S, _LONG_S, _WHOLE_S = 60.0, 1800.0, 14_400.0
_OUTPUT_BYTES = 4_000_000
_PACK = b"\npack\n"
_CARRY = Path(__file__).with_name("carry.py")


Judge = Callable[[Repo, str, str], tuple[Finding, ...]]
"""What guards find between a base and a tip."""


class Origin(Protocol):
    """What collecting must know of a run."""

    @property
    def run_id(self) -> str: ...
    @property
    def batch_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def branch(self) -> str: ...
    @property
    def approve(self) -> bool: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def names(self) -> Mapping[str, str]: ...


class Workspaces:
    """Workspaces of one host."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._mirrors: dict[str, threading.Lock] = {}
        self._sent: set[tuple[str, str]] = set()

    def prepare(self, plan: RunPlan, repo: Repo | None, run_dir: str, floor_bytes: int = 0) -> tuple[str, str]:
        """Make the run's clone; again on an existing one changes nothing.

        Args:
            repo: The repository on this machine, or None when `plan.repo` is a URL.
            floor_bytes: With less free there, nothing is begun.

        Returns:
            Work directory on the host, and the base commit.

        Raises:
            WorkspaceError: with what git said.
            HostError: the connection failed, or there is no room.
        """
        mirror = f"{self._remote.install().root}/mirrors/{mirror_name(plan.repo)}.git"
        pin, work = f"refs/overnight/base/{plan.run_id}", f"{run_dir}/work"
        ends = "\n".join(repo.shallow() if repo else [])
        with suppress(WorkspaceError):  # what was cleaned up there meanwhile is brought anew
            if repo is not None and (mirror, base := plan.base_sha or repo.resolve(plan.base)) in self._sent:
                return work, self._clone(plan, mirror, work, base, pin, ends, floor_bytes)
        with self._mirror(mirror):
            base = self._bring_base(plan, repo, mirror, pin, floor_bytes)
        base = self._clone(plan, mirror, work, base, pin, ends, floor_bytes)
        self._sent.add((mirror, base))
        return work, base

    def carry(self, plan: RunPlan, run_dir: str, floor_bytes: int = 0) -> RunPlan:
        """Bring what the run is to go on with to its folder; the plan that says so, or why not. Again changes nothing.

        Raises:
            HostError: the connection failed; it may be there or not.
        """
        if plan.resume is None or plan.resume.what.session is None:
            return plan
        what, sessions, pins = plan.resume.what, plan.resume.sessions, "refs/overnight/base"
        order = {
            "supervisor": self._remote.supervisor,
            "from": f"{PurePosixPath(run_dir).parent}/{what.run_id}",
            "to": run_dir,
            "mirror": f"{self._remote.install().root}/mirrors/{mirror_name(plan.repo)}.git",
            "old_pin": f"{pins}/{what.run_id}",
            "pin": f"{pins}/{plan.run_id}",
            "files": [pattern.replace("{id}", str(what.session)) for pattern in sessions.files],
            "sums": [dict(each) for each in sessions.sums],
            "floor": floor_bytes,
        }
        why = self._remote.script(_CARRY, order, _LONG_S)["why"]
        return plan.going_on(what.afresh(why) if why else what)

    def _clone(self, plan: RunPlan, mirror: str, work: str, base: str, pin: str, ends: str, floor_bytes: int) -> str:
        """Make the clone, or leave the one that is there; the base it was made from."""
        words = (mirror, work, plan.branch, base, pin, ends, str(floor_bytes))
        base, free, age = self._sh("clone", errands.CLONE, *words, timeout_s=_LONG_S).out.decode().split()
        if age == "new":
            check_room(int(free), floor_bytes, plan.route.host)
        return base

    def _mirror(self, mirror: str) -> threading.Lock:
        """One at a time per mirror: twenty tasks with one base must send it once."""
        with self._lock:
            return self._mirrors.setdefault(mirror, threading.Lock())

    def _bring_base(self, plan: RunPlan, repo: Repo | None, mirror: str, pin: str, floor_bytes: int) -> str:
        """Put the base commit into the mirror; returns it. `pin` is the ref that will keep it for this run."""
        pins = _refs(self._sh("mirror", errands.MIRROR, mirror).out.decode())
        free = int(pins.pop("free"))
        if pin in pins:  # from an earlier start of this very run, which may live
            return pins[pin]
        check_room(free, floor_bytes, plan.route.host)
        if repo is None:
            return self._fetch(mirror, plan, pin)
        base = plan.base_sha or repo.resolve(plan.base)
        if base not in pins.values():
            self._push(repo, mirror, base, repo.having(sorted(set(pins.values()))))
        return base

    def collect(
        self, plan: Origin, handle: RunHandle, repo: Repo, judge: Judge = lambda _repo, _base, _tip: ()
    ) -> Collected:
        """Bring home what the run committed and what it left lying, as refs under `refs/overnight/<run_id>/`.

        Nothing is checked out and no file of the agent's is executed. Idempotent.

        Args:
            judge: Asked before the branch is made, which is left out where it holds or refuses that.

        Raises:
            CollectError: with the place on the host where the work still lies.
            HostError: the connection failed.
        """
        try:
            return self._collect(plan, handle, repo, judge)
        except (GitError, WorkspaceError, OSError) as error:  # OSError: the disk here is full, or not ours to write
            lies = Evidence(source="host", seen=f"the work lies in {handle.work_dir}", where=handle.host)
            seen = Evidence(source="git", seen=str(error))
            raise CollectError(fail(_K.COLLECT_FAILED, seen, lies, names=plan.names)) from error

    def fresh_clone(self, git_dir: str, tip: str, place: str) -> str:
        """A clone at `place` of a commit that is in `git_dir`, with none of its configuration; again changes nothing.

        Returns `place`.
        """
        self._sh("clone", errands.FRESH, git_dir, place, tip, timeout_s=_LONG_S)
        return place

    def _collect(self, plan: Origin, handle: RunHandle, repo: Repo, judge: Judge) -> Collected:
        base, borrowed = handle.base_sha, f"{handle.run_dir}/collect.git"
        message = f"Uncommitted work of {plan.run_id}"
        haves = repo.having([base])
        with closing(self.said(errands.READ, handle.work_dir, borrowed, base, message, *haves)) as said:
            tips, missed = _read(next(said).decode("utf-8", "replace"))
            pack = next(said, None)
            if pack is not None:
                repo.take_pack(chain([pack], said), plan.limits.max_collect_bytes)
        head, left = tips.pop("HEAD"), tips.pop("leftovers", None)
        tip = tips.pop(f"refs/heads/{plan.branch}", base)
        if tip == base:
            tip = head
        spot = f"refs/overnight/{plan.run_id}"
        refs = {f"{spot}/other/{r.removeprefix('refs/')}": s for r, s in {**tips, "HEAD": head}.items() if s != tip}
        if tip != base and not repo.is_ancestor(base, tip):
            refs[f"{spot}/other/heads/{plan.branch}"], tip = tip, base
        refs = {ref: sha for ref, sha in refs.items() if sha != base}
        heads = {f"{spot}/head": tip} if tip != base else {}
        repo.set_refs({**refs, **heads, **({f"{spot}/base": base} if haves or repo.has(base) else {})})
        leftovers = self._leftovers(plan, handle, repo, (head, left or head), missed) if left or missed else None
        found = Collected(repo=str(repo.path), base_sha=base, others=refs, leftovers=leftovers)
        if not heads:
            return found
        guards = judge(repo, base, tip)
        counted = {"tip": tip, "commits": repo.commits(base, tip), "diffstat": repo.diffstat(base, tip)}
        ours = f"refs/overnight/{plan.batch_id}.{plan.task_id}.*/head"
        free = not plan.approve and held(guards) == "note"
        branched = free and repo.set_branch(plan.branch, tip, ours)
        named = {"branch": plan.branch} if branched else {"others": {**refs, **heads}}
        return found.model_copy(update={**counted, **named, "guards": guards})

    def said(self, script: str, *args: str) -> Generator[bytes, None, None]:
        """What a script says: the lines it begins with, then the bytes of the pack it may end with. One call for both:
        each costs the host an interpreter.
        """
        channel = self._remote.pipe(["/bin/sh", "-c", script, "sh", *args], env=_GIT_ENV, time_s=_WHOLE_S)
        try:
            with _in_time("reading on the host"):
                channel.close_input()
                head, more = b"\n", True
                while more and _PACK not in head and len(head) < _OUTPUT_BYTES:
                    more = bool(data := channel.recv(256 * 1024, _LONG_S))
                    head += data
                lines, _, data = head.partition(_PACK)
                yield lines[1:]
                while data := data or channel.recv(256 * 1024, _LONG_S):
                    yield data
                    data = b""
                if channel.exit_code(_QUICK_S) != 0:
                    raise _workspace_error("read on the host", channel.errors())
        finally:
            channel.close()

    def _leftovers(
        self, plan: Origin, handle: RunHandle, repo: Repo, between: tuple[str, str], missed: tuple[str, ...]
    ) -> Leftovers:
        """Bring the uncommitted work after the commits, in a pack of its own: too much of it must not cost them."""
        borrowed, ref = f"{handle.run_dir}/collect.git", f"refs/overnight/{plan.run_id}/wip"
        names = self._sh("read", errands.NAMES, borrowed, *between).out.decode("utf-8", "replace")
        files = [name for name in names.split("\0") if name]
        try:
            pack = self._pull(borrowed, [between[1]], repo.having([between[0]]))
            repo.take_pack(pack, plan.limits.max_collect_bytes)
            repo.set_refs({ref: between[1]})
        except GitError as error:
            ref = f"{handle.host}:{handle.work_dir}"
            missed = (f"all of it: {error}", *missed)
        return Leftovers(ref=ref, sha=between[1], count=len(files), files=tuple(files[:50]), missed=missed)

    def _fetch(self, mirror: str, plan: RunPlan, pin: str) -> str:
        """The host fetches the URL with its own user's configuration: that is where its credentials are."""
        env = {n: v for n, v in _GIT_ENV.items() if not n.startswith("GIT_CONFIG")}
        env["HOME"] = self._remote.install().home
        done = self._sh("fetch", errands.FETCH, mirror, plan.repo, plan.base, pin, env=env, timeout_s=_LONG_S)
        return done.out.decode().strip()

    def _push(self, repo: Repo, mirror: str, tip: str, haves: list[str]) -> None:
        """Send what the mirror lacks as one thin pack over the open connection."""
        channel = self._remote.pipe(
            ["git", "-C", mirror, "index-pack", "--stdin", "--fix-thin"], env=_GIT_ENV, fed=True
        )
        try:
            with _in_time("sending the base"):
                for chunk in repo.pack(tip, haves):
                    channel.send(chunk)
                channel.close_input()
                while channel.recv(65536, _LONG_S):
                    pass
                if channel.exit_code(_QUICK_S) != 0:
                    raise _workspace_error("index-pack on the host", channel.errors())
        except GitError as error:
            raise WorkspaceError(fail(_K.WORKSPACE, Evidence(source="git", seen=str(error)))) from error
        finally:
            channel.close()

    def _pull(self, git_dir: str, tips: list[str], haves: list[str]) -> Iterator[bytes]:
        """Bytes of a pack made on the host."""
        what = ["--revs", "--thin", "--stdout", "-q", "--delta-base-offset"]
        channel = self._remote.pipe(["git", f"--git-dir={git_dir}", "pack-objects", *what], env=_GIT_ENV)
        try:
            with _in_time("packing on the host"):
                channel.send("".join(f"{line}\n" for line in [*tips, *(f"^{have}" for have in haves)]).encode())
                channel.close_input()
                while chunk := channel.recv(256 * 1024, _LONG_S):
                    yield chunk
                if channel.exit_code(_QUICK_S) != 0:
                    raise _workspace_error("pack-objects on the host", channel.errors())
        finally:
            channel.close()

    def _sh(
        self,
        what: str,
        script: str,
        *args: str,
        env: Mapping[str, str] = MappingProxyType(_GIT_ENV),
        timeout_s: float = _QUICK_S,
    ) -> Done:
        argv = ["/bin/sh", "-c", script, "sh", *args]
        with _in_time(f"{what} on the host"):
            done = self._remote.execute(argv, env=dict(env), timeout_s=timeout_s, max_output_bytes=_OUTPUT_BYTES)
        if done.code != 0:
            raise _workspace_error(f"{what} on the host", done.err)
        return done


@contextmanager
def _in_time(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise _workspace_error(what, str(error).encode()) from error


def _workspace_error(what: str, said: bytes) -> WorkspaceError:
    words = " ".join(said.decode("utf-8", "replace").split())[-500:]
    return WorkspaceError(fail(_K.WORKSPACE, Evidence(source="git", seen=f"{what}: {words or 'no words'}")))


def _refs(text: str) -> dict[str, str]:
    """`sha name` lines as name -> sha."""
    return {name: sha for sha, _, name in (line.partition(" ") for line in text.splitlines())}


def _read(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The lines of `errands.READ`: tips by name, and what git said of files that it could not save."""
    lines = text.splitlines()
    missed = tuple(line.removeprefix("missed ") for line in lines if line.startswith("missed "))
    return _refs("\n".join(line for line in lines if not line.startswith("missed "))), missed


def mirror_name(repo: str) -> str:
    """Folder name of a repository's mirror: readable, unique by the whole path or URL, without credentials in it."""
    last = re.sub(r"[^A-Za-z0-9._-]", "-", Path(repo.rstrip("/")).name.removesuffix(".git"))[-40:]
    return f"{last.strip('.-') or 'repo'}-{hashlib.sha256(repo.encode()).hexdigest()[:12]}"


def home_of(plan: RunPlan, state: Path, search_path: str) -> tuple[Repo, bool]:
    """The repository on this machine that takes the commits, and whether it is the user's own."""
    if is_url(plan.repo):
        return Repo(state / "repos" / f"{mirror_name(plan.repo)}.git", search_path), False
    return Repo(Path(plan.repo), search_path), True

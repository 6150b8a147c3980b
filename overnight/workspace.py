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
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from overnight.collected import Collected, Leftovers
from overnight.failures import CollectError, Evidence, FailureKind, WorkspaceError, fail
from overnight.git import GitError, Repo
from overnight.handle import RunHandle
from overnight.plan import RunPlan
from overnight.remote import Done, Remote
from overnight.spec import is_url

_K = FailureKind
_GIT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "overnight",
    "GIT_AUTHOR_EMAIL": "overnight@localhost",
    "GIT_COMMITTER_NAME": "overnight",
    "GIT_COMMITTER_EMAIL": "overnight@localhost",
}
_QUICK_S, _LONG_S = 60.0, 1800.0
_OUTPUT_BYTES = 4_000_000

# several controllers may make it at once; git init is safe to repeat, only its config.lock is not
_MIRROR = """
for try in 1 2 3 4 5 6 7 8 9 10; do
  [ -e "$1/overnight-ready" ] && break
  mkdir -p "$1" && git init -q --bare --template= "$1" &&
    git -C "$1" config gc.auto 0 && : > "$1/overnight-ready" || sleep 0.3
done
set -e
git -C "$1" for-each-ref --format='%(objectname)' | sort -u
"""
# protocol.allow=never first: a URL such as ext:: would run a command
_FETCH = """
set -e
git -C "$1" -c protocol.allow=never -c protocol.https.allow=always -c protocol.ssh.allow=always \\
  -c protocol.http.allow=always -c protocol.git.allow=always -c protocol.file.allow=always \\
  fetch -q --no-tags --no-write-fetch-head --no-recurse-submodules "$2" "+$3:$4"
git -C "$1" rev-parse --verify "$4^{commit}"
"""
_CLONE = """
set -e
if [ -e "$2/.git/overnight-ready" ]; then exit 0; fi
rm -rf "$2"
git -c core.hooksPath=/dev/null clone -q --shared --no-checkout --template= "$1" "$2"
cd "$2"
git remote remove origin
git -c core.hooksPath=/dev/null checkout -q -b "$3" "$4"
: > .git/overnight-ready
"""
_TIPS = """
set -e
git --git-dir="$1/.git" for-each-ref --format='%(objectname) %(refname)' refs/heads
echo "$(git --git-dir="$1/.git" rev-parse --verify HEAD) HEAD"
"""
_FRESH = """
set -e
rm -rf "$2"
git init -q --template= "$2"
printf '%s\\n' "$1/.git/objects" > "$2/.git/objects/info/alternates"
git -C "$2" -c core.hooksPath=/dev/null checkout -q --detach "$3"
"""
_BORROW = """
set -e
rm -rf "$2"
git init -q --bare --template= "$2"
printf '%s\\n' "$1/.git/objects" > "$2/objects/info/alternates"
export GIT_DIR="$2" GIT_WORK_TREE="$1" GIT_INDEX_FILE="$2/index"
git read-tree "$3"
cd "$1"
git -c core.fsmonitor=false -c core.hooksPath=/dev/null add -A .
tree=$(git write-tree)
[ "$tree" = "$(git rev-parse "$3^{tree}")" ] || git commit-tree -p "$3" -m "$4" "$tree"
"""


class Workspaces:
    """Workspaces of one host."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._mirrors: dict[str, threading.Lock] = {}

    def prepare(self, plan: RunPlan, repo: Repo | None, run_dir: str) -> tuple[str, str]:
        """Make the run's clone; again on an existing one changes nothing.

        Args:
            repo: The repository on this machine, or None when `plan.repo` is a URL.

        Returns:
            Work directory on the host, and the base commit.

        Raises:
            WorkspaceError: with what git said.
            HostError: the connection failed.
        """
        mirror = f"{self._remote.install().root}/mirrors/{mirror_name(plan.repo)}.git"
        with self._mirror(mirror):
            base = self._bring_base(plan, repo, mirror)
        work = f"{run_dir}/work"
        self._sh(_CLONE, mirror, work, plan.branch, base, timeout_s=_LONG_S)
        return work, base

    def _mirror(self, mirror: str) -> threading.Lock:
        """One at a time per mirror: twenty tasks with one base must send it once."""
        with self._lock:
            return self._mirrors.setdefault(mirror, threading.Lock())

    def _bring_base(self, plan: RunPlan, repo: Repo | None, mirror: str) -> str:
        """Put the base commit into the mirror, pinned for this run; returns it."""
        haves = self._sh(_MIRROR, mirror).out.decode().split()
        pin = f"refs/overnight/base/{plan.run_id}"
        if repo is None:
            return self._fetch(mirror, plan, pin)
        base = plan.base_sha or repo.resolve(plan.base)
        if base not in haves:
            self._push(repo, mirror, base, [have for have in haves if repo.has(have)])
        self._git("-C", mirror, "update-ref", pin, base)
        return base

    def collect(self, plan: RunPlan, handle: RunHandle, repo: Repo) -> Collected:
        """Bring home what the run committed and what it left lying, as refs under `refs/overnight/<run_id>/`.

        Nothing is checked out and no file of the agent's is executed. Idempotent.

        Raises:
            CollectError: with the place on the host where the work still lies.
            HostError: the connection failed.
        """
        try:
            return self._collect(plan, handle, repo)
        except (GitError, WorkspaceError) as error:
            lies = Evidence(source="host", seen=f"the work lies in {handle.work_dir}", where=handle.host)
            seen = Evidence(source="git", seen=str(error))
            raise CollectError(fail(_K.COLLECT_FAILED, seen, lies, names=plan.route.names)) from error

    def fresh_clone(self, handle: RunHandle, tip: str, place: str) -> str:
        """A clone of a run's commit at `place`, with none of the run's configuration. Returns `place`."""
        self._sh(_FRESH, handle.work_dir, place, tip, timeout_s=_LONG_S)
        return place

    def _collect(self, plan: RunPlan, handle: RunHandle, repo: Repo) -> Collected:
        base, borrowed = handle.base_sha, f"{handle.run_dir}/collect.git"
        tips = _read_tips(self._sh(_TIPS, handle.work_dir).out.decode())
        head = tips.pop("HEAD")
        message = f"Uncommitted work of {plan.run_id}"
        left = self._sh(_BORROW, handle.work_dir, borrowed, head, message, timeout_s=_LONG_S).out.decode().strip()
        tip = tips.pop(f"refs/heads/{plan.branch}", base)
        if tip == base and head != base:
            tip = head
        others = {r: s for r, s in {**tips, "HEAD": head}.items() if s not in (base, tip)}
        wanted = [sha for sha in dict.fromkeys([tip, left, *others.values()]) if sha and sha != base]
        if wanted:
            haves = [base] if repo.has(base) else []
            repo.take_pack(self._pull(borrowed, wanted, haves), plan.limits.max_collect_bytes)
        spot = f"refs/overnight/{plan.run_id}"
        repo.set_ref(f"{spot}/base", base) if repo.has(base) else None
        kept = {f"{spot}/other/{ref.removeprefix('refs/heads/')}": sha for ref, sha in others.items()}
        for ref, sha in kept.items():
            repo.set_ref(ref, sha)
        leftovers = self._leftovers(repo, f"{spot}/wip", head, left) if left else None
        found = Collected(repo=str(repo.path), base_sha=base, others=kept, leftovers=leftovers)
        if tip == base:
            return found
        if not repo.is_ancestor(base, tip):
            raise GitError(f"{tip} does not descend from the base {base}")
        repo.set_ref(f"{spot}/head", tip)
        repo.set_ref(f"refs/heads/{plan.branch}", tip)
        counted = {"commits": repo.commits(base, tip), "diffstat": repo.diffstat(base, tip)}
        return found.model_copy(update={"tip": tip, "branch": plan.branch, **counted})

    def _leftovers(self, repo: Repo, ref: str, head: str, sha: str) -> Leftovers:
        repo.set_ref(ref, sha)
        files = repo.changed_files(head, sha)
        return Leftovers(ref=ref, sha=sha, count=len(files), files=tuple(files[:50]))

    def _fetch(self, mirror: str, plan: RunPlan, pin: str) -> str:
        """The host fetches the URL with its own user's configuration: that is where its credentials are."""
        env = {n: v for n, v in _GIT_ENV.items() if not n.startswith("GIT_CONFIG")}
        env["HOME"] = self._remote.install().home
        return self._sh(_FETCH, mirror, plan.repo, plan.base, pin, env=env, timeout_s=_LONG_S).out.decode().strip()

    def _push(self, repo: Repo, mirror: str, tip: str, haves: list[str]) -> None:
        """Send what the mirror lacks as one thin pack over the open connection."""
        channel = self._remote.pipe(["git", "-C", mirror, "index-pack", "--stdin", "--fix-thin"], env=_GIT_ENV)
        try:
            try:
                for chunk in repo.pack(tip, haves):
                    channel.send(chunk)
            except GitError as error:
                raise WorkspaceError(fail(_K.WORKSPACE, Evidence(source="git", seen=str(error)))) from error
            channel.close_input()
            while channel.recv(65536, _LONG_S):
                pass
            if channel.exit_code(_QUICK_S) != 0:
                raise _workspace_error("index-pack on the host", channel.errors())
        finally:
            channel.close()

    def _pull(self, git_dir: str, tips: list[str], haves: list[str]) -> Iterator[bytes]:
        """Bytes of a pack made on the host."""
        argv = [
            "git",
            f"--git-dir={git_dir}",
            "pack-objects",
            "--revs",
            "--thin",
            "--stdout",
            "-q",
            "--delta-base-offset",
        ]
        channel = self._remote.pipe(argv, env=_GIT_ENV)
        try:
            channel.send("".join(f"{line}\n" for line in [*tips, *(f"^{have}" for have in haves)]).encode())
            channel.close_input()
            while chunk := channel.recv(256 * 1024, _LONG_S):
                yield chunk
            if channel.exit_code(_QUICK_S) != 0:
                raise _workspace_error("pack-objects on the host", channel.errors())
        finally:
            channel.close()

    def _git(self, *args: str) -> Done:
        return self._done(self._remote.execute(["git", *args], env=_GIT_ENV, timeout_s=_QUICK_S), f"git {args[2]}")

    def _sh(
        self, script: str, *args: str, env: Mapping[str, str] = MappingProxyType(_GIT_ENV), timeout_s: float = _QUICK_S
    ) -> Done:
        argv = ["/bin/sh", "-c", script, "sh", *args]
        done = self._remote.execute(argv, env=dict(env), timeout_s=timeout_s, max_output_bytes=_OUTPUT_BYTES)
        return self._done(
            done, "preparing on the host" if script in (_MIRROR, _FETCH, _CLONE) else "reading on the host"
        )

    def _done(self, done: Done, what: str) -> Done:
        if done.code != 0:
            raise _workspace_error(what, done.err)
        return done


def _workspace_error(what: str, said: bytes) -> WorkspaceError:
    words = " ".join(said.decode("utf-8", "replace").split())[-500:]
    return WorkspaceError(fail(_K.WORKSPACE, Evidence(source="git", seen=f"{what}: {words or 'no words'}")))


def _read_tips(text: str) -> dict[str, str]:
    rows = [line.split(" ", 1) for line in text.splitlines() if line]
    return {ref: sha for sha, ref in rows}


def mirror_name(repo: str) -> str:
    """Folder name of a repository's mirror: readable, unique by the whole path or URL, without credentials in it."""
    last = re.sub(r"[^A-Za-z0-9._-]", "-", Path(repo.rstrip("/")).name.removesuffix(".git"))[-40:]
    return f"{last.strip('.-') or 'repo'}-{hashlib.sha256(repo.encode()).hexdigest()[:12]}"


def home_of(plan: RunPlan, state: Path, search_path: str) -> tuple[Repo, bool]:
    """The repository on this machine that takes the commits, and whether it is the user's own."""
    if is_url(plan.repo):
        return Repo(state / "repos" / f"{mirror_name(plan.repo)}.git", search_path), False
    return Repo(Path(plan.repo), search_path), True

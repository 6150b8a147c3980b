"""git on this machine, with nobody's configuration and no hooks."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from overnight.collected import Commit
from overnight.failures import Evidence, FailureKind, OvernightError, WorkspaceError, fail

_K = FailureKind
# the agent's hooks must not run here, and neither may the user's own run on what agents wrote
_SAFE = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "-c",
    "core.fsmonitor=false",
    # the user named the repository, so its owner does not matter
    "-c",
    "safe.directory=*",
)
# three faults that histories of long ago hold and that harm nobody; `--strict` makes errors of all others
_STRICT = "--strict=zeroPaddedFilemode=ignore,badTimezone=ignore,missingSpaceBeforeDate=ignore"
_LAST_MOMENT = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


class GitError(OvernightError):
    """A git command on this machine failed; holds the command's name and what it said."""


def environment(path: str) -> dict[str, str]:
    """All that git gets: no system or global configuration, no prompt."""
    return {
        "PATH": path,
        "HOME": "/nonexistent",  # a `~` in the repository's own configuration must expand to something, or git dies
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }


@dataclass(frozen=True)
class Repo:
    """A repository on this machine. `search_path` is the PATH on which git is found."""

    path: Path
    search_path: str

    def run(self, *args: str, input_text: str | None = None, timeout_s: float = 300) -> str:
        """Output of a git command, stripped.

        Raises:
            GitError: it did not exit with 0, not in time, or there is no git.
        """
        return self._output(*args, input_text=input_text, timeout_s=timeout_s).strip()

    def _output(self, *args: str, input_text: str | None = None, timeout_s: float = 300) -> str:
        said = self._bytes(*args, input_text=input_text, timeout_s=timeout_s).decode("utf-8", "replace")
        return said.replace("\r\n", "\n").replace("\r", "\n")

    def _bytes(self, *args: str, input_text: str | None = None, timeout_s: float = 300) -> bytes:
        what = f"git {args[0]} in {self.path}"
        try:
            done = subprocess.run(
                self._argv(*args),
                input=input_text.encode() if input_text is not None else None,
                capture_output=True,
                env=environment(self.search_path),
                timeout=timeout_s,
                check=False,
            )
        except OSError as error:
            raise GitError(f"{what}: cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise GitError(f"{what}: no end after {timeout_s:g} s") from error
        if done.returncode != 0:
            raise GitError(f"{what}: {' '.join(done.stderr.decode('utf-8', 'replace').split())[:500]}")
        return done.stdout

    def read(self, *args: str) -> bytes:
        """Output of a git command, byte for byte: names of files need not be text.

        Raises:
            GitError: as `run`.
        """
        return self._bytes(*args)

    def attempt(self, *args: str, env: Mapping[str, str], timeout_s: float) -> tuple[int, str, str]:
        """Exit code, output and words of a git command with an environment of the caller's; 124 when it took too long.

        For what needs its user's own configuration. No hook runs all the same.
        """
        try:
            done = subprocess.run(
                self._argv(*args),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=dict(env),
                timeout=timeout_s,
                check=False,
            )
        except OSError as error:
            return 127, "", f"git cannot be started: {error.strerror}"
        except subprocess.TimeoutExpired:
            return 124, "", f"git {args[0]}: no end after {timeout_s:g} s"
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def lines(self, *args: str, limit: int) -> Iterator[bytes]:
        """Output of a git command by lines, each with its line end; one longer than `limit` bytes comes in pieces.

        Raises:
            GitError: after the last line, when git failed.
        """
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                self._argv(*args), stdout=subprocess.PIPE, stderr=said, env=environment(self.search_path)
            ) as process,
        ):
            try:
                while process.stdout and (line := process.stdout.readline(limit)):
                    yield line
            except GeneratorExit:
                process.kill()
                raise
            process.wait()
            if process.returncode != 0:
                raise GitError(f"git {args[0]} in {self.path}: {_words(said)}")

    def resolve(self, revision: str) -> str:
        """Full object name of the commit a revision names.

        Raises:
            WorkspaceError: there is no repository here, or no such commit in it.
        """
        try:
            return self.run("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        except GitError as error:
            seen = Evidence(source="git", seen=f"no commit {revision!r}: {error}")
            raise WorkspaceError(fail(_K.WORKSPACE, seen)) from error

    def having(self, shas: Sequence[str]) -> list[str]:
        """Those of the given objects that are here."""
        if not shas:
            return []
        answers = self.run("cat-file", "--batch-check=%(objectname)", input_text="".join(f"{s}\n" for s in shas))
        return [line for line in answers.splitlines() if not line.endswith(" missing")]

    def has(self, sha: str) -> bool:
        return bool(self.having([sha]))

    def leads_to(self, sha: str) -> bool:
        """Whether some ref does. A commit that no ref leads to is here until git cleans up, and no longer."""
        return bool(self.run("for-each-ref", "--count=1", "--contains", sha))

    def shallow(self) -> list[str]:
        """Commits whose parents are not here, since the repository was cloned with a depth."""
        path = self.path / self.run("rev-parse", "--git-path", "shallow")
        return path.read_text(encoding="ascii").split() if path.exists() else []

    def pack(self, tip: str, haves: Sequence[str]) -> Iterator[bytes]:
        """Bytes of a thin pack with everything reachable from `tip` and not from `haves` (which must exist here).

        Raises:
            GitError: after the last byte, when git failed.
        """
        wanted = "".join(f"{line}\n" for line in [tip, *(f"^{have}" for have in haves)])
        argv = self._argv("pack-objects", "--revs", "--thin", "--stdout", "-q", "--delta-base-offset")
        with (
            tempfile.TemporaryFile() as order,
            tempfile.TemporaryFile() as said,
        ):
            order.write(wanted.encode())
            order.seek(0)
            with subprocess.Popen(
                argv, stdin=order, stdout=subprocess.PIPE, stderr=said, env=environment(self.search_path)
            ) as process:
                while process.stdout and (chunk := process.stdout.read(256 * 1024)):
                    yield chunk
            if process.returncode != 0:
                raise GitError(f"git pack-objects in {self.path}: {_words(said)}")

    def take_pack(self, chunks: Iterator[bytes], max_bytes: int) -> None:
        """Store a pack from somewhere else. Every object is checked (fsck) and linked, or nothing is kept.

        The pack is received beside the repository's own objects and moved among
        them when it is found good: git leaves a refused one lying where it wrote
        it. `--max-input-size` takes plain bytes only, and `index-pack --strict`
        is the one check that works for every git since 2.20; `fetch` of a bundle
        checks nothing before 2.46 (measured with 2.39.5). It reads 4 kB at a time:
        a full pipe would wake us at each of them, a socket does once it has room for
        many (0.2 s of the 2.6 s that 200 MB took, 2 cores, 2026-11-29).

        Raises:
            GitError: broken, hostile, truncated, or larger than `max_bytes`.
        """
        objects = self.path / self.run("rev-parse", "--git-path", "objects")
        argv = self._argv("index-pack", "--stdin", "--fix-thin", _STRICT, f"--max-input-size={max_bytes}")
        with (
            tempfile.TemporaryDirectory(dir=objects, prefix="tmp_objdir-overnight-") as received,
            tempfile.TemporaryFile() as said,  # a pipe that nobody reads could fill up and stop both of us
        ):
            Path(received, "info").mkdir()
            Path(received, "info", "alternates").write_text(f"{objects.absolute()}\n", encoding="utf-8")
            env = environment(self.search_path) | {"GIT_OBJECT_DIRECTORY": received}
            near, far = socket.socketpair()
            with (
                near,
                far,
                subprocess.Popen(argv, stdin=far.fileno(), stdout=subprocess.DEVNULL, stderr=said, env=env) as process,
            ):
                far.close()  # else nothing would tell us that git wants no more
                _feed(near, chunks)
            if process.returncode != 0:
                raise GitError(f"the pack was refused: {_words(said)}")
            for suffix in ("pack", "rev", "idx"):  # order matters: a pack exists for others once its idx does
                for file in Path(received, "pack").glob(f"*.{suffix}"):
                    file.replace(objects / "pack" / file.name)

    def set_refs(self, refs: Mapping[str, str]) -> None:
        """Point every ref at its object, all or none."""
        lines = "".join(f"update {ref} {sha}\n" for ref, sha in refs.items())
        self.run("update-ref", "--stdin", input_text=lines)

    def refs(self, below: str) -> dict[str, str]:
        """Every ref below a prefix, with its object."""
        lines = self.run("for-each-ref", "--format=%(refname) %(objectname)", below).splitlines()
        return dict(line.split(" ") for line in lines)

    def branch_with(self, sha: str) -> str:
        """A branch that leads to a commit; empty when none does."""
        return self.run("for-each-ref", "--count=1", "--format=%(refname:short)", "--contains", sha, "refs/heads")

    def drop_ref(self, name: str, sha: str) -> None:
        """Remove a ref that still points there."""
        self.run("update-ref", "-d", name, sha)

    def set_branch(self, name: str, sha: str, ours: str) -> bool:
        """Create a branch at a commit, or move it there; False when it is not ours to move.

        That is one that somebody went on with, or has checked out, or whose name
        cannot be since another branch is in the way.

        Args:
            ours: Pattern of refs; a commit that one of them points at was put there by us.
        """
        at = self.run("for-each-ref", "--format=%(objectname)", f"refs/heads/{name}")
        if at == sha:
            return True
        if at and not self.run("for-each-ref", "--points-at", at, ours) and not self.is_ancestor(at, sha):
            return False
        try:
            self.run("branch", "--force", "--no-track", name, sha)
        except GitError:
            return False
        return True

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        try:
            self.run("merge-base", "--is-ancestor", ancestor, descendant)
        except GitError:
            return False
        return True

    def commits(self, base: str, tip: str) -> tuple[Commit, ...]:
        """`base..tip`, oldest first."""
        shape = ("-z", "--reverse", "--topo-order", "--no-show-signature", "--format=%H%n%at%n%s")
        rows = [row.split("\n", 2) for row in self._output("log", *shape, f"{base}..{tip}", "--").split("\0") if row]
        return tuple(Commit(sha=s, author_date=_moment(d), subject=t.strip()[:200]) for s, d, t in rows)

    def diffstat(self, base: str, tip: str) -> str:
        """git's one-line summary, e.g. `2 files changed, 10 insertions(+)`. No external diff, no textconv."""
        return self.run("diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--shortstat", base, tip, "--")

    def changed_files(self, base: str, tip: str) -> str:
        """git's `--stat`, one line a file, at most 40 files."""
        return self.run(
            "diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--stat=100", "--stat-count=40", base, tip, "--"
        )

    def _argv(self, *args: str) -> list[str]:
        return ["git", *_SAFE, "-C", str(self.path), *args]


def bare(path: Path, search_path: str) -> Repo:
    """A bare repository of ours at `path`, made if it is not there. Safe to call from several threads at once."""
    repo = Repo(path, search_path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as scratch:
            fresh = Path(scratch, "repo.git")
            fresh.mkdir()
            Repo(fresh, search_path).run("init", "-q", "--bare", "--template=")
            with suppress(OSError):  # somebody else was faster
                fresh.rename(path)
    return repo


def _feed(sink: socket.socket, chunks: Iterator[bytes]) -> None:
    """Write until the end, or until the reader wants no more: its own words say why."""
    with sink:
        for chunk in chunks:
            try:
                sink.sendall(chunk)
            except (BrokenPipeError, ConnectionResetError):
                return


def _words(said: IO[bytes]) -> str:
    said.seek(0)
    return " ".join(said.read(4000).decode("utf-8", "replace").split())[:500]


def _moment(seconds: str) -> datetime:
    """An author's date, which is whatever the author wrote."""
    return datetime.fromtimestamp(min(int(seconds or 0), _LAST_MOMENT), UTC)

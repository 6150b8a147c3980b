"""git on this machine, with nobody's configuration and no hooks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
)


class GitError(OvernightError):
    """A git command on this machine failed; holds the command's name and what it said."""


def environment(path: str) -> dict[str, str]:
    """All that git gets: no system or global configuration, no prompt."""
    return {
        "PATH": path,
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
            GitError: it did not exit with 0.
        """
        done = subprocess.run(
            self._argv(*args),
            input=input_text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment(self.search_path),
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise GitError(f"git {args[0]} in {self.path}: {' '.join(done.stderr.split())[:500]}")
        return done.stdout.strip()

    def resolve(self, revision: str) -> str:
        """Full object name of the commit a revision names.

        Raises:
            WorkspaceError: there is no repository here, or no such commit in it.
        """
        try:
            return self.run("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        except (GitError, OSError, subprocess.TimeoutExpired) as error:
            raise WorkspaceError(fail(_K.WORKSPACE, Evidence(source="git", seen=str(error)))) from error

    def has(self, sha: str) -> bool:
        try:
            self.run("cat-file", "-e", f"{sha}^{{commit}}")
        except GitError:
            return False
        return True

    def pack(self, tip: str, haves: Sequence[str]) -> Iterator[bytes]:
        """Bytes of a thin pack with everything reachable from `tip` and not from `haves` (which must exist here).

        Raises:
            GitError: after the last byte, when git failed.
        """
        wanted = "".join(f"{line}\n" for line in [tip, *(f"^{have}" for have in haves)])
        argv = self._argv("pack-objects", "--revs", "--thin", "--stdout", "-q", "--delta-base-offset")
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.search_path),
        ) as process:
            source, sink, errors = _pipes(process)
            source.write(wanted.encode())
            source.close()
            while chunk := sink.read(256 * 1024):
                yield chunk
            said = errors.read().decode("utf-8", "replace")
        if process.returncode != 0:
            raise GitError(f"git pack-objects in {self.path}: {said.strip()[:500]}")

    def take_pack(self, chunks: Iterator[bytes], max_bytes: int) -> None:
        """Store a pack from somewhere else. Every object is checked (fsck) and linked, or nothing is kept.

        `--max-input-size` takes plain bytes only, and `index-pack --strict` is
        the one check that works for every git since 2.20; `fetch` of a bundle
        checks nothing before 2.46 (measured with 2.39.5).

        Raises:
            GitError: broken, hostile, truncated, or larger than `max_bytes`.
        """
        argv = self._argv("index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={max_bytes}")
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.search_path),
        ) as process:
            source, _, errors = _pipes(process)
            try:
                for chunk in chunks:
                    source.write(chunk)
                source.close()
            except BrokenPipeError:
                pass  # index-pack refused; its own words below say why
            said = errors.read().decode("utf-8", "replace")
        if process.returncode != 0:
            raise GitError(f"the pack was refused: {' '.join(said.split())[:500]}")

    def set_ref(self, ref: str, sha: str) -> None:
        self.run("update-ref", ref, sha)

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        try:
            self.run("merge-base", "--is-ancestor", ancestor, descendant)
        except GitError:
            return False
        return True

    def commits(self, base: str, tip: str) -> tuple[Commit, ...]:
        """`base..tip`, oldest first."""
        fields = self.run("log", "--reverse", "--topo-order", "--format=%H%x00%aI%x00%s%x01", f"{base}..{tip}", "--")
        rows = [row.strip("\n").split("\0", 2) for row in fields.split("\x01") if row.strip("\n")]
        return tuple(Commit.model_validate({"sha": s, "author_date": d, "subject": t[:200]}) for s, d, t in rows)

    def diffstat(self, base: str, tip: str) -> str:
        """git's one-line summary, e.g. `2 files changed, 10 insertions(+)`. No external diff, no textconv."""
        return self.run("diff", "--no-ext-diff", "--no-textconv", "--shortstat", base, tip, "--")

    def changed_files(self, base: str, tip: str) -> list[str]:
        names = self.run("diff", "--no-ext-diff", "--no-textconv", "--name-only", "-z", base, tip, "--")
        return [name for name in names.split("\0") if name]

    def _argv(self, *args: str) -> list[str]:
        # the user named this path, so its owner does not matter
        return ["git", *_SAFE, "-c", f"safe.directory={self.path}", "-C", str(self.path), *args]


def bare(path: Path, search_path: str) -> Repo:
    """A bare repository of ours at `path`, made if it is not there."""
    repo = Repo(path, search_path)
    if not (path / "HEAD").exists():
        path.mkdir(parents=True, exist_ok=True)
        repo.run("init", "-q", "--bare", "--template=")
    return repo


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("opened with three pipes")
    return process.stdin, process.stdout, process.stderr

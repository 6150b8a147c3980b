"""What commits change, read from git's objects; nothing is checked out, and no attribute or filter is obeyed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from overnight.git import Repo

GITLINK, SYMLINK = "160000", "120000"
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color")
# as a user's own configuration may not have it
_SHAPE = ("--src-prefix=a/", "--dst-prefix=b/", "--inter-hunk-context=0", "--submodule=short")
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_LINE_BYTES = 1_000_000
MESSAGE = b"(commit message)"


@dataclass(frozen=True)
class Change:
    """One path that differs. `status` is git's letter; `old` is the path it had where it was renamed, else `path`.

    Modes are octal texts, `000000` where there is nothing.
    """

    status: str
    path: bytes
    old: bytes
    old_mode: str
    mode: str
    blob: str


class Added(NamedTuple):
    """A line that a commit added. `number` counts from 1 in the file as that commit left it."""

    commit: str
    path: bytes
    number: int
    text: bytes


def changes(repo: Repo, base: str, tip: str) -> list[Change]:
    """All paths that differ between two commits; a rename is one change.

    Raises:
        GitError: git failed.
    """
    raw = repo.read("diff-tree", "-r", "-z", "--raw", "-M", "--no-abbrev", *_PLAIN, base, tip, "--")
    fields = iter(raw.split(b"\0"))
    found = []
    for field in fields:
        if not field.startswith(b":"):
            continue
        old_mode, mode, _, blob, status = field[1:].decode("ascii").split(" ")
        old = path = next(fields)
        if status[0] in "RC":
            path = next(fields)
        found.append(Change(status[0], path, old, old_mode, mode, blob))
    return found


def outside(repo: Repo, base: str, tip: str, globs: tuple[str, ...]) -> list[bytes]:
    """The changed paths, old names of renamed ones among them, that none of git's globs takes in."""
    but = [f":(top,exclude,glob){glob}" for glob in globs]
    args = ("-r", "-z", "--name-only", "--no-renames", base, tip, "--", ":(top)", *but)
    return [path for path in repo.read("diff-tree", *args).split(b"\0") if path]


def added_count(repo: Repo, base: str, tip: str) -> int:
    """Lines that were added between two commits; those of binary files count nothing."""
    rows = repo.read("diff-tree", "-r", "-z", "--numstat", "--no-renames", *_PLAIN, base, tip, "--").split(b"\0")
    counts = [row.split(b"\t", 1)[0] for row in rows if row]
    return sum(int(count) for count in counts if count.isdigit())


def sizes(repo: Repo, blobs: list[str]) -> list[int]:
    """Bytes of each object; 0 for one that is not here, as a submodule's commit."""
    asked = "".join(f"{blob}\n" for blob in blobs)
    said = repo.run("cat-file", "--batch-check=%(objectsize)", input_text=asked).splitlines() if blobs else []
    return [int(line) if line.isdigit() else 0 for line in said]


def added_lines(repo: Repo, base: str, tip: str) -> Iterator[Added]:
    """Every line that some commit of `base..tip` added, also where a later one took it away: both are delivered.

    The lines of their messages first. Of a merge the lines that differ from
    either parent. What git calls binary is read as text; a line of more than
    1 MB comes in pieces.

    Raises:
        GitError: git failed.
    """
    for record in repo.read("log", "-z", "--no-show-signature", "--format=%H%n%B", f"{base}..{tip}", "--").split(b"\0"):
        sha, _, message = record.partition(b"\n")
        for number, line in enumerate(message.splitlines(), 1):
            yield Added(sha.decode("ascii", "replace"), MESSAGE, number, line)
    args = ("-p", "-m", "-U0", "--text", "--no-renames", "--no-show-signature", "--format=commit %H", *_PLAIN, *_SHAPE)
    yield from _added(repo.lines("log", *args, f"{base}..{tip}", "--", limit=_LINE_BYTES))


def _added(chunks: Iterator[bytes]) -> Iterator[Added]:
    """Counts the lines of each hunk, so that no line of a file can pose as a header."""
    commit, path, number, gone, left = "", b"", 0, 0, 0
    adding = more = False
    for chunk in chunks:
        if more:
            if adding:
                yield Added(commit, path, number, chunk.rstrip(b"\r\n"))
        elif gone and chunk[:1] == b"-":
            gone, adding = gone - 1, False
        elif left and chunk[:1] == b"+":
            yield Added(commit, path, number, chunk[1:].rstrip(b"\r\n"))
            left, adding = left - 1, True
        elif found := _HUNK.match(chunk):
            gone, number, left = int(found[1] or 1), int(found[2]), int(found[3] or 1)
        elif chunk.startswith(b"+++ "):
            path = _unquoted(chunk[4:].rstrip(b"\n").removesuffix(b"\t"))
        elif chunk.startswith(b"commit "):
            commit = chunk[7:].strip().decode("ascii", "replace")
        more = not chunk.endswith(b"\n")
        if adding and not more:
            number, adding = number + 1, False


def _unquoted(name: bytes) -> bytes:
    """A path as git's patches write it, `b/` before it, in C's quotes where it holds anything strange."""
    if name.startswith(b'"'):
        name = codecs.escape_decode(name.strip(b'"'))[0]
    return name.removeprefix(b"b/")

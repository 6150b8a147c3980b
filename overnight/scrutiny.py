"""The guards: what a diff holds that somebody should know of before its commits go anywhere.

They look at what was collected, in the repository at home, through git's
objects alone. A guard names what is there; what becomes of it is the task's
policy. They are no proof that a diff does no harm.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from overnight.diffs import GITLINK, SYMLINK, Change, added_count, added_lines, changes, outside, sizes
from overnight.git import GitError, Repo
from overnight.handover import Finding, Guard, Guards
from overnight.leaks import detector_of
from overnight.printable import one_line

_PLACES = 20
# 0.3 s each MB of code, 2.5 s of the worst there is (measured 2026-11-29)
_SCANNED_BYTES = 20_000_000
_TEST = re.compile(
    rb"(^|/)(tests?|specs?|__tests__)/|(^|/)(test_[^/]*|[^/]*([._-](test|spec)s?|Tests?|Spec)\.[A-Za-z0-9]+|conftest\.py)$"
)
_WORKFLOW = re.compile(
    rb"^(\.(github|gitea|forgejo)/(workflows|actions)/|\.(circleci|buildkite|woodpecker|teamcity)/|\.gitlab/ci/)"
    rb"|(^|/)(\.gitlab-ci\.ya?ml|\.travis\.ya?ml|\.drone\.ya?ml|\.woodpecker\.ya?ml|\.cirrus\.ya?ml|appveyor\.yml"
    rb"|azure-pipelines\.ya?ml|bitbucket-pipelines\.yml|Jenkinsfile|action\.ya?ml)$",
    re.IGNORECASE,
)


def judge(repo: Repo, base: str, tip: str, guards: Guards, key: str = "") -> tuple[Finding, ...]:
    """All that the guards find between two commits; a diff that cannot be read is a finding itself.

    Args:
        key: The key that the run was given; empty when it is not at hand, and then nobody looks for it.
    """
    try:
        found = changes(repo, base, tip)
        whole = [
            *_paths(repo, base, tip, guards),
            *_size(repo, base, tip, found, guards),
            *_named(guards, "deleted_tests", _deleted_tests(repo, found), "test file", "is gone or empty"),
            *_secrets(repo, base, tip, guards, key),
            *_named(guards, "submodules", _submodules(found), "path", "has to do with submodules"),
            *_named(guards, "symlinks", _symlinks(repo, found), "symbolic link", "leads out of the repository"),
            *_named(guards, "workflows", _touched(found, _WORKFLOW), "file", "is something a CI service would execute"),
        ]
    except GitError as error:
        whole = [_finding(guards, "unread", f"the diff could not be read: {one_line(str(error))}", [])]
    return tuple(whole)


def _finding(
    guards: Guards, guard: Guard, seen: str, places: Sequence[bytes | str], count: int | None = None
) -> Finding:
    shown = tuple(one_line(place) for place in places[:_PLACES])
    return Finding(guard=guard, policy=guards.policy(guard), seen=seen, count=count or len(places), places=shown)


def _named(guards: Guards, guard: Guard, places: Sequence[bytes | str], noun: str, claim: str) -> Iterator[Finding]:
    """One finding for all places of a sort, or none."""
    if places:
        words = f"1 {noun} {claim}" if len(places) == 1 else f"{len(places)} {noun}s, each {claim}"
        yield _finding(guards, guard, words, places)


def _paths(repo: Repo, base: str, tip: str, guards: Guards) -> Iterator[Finding]:
    if guards.allow_paths:
        beyond = outside(repo, base, tip, guards.allow_paths)
        yield from _named(guards, "paths", beyond, "path", f"is outside {', '.join(guards.allow_paths)}")


def _size(repo: Repo, base: str, tip: str, found: Sequence[Change], guards: Guards) -> Iterator[Finding]:
    if len(found) > guards.max_files:
        yield _finding(guards, "size", f"{len(found)} files changed, more than {guards.max_files}", [], len(found))
    if (lines := added_count(repo, base, tip)) > guards.max_added_lines:
        yield _finding(guards, "size", f"{lines} lines added, more than {guards.max_added_lines}", [], lines)
    there = [each for each in found if each.status != "D" and each.mode != GITLINK]
    large = [
        one_line(each.path) + f" {size} bytes"
        for each, size in zip(there, sizes(repo, [each.blob for each in there]), strict=True)
        if size > guards.max_file_bytes
    ]
    yield from _named(guards, "size", large, "file", f"is larger than {guards.max_file_bytes} bytes")


def _deleted_tests(repo: Repo, found: Sequence[Change]) -> list[bytes]:
    tests = [each for each in found if _TEST.search(each.old) and each.status in "DMRT"]
    there = [each for each in tests if each.status != "D"]
    emptied = {each.path for each, n in zip(there, sizes(repo, [e.blob for e in there]), strict=True) if n == 0}
    # a test that was renamed to something no test runner would take is gone as well
    return [e.old for e in tests if e.status == "D" or e.path in emptied or not _TEST.search(e.path)]


def _submodules(found: Sequence[Change]) -> list[bytes]:
    return [each.path for each in found if GITLINK in (each.mode, each.old_mode) or each.path == b".gitmodules"]


def _symlinks(repo: Repo, found: Sequence[Change]) -> list[str]:
    links = [each for each in found if each.mode == SYMLINK and each.status != "D"]
    targets = ((each.path, repo.read("cat-file", "blob", each.blob)) for each in links)
    return [f"{one_line(path)} -> {one_line(target[:200])}" for path, target in targets if _leads_out(path, target)]


def _leads_out(path: bytes, target: bytes) -> bool:
    """By its words alone: `..` after a name may climb from wherever that name leads, so it counts as out."""
    parts = target.split(b"/")
    climbing = [i for i, part in enumerate(parts) if part == b".."]
    if target.startswith(b"/") or any(part not in (b"..", b".", b"") for part in parts[: max(climbing, default=0)]):
        return True
    lands = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split(b"/")
    return lands[0] == b".." or lands[0].lower() == b".git"


def _touched(found: Sequence[Change], pattern: re.Pattern[bytes]) -> list[bytes]:
    return [each.path for each in found if pattern.search(each.path) or pattern.search(each.old)]


def _secrets(repo: Repo, base: str, tip: str, guards: Guards, key: str) -> Iterator[Finding]:
    """What looks like a secret in any line that any commit added, and the run's own key, which needs no likeness."""
    own, likely = list[str](), list[str]()
    secret, seen = key.encode(), 0
    for line in added_lines(repo, base, tip):
        seen += len(line.text)
        place = f"{one_line(line.path)}:{line.number}"
        if secret and secret in line.text:
            own.append(f"{place} in {line.commit[:10]}")
        elif seen <= _SCANNED_BYTES and (detector := detector_of(line.text)):
            likely.append(f"{place} in {line.commit[:10]}: {detector}")
    yield from _named(guards, "own_key", own, "added line", "holds the key that the run was given")
    yield from _named(guards, "secrets", likely, "added line", "looks like a secret")
    if seen > _SCANNED_BYTES:
        words = f"only the first {_SCANNED_BYTES // 1_000_000} MB of {seen / 1e6:.0f} MB of added lines were looked at"
        yield _finding(guards, "secrets", words, [], 1)

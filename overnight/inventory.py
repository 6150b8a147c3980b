"""What lies on a host: every run there, and the removal of those that are over.

Runs on the host, sent as text and left nowhere. Standard library only, Python
3.8 or newer, imports nothing of ours; what a run directory means it asks the
supervisor file that is there.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]

PINS = "refs/overnight/base"
OBJECTS, PACKS = "objects", "objects/pack"
GONE = ".gone-"
GIT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
SIGN_ENTRIES = 5000
ASKS_CHARS = 200
SMALL_BYTES = 1_000_000


def main(order: Json) -> None:
    say("\nOVERNIGHT-INVENTORY 1\n")  # login files may have printed before us; readers skip to this line
    supervisor = runpy.run_path(order["supervisor"])
    root = os.path.join(os.path.expanduser("~"), order["root"])
    if order["remove"] or order["spare"]:
        removed = [remove(supervisor, root, each) for each in order["remove"]]
        answer: Json = {"removed": removed + [remove_spare(root, each) for each in order["spare"]]}
    else:
        answer = listed(supervisor, root, os.path.basename(order["supervisor"]), order["traced"])
    say(json.dumps(answer) + "\n")


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def listed(supervisor: Json, root: str, used: str, traced: bool) -> Json:
    """Every run directory with its state, ages and size, and every base commit that a mirror keeps for a run,
    and what no run needs.

    With `traced` also what it is about, for somebody who knows nothing of it.
    """
    found, kept = [], pins(os.path.join(root, "mirrors"))
    for name in sorted(names_in(os.path.join(root, "runs"))):
        if not supervisor["RUN_ID"].match(name):
            continue
        run = supervisor["RunDir"](root, name)
        state, why = run.state()
        ages = {"started_s": age_s(run.at("claim")), "ended_s": age_s(run.at("exit.json"))}
        found.append({"run_id": name, "state": state, "why": why, "bytes": size_of(run.path), **ages})
        if traced:
            found[-1]["trace"] = trace(root, run, kept.get(name))
    return {"runs": found, "pins": kept, "spare": spare(root, used, kept)}


def names_in(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def age_s(path: str) -> float | None:
    """Seconds since a file was written, by this host's own clock; None when it is not there."""
    try:
        return max(0.0, round(time.time() - os.stat(path).st_mtime, 1))
    except OSError:
        return None


def size_of(path: str) -> int:
    """Bytes on the disk. Gives a sign of life now and then: a large tree takes longer than a reader waits."""
    total, seen, waiting = 0, 0, [path]
    while waiting:
        here = waiting.pop()
        try:
            found = os.lstat(here)
            if stat.S_ISDIR(found.st_mode):
                waiting += [os.path.join(here, name) for name in os.listdir(here)]
        except OSError:
            continue
        total += found.st_blocks * 512
        seen += 1
        if seen % SIGN_ENTRIES == 0:
            say("\n")
    return total


def spare(root: str, used: str, kept: Json) -> list[Json]:
    """Mirrors that keep no run's base, and supervisors of other versions, with the time since they were written."""
    needed = {pin["mirror"] for pin in kept.values()}
    mirrors = [os.path.join("mirrors", name) for name in names_in(os.path.join(root, "mirrors")) if name not in needed]
    files = [os.path.join("lib", name) for name in names_in(os.path.join(root, "lib")) if name != used]
    found = []
    for name in sorted(mirrors + files):
        path = os.path.join(root, name)
        ages = [age_s(each) for each in (path, *(os.path.join(path, part) for part in (OBJECTS, PACKS, PINS)))]
        idle_s = min((age for age in ages if age is not None), default=0.0)  # what went meanwhile is not idle
        found.append({"name": name, "bytes": size_of(path), "idle_s": idle_s})
    return found


def remove_spare(root: str, name: str) -> Json:
    """Remove a mirror, unless a run came to need it meanwhile, or a file of an older version."""
    path = os.path.join(root, name)
    if any(os.path.join("mirrors", pin["mirror"]) == name for pin in pins(os.path.join(root, "mirrors")).values()):
        return {"run_id": name, "bytes": 0, "problem": "a run needs it by now"}
    freed = size_of(path)
    try:
        if name.startswith("lib" + os.sep):
            os.unlink(path)
        else:
            gone = os.path.join(root, "runs", GONE + os.path.basename(name))
            os.makedirs(os.path.dirname(gone), 0o700, exist_ok=True)
            os.rename(path, gone)  # at once, for whoever looks meanwhile
            purge(os.path.dirname(gone))
    except OSError as error:
        return {"run_id": name, "bytes": 0, "problem": str(error)}
    return {"run_id": name, "bytes": freed, "problem": ""}


def trace(root: str, run: Any, pin: Json | None) -> Json:
    """What a run directory tells of its task; an agent may have written anything into its work tree."""
    spec = run.read("spec.json") or {}
    branch, tip = head(os.path.join(run.at("work"), ".git"))
    commits = None
    if pin and tip:  # our own mirror's configuration; of the agent's repository the objects alone
        objects = os.path.join(run.at("work"), ".git", "objects")
        mirror = os.path.join(root, "mirrors", pin["mirror"])
        counted = git(mirror, "rev-list", "--count", pin["base_sha"] + ".." + tip, more=objects).strip()
        commits = int(counted) if counted.isdigit() else None
    asks = next(iter(reversed(spec.get("argv", []))), "")
    providers = sorted({secret["provider"] for secret in spec.get("secrets", [])})
    return {"asks": asks[:ASKS_CHARS], "providers": providers, "branch": branch, "commits": commits}


def head(git_dir: str) -> tuple[str | None, str | None]:
    """The branch that is checked out and its commit, read as text: git would load the agent's configuration."""
    name = read_small(os.path.join(git_dir, "HEAD")).strip()
    if not name.startswith("ref: refs/heads/"):
        return None, sha_in(name)
    ref = name[len("ref: ") :]
    if ".." in ref:
        return None, None
    tip = sha_in(read_small(os.path.join(git_dir, ref)))
    if tip is None:
        packed = read_small(os.path.join(git_dir, "packed-refs")).splitlines()
        tip = next((sha_in(line) for line in packed if line.endswith(" " + ref)), None)
    return ref[len("refs/heads/") :], tip


def sha_in(text: str) -> str | None:
    found = re.match(r"[0-9a-f]{40,64}\b", text)
    return found.group() if found else None


def read_small(path: str) -> str:
    """The text of a plain file, its first SMALL_BYTES; empty for anything else, a pipe too."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        plain = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, SMALL_BYTES).decode("utf-8", "replace") if plain else ""
    finally:
        os.close(fd)


def pins(mirrors: str) -> Json:
    """run id -> folder name of the mirror and the commit the run was made from."""
    found: Json = {}
    for mirror in names_in(mirrors):
        git_dir = os.path.join(mirrors, mirror)
        for line in git(git_dir, "for-each-ref", "--format=%(objectname) %(refname)", PINS).splitlines():
            sha, _, ref = line.partition(" ")
            found[ref[len(PINS) + 1 :]] = {"mirror": mirror, "base_sha": sha}
    return found


def git(git_dir: str, *args: str, more: str = "") -> str:
    """What git says of a mirror of ours; `more` is another folder of objects."""
    argv = ["git", "--git-dir", git_dir, "-c", "core.hooksPath=/dev/null", *args]
    env = dict(GIT, GIT_ALTERNATE_OBJECT_DIRECTORIES=more) if more else GIT
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return done.stdout.decode("utf-8", "replace")


def remove(supervisor: Json, root: str, run_id: str) -> Json:
    """Remove a run that is over. One that lives is never touched, whatever was asked."""
    run = supervisor["RunDir"](root, run_id)
    state = run.state()[0]
    if state not in ("finished", "lost", "absent") or supervisor["marked"](run_id):
        return {"run_id": run_id, "bytes": 0, "problem": f"it is {state}"}
    freed = size_of(run.path)
    try:
        if os.path.isdir(run.path):
            os.rename(run.path, os.path.join(root, "runs", GONE + run_id))  # at once, for whoever looks meanwhile
        purge(os.path.join(root, "runs"))
    except OSError as error:
        return {"run_id": run_id, "bytes": 0, "problem": str(error)}
    mirrors = os.path.join(root, "mirrors")
    for mirror in names_in(mirrors):
        git(os.path.join(mirrors, mirror), "update-ref", "-d", f"{PINS}/{run_id}")
    say("\n")
    return {"run_id": run_id, "bytes": freed, "problem": ""}


def purge(runs: str) -> None:
    """Remove what was put aside, by an earlier call that was cut off too."""
    for name in names_in(runs):
        if name.startswith(GONE):
            unlock(os.path.join(runs, name))
            shutil.rmtree(os.path.join(runs, name))


def unlock(path: str) -> None:
    """Agents' tools leave folders that may not be written (Go's module cache)."""
    waiting = [path]
    while waiting:
        here = waiting.pop()
        if stat.S_ISDIR(os.lstat(here).st_mode):
            os.chmod(here, 0o700)
            waiting += [os.path.join(here, name) for name in os.listdir(here)]

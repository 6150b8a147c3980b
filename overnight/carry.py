"""Copies what a run needs to go on where an earlier one stopped: its work tree, and its session of the agent.

Runs on the host, sent as text and left nowhere. Standard library only, Python
3.8 or newer, imports nothing of ours. The earlier run is only read.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]

GIT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
ANSWER = "carried.json"
OVER = ("finished", "lost")


class CannotGoOn(Exception):
    """The text says why."""


def main(order: Json) -> None:
    os.umask(0o077)
    sys.stdout.write("\nOVERNIGHT-CARRY 1\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps({"why": answered(order)}) + "\n")
    sys.stdout.flush()


def answered(order: Json) -> str:
    """Empty when all is there, else why not. Said once: a repeated order gets the same answer."""
    new = order["to"]
    os.makedirs(new, 0o700, exist_ok=True)
    place = os.path.join(new, ANSWER)
    with open(os.path.join(new, "carry.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an order may be repeated while the first is still carried out
        if os.path.exists(place):
            with open(place, encoding="utf-8") as file:
                return str(json.load(file)["why"])
        if os.path.exists(os.path.join(new, "claim")):
            return "it was started already"
        why = tried(order)
        with open(place + ".new", "w", encoding="utf-8") as file:
            json.dump({"why": why}, file)
        os.rename(place + ".new", place)
        return why


def tried(order: Json) -> str:
    try:
        carry(order)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError, CannotGoOn) as error:
        for name in ("work", "work.new", "home"):
            shutil.rmtree(os.path.join(order["to"], name), ignore_errors=True)
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


def carry(order: Json) -> None:
    """The tree is moved to its place last."""
    old, new = order["from"], order["to"]
    run = runpy.run_path(order["supervisor"])["RunDir"](os.path.dirname(os.path.dirname(old)), os.path.basename(old))
    if not os.path.isdir(old):
        raise CannotGoOn("its folder is gone")
    if run.state()[0] not in OVER:
        raise CannotGoOn(f"it is {run.state()[0]}")
    if not os.path.exists(os.path.join(old, "work", ".git", "overnight-ready")):
        raise CannotGoOn("its work tree is gone")
    files = session_files(os.path.join(old, "home"), order["files"])
    if not files:
        raise CannotGoOn("the files of its session are gone")
    check_room([os.path.join(old, "work"), *files], order["floor"])
    tree = os.path.join(new, "work.new")
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", os.path.join(old, "work"), tree], check=True, capture_output=True, env=GIT)
    unlock(os.path.join(tree, ".git"))
    for name in files:
        copy_session(old, new, name, order["sums"])
    keep_base(order)
    shutil.rmtree(os.path.join(new, "work"), ignore_errors=True)
    os.rename(tree, os.path.join(new, "work"))


def keep_base(order: Json) -> None:
    """The new run has the base of the earlier one, whatever the branch it was taken from has come to."""
    git = ["git", "-C", order["mirror"]]
    found = subprocess.run([*git, "rev-parse", "-q", "--verify", order["old_pin"]], capture_output=True, env=GIT)
    if found.returncode != 0:
        raise CannotGoOn("its base commit is gone")
    subprocess.run([*git, "update-ref", order["pin"], found.stdout.decode().strip()], check=True, env=GIT)


def check_room(paths: list[str], floor: int) -> None:
    told = subprocess.run(["du", "-sk", *paths], capture_output=True, check=True, env=GIT).stdout
    kib = sum(int(line.split()[0]) for line in told.splitlines())
    if shutil.disk_usage(paths[0]).free - kib * 1024 < floor:
        raise CannotGoOn(f"a copy of it takes {kib} KiB, which leaves too little free")


def unlock(git_dir: str) -> None:
    """Nobody holds the locks in a copy; a git that was killed leaves them, and the next one refuses."""
    for folder, _, names in os.walk(git_dir):
        for name in names:
            if name.endswith(".lock"):
                os.unlink(os.path.join(folder, name))


def session_files(home: str, patterns: list[str]) -> list[str]:
    """Plain files below HOME; a link might lead anywhere."""
    found = [
        name for pattern in patterns for name in glob.glob(os.path.join(glob.escape(home), pattern), recursive=True)
    ]
    root = os.path.realpath(home)
    return sorted(
        {name for name in found if os.path.isfile(name) and os.path.realpath(name) == inside(home, root, name)}
    )


def inside(home: str, root: str, name: str) -> str:
    return os.path.join(root, os.path.relpath(name, home))


def copy_session(old: str, new: str, name: str, sums: list[dict[str, str]]) -> None:
    """One file under the new HOME, with the new place wherever it said the old one."""
    told = os.path.relpath(name, os.path.join(old, "home"))
    pairs = [(each(old), each(new)) for each in (str, os.path.realpath)]
    for before, after in pairs:
        for other in ("[^A-Za-z0-9]", "[/:]"):  # how agents make one name of a path
            told = told.replace(re.sub(other, "-", before + "/work"), re.sub(other, "-", after + "/work"))
    place = os.path.join(new, "home", told)
    os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
    with open(name, "rb") as source, open(place, "wb") as copy:
        for line in source:
            for before, after in pairs:
                line = line.replace(os.fsencode(before + "/"), os.fsencode(after + "/"))
            if not is_sum(line, sums):
                copy.write(line)


def is_sum(line: bytes, sums: list[dict[str, str]]) -> bool:
    if not sums:
        return False
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):  # what an agent may have written there
        return False
    return any(all(at(fields, path) == value for path, value in each.items()) for each in sums)


def at(value: object, path: str) -> object:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value

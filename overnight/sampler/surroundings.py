"""What is around the processes of a run: memory, disks, output, the work tree and what its HEAD means."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from overnight.sampler.notes import text_of

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]


def load() -> Json:
    return {"load": round(os.getloadavg()[0], 2), "processors": os.cpu_count()}


def memory() -> Json:
    return {"memory_available_bytes": int(re.findall(r"MemAvailable: +(\d+)", text_of("/proc/meminfo"))[0]) * 1024}


def oom_kills(supervisor: Json, started: Json) -> Json:
    os.stat("/proc/vmstat")  # without it the count is none
    before, group_before = started["oom_before"], started["oom_group_before"]
    group = supervisor["oom_kills_of_group"](started["supervisor"])  # a login has a group of its own, not the run's
    since = None if group is None or group_before is None else max(0, group - group_before)
    return {"oom_kills": max(0, supervisor["oom_kills"]() - before), "oom_kills_group": since}


def speech(run: Any) -> Json:
    out, err = os.stat(run.at("out")), os.stat(run.at("err"))
    return {"out_bytes": out.st_size, "err_bytes": err.st_size, "spoke_s": age_s(max(out.st_mtime, err.st_mtime))}


def room(whose: str, folder: str) -> Json:
    found = os.statvfs(folder)
    inodes = found.f_favail if found.f_files else None  # some file systems have no such limit
    return {f"{whose}_disk_free_bytes": found.f_bavail * found.f_frsize, f"{whose}_disk_free_inodes": inodes}


def age_s(moment: float) -> float:
    return round(max(0.0, time.time() - moment), 1)


def work_folder(supervisor: Json, run: Any) -> str:
    places = {"home": run.at("home"), "tmp": run.at("tmp"), "run": run.path}
    folder: str = supervisor["filled"]((run.read("spec.json") or {}).get("cwd") or "{home}", places)
    return folder


def work_tree(supervisor: Json, folder: str) -> Json:
    """The age of its newest file, by the change that no program can set back."""
    return {"work_changed_s": age_s(max(found.st_ctime for _, found in supervisor["entries"](folder)))}


def repository(folder: str) -> Json:
    """What HEAD means, by files alone: a git would take locks. A branch without a commit has no head."""
    git = os.path.join(folder, ".git")
    own = git if os.path.isdir(git) else os.path.join(folder, text_of(git).partition("gitdir: ")[2].strip())
    shared = os.path.join(own, "commondir")  # there when the repository has several work trees
    common = os.path.join(own, text_of(shared).strip()) if os.path.exists(shared) else own
    says = text_of(os.path.join(own, "HEAD")).strip()
    branch = says[5:] if says.startswith("ref: ") else None
    loose, packed = os.path.join(common, branch or "HEAD"), os.path.join(common, "packed-refs")
    head: str | None = says
    if branch is not None and os.path.exists(loose):
        head = text_of(loose).strip()
    elif branch is not None:
        lines = text_of(packed).splitlines() if os.path.exists(packed) else []
        head = next((line.split()[0] for line in lines if line.endswith(" " + branch)), None)
    telling = (loose, os.path.join(own, "HEAD"), os.path.join(own, "logs", "HEAD"))
    changed = max(os.stat(path).st_mtime for path in telling if os.path.exists(path))
    return {"head": head, "branch": branch, "head_changed_s": age_s(changed)}

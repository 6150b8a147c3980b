"""How a host is: clock, room, limits, and what its sshd is told, as far as an ordinary user can see.

Runs on the host, sent as text and left nowhere. Standard library only, Python
3.8 or newer, imports nothing of ours. What a system does not say is None.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import pwd
import re
import resource
import shutil
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]

GIT_S = 10
# of these the value is told; of the others, which may hold a secret, only that they are there
PLAIN = (
    *("maxsessions", "maxstartups", "persourcemaxstartups", "persourcepenalties", "persourcepenaltyexemptlist"),
    *("permituserenvironment", "clientaliveinterval", "clientalivecountmax", "acceptenv"),
)
NAMED = ("setenv", "forcecommand", "match")
KEYRINGS = ("~/.local/share/keyrings/*.keyring", "~/.password-store", "~/Library/Keychains/login.keychain-db")


def main(order: Json) -> None:
    started = time.time()
    sys.stdout.write("\nOVERNIGHT-ONHOST-FACTS 1\n")  # login files may have printed before us
    sys.stdout.flush()
    answer = {"facts": facts(order["path"]), "sshd": sshd_lines(order["sshd"]), "keyrings": keyrings()}
    sys.stdout.write(json.dumps({**answer, "clock": [started, time.time()]}) + "\n")


def facts(path: list[str]) -> Json:
    home, temporary = os.path.expanduser("~"), os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # only looked at
    user = pwd.getpwuid(os.getuid())
    files, processes = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NPROC)
    booted = first_number("/proc/stat", r"^btime (\d+)")
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git(path),
        "user": user.pw_name,
        "uid": user.pw_uid,
        "shell": os.environ.get("SHELL") or user.pw_shell,
        "umask": f"{mask:03o}",
        "up_s": None if booted is None else round(time.time() - booted),
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "container": container(),
        "home": home,
        "home_is_there": os.path.isdir(home),
        **room("home", home),
        "tmp": temporary,
        "tmp_is_writable": os.path.isdir(temporary) and os.access(temporary, os.W_OK | os.X_OK),
        **room("tmp", temporary),
        **memory(),
        "open_files": limit(files[0]),
        "open_files_most": limit(files[1]),
        "processes": limit(processes[0]),
        "processes_most": limit(processes[1]),
    }


def limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def first_number(path: str, pattern: str) -> int | None:
    try:
        with open(path) as file:
            match = re.search(pattern, file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None


def git(path: list[str]) -> str | None:
    command = shutil.which("git", path=os.pathsep.join(path))
    if command is None:
        return None
    env = {"PATH": os.pathsep.join(path), "HOME": "/nonexistent"}
    try:
        done = subprocess.run(
            [command, "--version"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\d+(\.\d+)+", done.stdout.decode("utf-8", "replace"))
    return match[0] if match else None


def room(name: str, path: str) -> Json:
    """Bytes and files that this user may still write there. Some file systems do not count files: None."""
    try:
        found = os.statvfs(path)
    except OSError:
        return {f"{name}_free_bytes": None, f"{name}_free_files": None}
    return {
        f"{name}_free_bytes": found.f_bavail * found.f_frsize,
        f"{name}_free_files": found.f_favail if found.f_files else None,
    }


def memory() -> Json:
    """`memory_limit_bytes` is the control group's, where there is one."""
    total = first_number("/proc/meminfo", r"^MemTotal:\s+(\d+)")
    free = first_number("/proc/meminfo", r"^MemAvailable:\s+(\d+)")
    if total is None and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    return {
        "memory_bytes": None if total is None else total * 1024,
        "memory_available_bytes": None if free is None else free * 1024,
        "memory_limit_bytes": first_number("/sys/fs/cgroup/memory.max", r"^(\d+)$"),
    }


def container() -> str | None:
    """What kind, as far as it leaves traces; None where none is seen."""
    for path, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(path):
            return kind
    try:
        with open("/proc/1/cgroup") as file:
            match = re.search(r"docker|kubepods|lxc|containerd", file.read())
    except OSError:
        return None
    return match[0] if match else os.environ.get("container")  # noqa: SIM112  # so spelled by systemd


def sshd_lines(config: str) -> Json:
    """The lines that say what a connection may do, in the order sshd reads them; of a name the first one counts."""
    found: Json = {"lines": [], "problems": []}
    read_sshd(config, False, found, 0)
    return found


def read_sshd(path: str, matched: bool, found: Json, depth: int) -> None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        found["problems"].append([path, error.strerror or "cannot be read"])
        return
    for number, line in enumerate(lines, 1):
        word, value = [*re.split(r"[\s=]+", line.strip(), maxsplit=1), ""][:2]
        word = word.lower()
        if word == "include" and depth < 3:
            for pattern in value.split():
                for each in sorted(glob.glob(os.path.join("/etc/ssh", pattern.strip('"')))):
                    read_sshd(each, matched, found, depth + 1)
        elif word in PLAIN or word in NAMED:
            matched = matched or word == "match"
            plain = value.partition("#")[0].strip() if word in PLAIN else ""
            if word == "setenv":
                plain = " ".join(re.findall(r"(?:^|\s)\"?([A-Za-z_]\w*)=", value))
            found["lines"].append([path, number, word, plain, matched])


def keyrings() -> list[str]:
    """Places where a desktop keeps passwords, and whether a service answers for them; nothing is unlocked."""
    home = glob.escape(os.path.expanduser("~"))
    found = [each for pattern in KEYRINGS for each in sorted(glob.glob(pattern.replace("~", home, 1)))]
    bus = f"/run/user/{os.getuid()}/bus"
    if os.path.exists(bus) and stat.S_ISSOCK(os.stat(bus).st_mode):
        found.append("the session bus")
    return found

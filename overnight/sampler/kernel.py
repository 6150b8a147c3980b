"""The processes of a run as Linux tells them in /proc."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from overnight.sampler.connections import asked, by_netlink, by_table
from overnight.sampler.notes import Notes, text_of

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from collections.abc import Iterable
    from typing import Any

    Json = dict[str, Any]
    Look = dict[tuple[int, str], Json]

PROCESSES, SOCKETS, FILES, THREADS = 200, 400, 10_000, 64
COMMAND_CHARACTERS = 200
KINDS = {"pipe": "pipe", "socket": "socket", "/dev/pts": "tty", "/dev/tty": "tty", "/dev/console": "tty"}
CALLS = {  # those in which a silent process is found; a star: the first argument is a file
    "x86_64": "0 read* 1 write* 7 poll 17 pread64* 18 pwrite64* 19 readv* 20 writev* 23 select 34 pause 35 nanosleep "
    "42 connect* 43 accept* 44 sendto* 45 recvfrom* 46 sendmsg* 47 recvmsg* 61 wait4 72 fcntl* 73 flock* 74 fsync* "
    "75 fdatasync* 128 rt_sigtimedwait 130 rt_sigsuspend 202 futex 230 clock_nanosleep 232 epoll_wait* 247 waitid "
    "257 openat 270 pselect6 271 ppoll 281 epoll_pwait* 288 accept4* 441 epoll_pwait2*",
    "aarch64": "22 epoll_pwait* 25 fcntl* 32 flock* 56 openat 63 read* 64 write* 65 readv* 66 writev* 67 pread64* "
    "68 pwrite64* 72 pselect6 73 ppoll 82 fsync* 83 fdatasync* 95 waitid 98 futex 101 nanosleep 115 clock_nanosleep "
    "133 rt_sigsuspend 137 rt_sigtimedwait 202 accept* 203 connect* 206 sendto* 207 recvfrom* 211 sendmsg* "
    "212 recvmsg* 242 accept4* 260 wait4 441 epoll_pwait2*",
}


class Kernel:
    """Reads /proc, and asks the kernel for its connections."""

    def __init__(self, run: Any, started: Json, supervisor: Json, notes: Notes) -> None:
        self.run = run
        self.started = started
        self.supervisor = supervisor
        self.notes = notes
        words = CALLS.get(os.uname().machine, "").split()
        self.calls = dict(zip(words[::2], words[1::2]))  # noqa: B905  # strict= is not known to 3.8
        self.connections: list[dict[int, Json]] = []
        self.asking: list[dict[int, str]] = []
        self.began = time.monotonic()

    def look(self) -> Look | None:
        """Counters by process number and start; None when the run has no process that could be looked for."""
        state = self.run.state()[0]
        if state not in ("running", "orphaned") or not self.started:
            return None
        below, marked, kill = (self.supervisor[name] for name in ("tree_below", "marked", "kill"))
        pids = below(self.started["supervisor"]) if state == "running" else marked(self.run.run_id)
        self.refused = bool(pids) and self.supervisor["call_of"](pids[0]) is None
        if self.refused and state == "running" and self.started.get("tells_calls"):
            kill([self.started["supervisor"]], signal.SIGUSR1)  # it is above them all, and may read what we may not
        if len(pids) > PROCESSES:
            self.notes.add(f"processes: {len(pids)}, of which {PROCESSES} are told")
        found = {}
        for pid in pids[:PROCESSES]:
            stat = self.supervisor["stat_of"](pid)
            if stat is not None:
                found[pid, stat[19]] = {"stat": stat, "io": self._io(pid), "waited": waited_s(pid)}
        networks = self._networks(pid for pid, _ in found)
        self.connections.append(self._connections(networks))
        asking = [self.notes.attempt("name servers", asked, path) or {} for path in networks]
        self.asking.append({inode: server for each in asking for inode, server in each.items()})
        return found

    def tell(self, first: Look, second: Look) -> Json:
        pids = [pid for pid, _ in second]
        files = self._files(pids)
        owners: dict[int, int] = {}
        for pid in pids:
            for name in files.get(pid, {}).values():
                if name.startswith("socket:["):
                    owners.setdefault(int(name[8:-1]), pid)
        calls = self._calls_told() if self.refused else {}
        waits = self.notes.attempt("locks", lock_waits, set(pids)) or {}
        parents = {pid: int(row["stat"][1]) for (pid, _), row in second.items()}
        processes = []
        for key, now in second.items():
            told = self._process(key[0], now, first.get(key, {}), files.get(key[0]))
            told["main"] = key[0] == self.started["pid"]
            told["syscall"] = self._call(key[0], calls)
            told["waits_in"] = told["waits_in"] or told["syscall"]
            told["fed_by"] = feeder(told, files, parents)
            told["locks"] = [self._lock(each) for each in waits.get(key[0], ())]
            processes.append(told)
        asking = {inode for inode in self.asking[-1] if inode in owners and inode in self.asking[0]}
        return {
            "processes": processes,
            "sockets": self._sockets(owners),
            "asks_names_of": sorted({self.asking[-1][inode] for inode in asking}),
        }

    def _process(self, pid: int, now: Json, before: Json, files: dict[str, str] | None) -> Json:
        stat, tick = now["stat"], os.sysconf("SC_CLK_TCK")
        cpu, waited = (int(stat[11]) + int(stat[12])) / tick, now["waited"]
        cpu_before = (int(before["stat"][11]) + int(before["stat"][12])) / tick if before else 0.0
        waited_before = before.get("waited") or 0.0
        told = {
            "pid": pid,
            "parent": int(stat[1]),
            "command": command_of(pid),
            "state": stat[0],
            "threads": int(stat[17]),
            "age_s": round(time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) / tick, 2),
            "cpu_s": round(cpu, 2),
            "cpu_delta_s": round(cpu - cpu_before, 2),
            "wait_delta_s": None if waited is None else round(max(0.0, waited - waited_before), 3),
            "rss_bytes": int(stat[21]) * os.sysconf("SC_PAGE_SIZE"),
            "stdin": "" if files is None else kind_of(files.get("0", "closed")),
        }
        for name, value in (now["io"] or {}).items():
            told[name] = value - (before.get("io") or {}).get(name, 0)
        wchan = self.notes.of_process("wchan", text_of, f"/proc/{pid}/wchan") or "0"
        told["waits_in"] = "" if wchan == "0" else wchan
        return told

    def _io(self, pid: int) -> Json | None:
        names = {"read_delta_bytes": "rchar", "write_delta_bytes": "wchar"}
        names.update(disk_read_delta_bytes="read_bytes", disk_write_delta_bytes="write_bytes")
        text = self.notes.of_process("input and output", text_of, f"/proc/{pid}/io")
        counted = dict(line.split(": ") for line in text.splitlines()) if text else {}
        return {name: int(counted[word]) for name, word in names.items()} if counted else None

    def _calls_told(self) -> Json:
        """What the supervisor wrote down when it was asked to."""
        record = self.run.read("calls") or {"at_s": 0.0}
        if record["at_s"] >= self.began:
            calls: Json = record["calls"]
            return calls
        self.notes.add("system calls: not permitted")
        return {}

    def _call(self, pid: int, told: Json) -> str:
        """The main thread's call; empty while it is in none."""
        text = self.supervisor["call_of"](pid) or told.get(str(pid)) or ""
        number, _, rest = text.partition(" ")
        if not number.isdigit():
            return ""
        name = self.calls.get(number, f"call {number}")
        return f"{name[:-1]}({int(rest.split()[0], 16)})" if name.endswith("*") else name

    def _lock(self, wait: Json) -> Json:
        holder = max(0, wait["holder"] or 0) or None  # the kernel says -1 or 0 where no single process has it
        paths = [f"/proc/{wait['pid']}/fd/{fd}" for fd in names_in(f"/proc/{wait['pid']}/fd")]
        file = next((os.readlink(path) for path in paths if inode_of(path) == wait["inode"]), f"inode {wait['inode']}")
        return {
            "file": file,
            "kind": wait["kind"],
            "holder": holder,
            "holder_command": command_of(holder) if holder else "",
        }

    def _files(self, pids: list[int]) -> dict[int, dict[str, str]]:
        """What each process has open, by descriptor; a process that does not show it is not there."""
        found: dict[int, dict[str, str]] = {}
        left = FILES
        for pid in pids:
            names = self.notes.of_process("open files", os.listdir, f"/proc/{pid}/fd")
            if names is None:
                continue
            found[pid] = {}
            for name in names[:left]:
                try:
                    found[pid][name] = os.readlink(f"/proc/{pid}/fd/{name}")
                except OSError:
                    continue
            left -= min(left, len(names))
        if not left:
            self.notes.add(f"open files: more than {FILES}")
        return found

    def _networks(self, pids: Iterable[int]) -> dict[str, bool]:
        """A /proc/.../net for each network name space in use, and whether it is our own."""
        own = os.readlink("/proc/self/ns/net")
        found = {own: "/proc/self/net"}
        for pid in pids:
            try:
                found.setdefault(os.readlink(f"/proc/{pid}/ns/net"), f"/proc/{pid}/net")
            except OSError:
                continue
        return {path: space == own for space, path in found.items()}

    def _connections(self, networks: dict[str, bool]) -> dict[int, Json]:
        found: dict[int, Json] = {}
        for path, own in networks.items():
            told = self.notes.attempt("connections by netlink", by_netlink) if own else None
            if told is None:
                told = self.notes.attempt("connections", by_table, path) or {}
            found.update(told)
        return found

    def _sockets(self, owners: dict[int, int]) -> list[Json]:
        told = []
        for inode, now in self.connections[-1].items():
            if inode not in owners:
                continue
            before = self.connections[0].get(inode, {})
            row = dict(now, pid=owners[inode])
            for name in ("sent", "received"):
                if row.get(f"{name}_bytes") is not None:
                    row[f"{name}_delta_bytes"] = row[f"{name}_bytes"] - (before.get(f"{name}_bytes") or 0)
            told.append(row)
        if len(told) > SOCKETS:
            self.notes.add(f"connections: {len(told)}, of which {SOCKETS} are told")
        return told[:SOCKETS]


def command_of(pid: int) -> str:
    """Its arguments in one line, or its name in brackets when it has none; empty when it is gone or not ours."""
    try:
        words = " ".join(text_of(f"/proc/{pid}/cmdline").replace("\0", " ").split())
        return words[:COMMAND_CHARACTERS] or f"[{text_of(f'/proc/{pid}/comm').strip()}]"
    except OSError:
        return ""


def waited_s(pid: int) -> float | None:
    """How long its threads could have run and had no processor."""
    total = 0
    for thread in names_in(f"/proc/{pid}/task")[:THREADS]:
        try:
            total += int(text_of(f"/proc/{pid}/task/{thread}/schedstat").split()[1])
        except (OSError, IndexError):
            return None
    return total / 1e9


def names_in(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def inode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def kind_of(name: str) -> str:
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), name)


def feeder(process: Json, files: dict[int, dict[str, str]], parents: dict[int, int]) -> int | None:
    """Who else writes into the pipe it reads from, as in `one | two`; a process above it is no such one."""
    pipe, above = files.get(process["pid"], {}).get("0", ""), {process["pid"]}
    if not pipe.startswith("pipe:"):
        return None
    at = process["parent"]
    while at in parents:
        above.add(at)
        at = parents[at]
    for pid in sorted(files.keys() - above):
        if any(name == pipe and writes(pid, fd) for fd, name in files[pid].items()):
            return pid
    return None


def writes(pid: int, fd: str) -> bool:
    try:
        return bool(os.lstat(f"/proc/{pid}/fd/{fd}").st_mode & 0o200)
    except OSError:
        return False


def lock_waits(pids: set[int]) -> dict[int, list[Json]]:
    """Who of these waits for which lock of the kernel, and who holds that."""
    found: dict[int, list[Json]] = {}
    holders: dict[str, int] = {}
    for line in text_of("/proc/locks").splitlines():
        number, *words = line.split()
        if words[0] != "->":
            holders[number] = int(words[3])
            continue
        pid, inode = int(words[4]), int(words[5].rpartition(":")[2])
        if pid in pids:
            wait = {"pid": pid, "inode": inode, "kind": words[1].lower(), "holder": holders.get(number)}
            found.setdefault(pid, []).append(wait)
    return found

"""The same with tools, for where there is no /proc: macOS."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from overnight.sampler.connections import DULL
from overnight.sampler.kernel import COMMAND_CHARACTERS, PROCESSES, SOCKETS, kind_of
from overnight.sampler.notes import Notes

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]
    Look = dict[tuple[int, str], Json]

ANSWER_S = 5
TYPES = {"PIPE": "pipe", "FIFO": "pipe", "unix": "socket", "IPv4": "socket", "IPv6": "socket"}


class Tools:
    """Asks `ps` and `lsof`, as on macOS. Knows less: no calls, no locks, no counters of connections."""

    def __init__(self, run: Any, started: Json, notes: Notes) -> None:
        self.run = run
        self.started = started
        self.notes = notes

    def look(self) -> Look | None:
        if self.run.state()[0] != "running" or not self.started:
            return None
        listed: dict[int, Json] = self.notes.attempt("processes", listing) or {}
        below: set[int] = {self.started["supervisor"]}
        grown = True
        while grown:
            more = {pid for pid, row in listed.items() if row["parent"] in below} - below
            grown = bool(more)
            below |= more
        wanted = sorted(below - {self.started["supervisor"]})[:PROCESSES]
        return {(pid, ""): listed[pid] for pid in wanted if pid in listed}

    def tell(self, first: Look, second: Look) -> Json:
        pids = [pid for pid, _ in second]
        seen: tuple[list[Json], dict[int, str]] | None = self.notes.attempt("open files", open_files, pids)
        sockets, stdin = seen or ([], {})
        processes: list[Json] = []
        for (pid, _), row in second.items():
            before = first[pid, ""]["cpu_s"] if (pid, "") in first else 0.0
            delta = round(max(0.0, row["cpu_s"] - before), 2)
            processes.append(dict(row, main=pid == self.started["pid"], cpu_delta_s=delta, stdin=stdin.get(pid, "")))
        return {"processes": processes, "sockets": sockets[:SOCKETS]}


def tool(*argv: str) -> str:
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=ANSWER_S
    )
    return done.stdout.decode("utf-8", "replace")  # whatever the code: lsof fails when one of many is gone


def listing() -> dict[int, Json]:
    found: dict[int, Json] = {}
    for line in tool("ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,etime=,time=,rss=,wchan=,args=").splitlines():
        pid, parent, state, age, cpu, rss, wchan, *rest = line.split(None, 7)
        row: Json = {"pid": int(pid), "parent": int(parent), "command": "".join(rest)[:COMMAND_CHARACTERS]}
        row.update(state={"I": "S", "U": "D"}.get(state[0], state[0]), age_s=clock(age), cpu_s=clock(cpu))
        found[int(pid)] = dict(row, rss_bytes=int(rss) * 1024, waits_in="" if wchan == "-" else wchan)
    return found


def clock(words: str) -> float:
    """Seconds of [[days-]hours:]minutes:seconds."""
    days, _, rest = words.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = total * 60 + float(part)
    return total + 86400 * int(days or 0)


def open_files(pids: list[int]) -> tuple[list[Json], dict[int, str]]:
    """Connections, and what the standard input of each process is."""
    if not pids:
        return [], {}
    listed = ",".join(str(pid) for pid in pids)
    return files_in(tool("lsof", "-nP", "-w", "-Tqs", "-FpftnPT", "-a", "-p", listed, "-d", "0-255"))


def files_in(text: str) -> tuple[list[Json], dict[int, str]]:
    """Out of what lsof says: one field a line, its letter first; `p` begins a process, `f` a file of it."""
    sockets, stdin = [], {}
    pid = 0
    file: dict[str, str] = {}
    for line in [*text.splitlines(), "f"]:
        letter, value = line[:1], line[1:]
        if letter in "pf" and file:
            if file["f"] == "0":
                stdin[pid] = TYPES.get(file.get("t", "")) or kind_of(file["n"])
            if file.get("P") == "TCP" and file.get("TST", "LISTEN") not in DULL:
                sockets.append(row_of(pid, file))
            file = {}
        if letter == "p":
            pid = int(value)
        elif letter == "f" and value:
            file = {"f": value, "n": ""}
        elif letter == "T":
            name, _, said = value.partition("=")
            file["T" + name] = said
        else:
            file[letter] = value
    return sockets, stdin


def row_of(pid: int, file: dict[str, str]) -> Json:
    local, _, remote = file["n"].partition("->")
    row: Json = {"pid": pid, "state": file["TST"], "local": local, "remote": remote}
    for name, letters in (("receive_queue_bytes", "TQR"), ("send_queue_bytes", "TQS")):
        row[name] = int(file[letters]) if letters in file else None
    return row

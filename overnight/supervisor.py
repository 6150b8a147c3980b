"""The part of overnight that lives on the host: starts runs, outlives the connection, tells what became of them.

Runs as `python3 -I -S THIS OP`, everything else is one JSON line on standard
input. Standard library only, Python 3.8 or newer, imports nothing of ours; of the library
only what every call needs, since shutil and hashlib made each slower. It
is one file, longer than our others, because it travels: one upload, one hash,
nothing on the host that could be half of another version.

A run is a directory, `ROOT/runs/RUN_ID`. Only the supervisor of the run writes
there, and it holds a lock on `lock` for its whole life, so that whoever asks
later can tell a living run from a dead one without trusting a process number.
Ages are read from the monotonic clock, which all processes of one boot share
and which neither a changed wall clock nor a suspended laptop moves.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import resource
import select
import signal
import stat
import sys
import time

TYPE_CHECKING = False  # as checkers know it; importing typing would cost each call 2 ms
if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn

    Json = dict[str, Any]

RECORD_BYTES = 4096  # one page: written in place, never half of it seen
TICK_S = 0.2
KILL_TICK_S = 0.02
BEAT_S = 2.0
SECRETS_S = 30.0
SCAN_S = 15.0
SCAN_ENTRIES = 2000
SAMPLE_S = 15
SAMPLE_BYTES = 4_000_000
FOLLOW_TICK_S, FOLLOW_TICK_MOST_S = 0.1, 0.6
FOLLOW_TICK_RUN_S = 0.0024  # each run adds so much: many looks a second at many files are a load of their own
FOLLOW_BEAT_S = 5.0
FOLLOW_DEAF_S = 90
SERVE_WINDOW_BYTES = 2_097_152
READ_BYTES = 262_144
NEWLINE = 10
CHUNK_BYTES = 65536
KEPT_HEAD_BYTES = 262_144
KEPT_TAIL_BYTES = 1_048_576
RELEASE_BYTES = 4_194_304
BEYOND = 1 << 40
ORDER_BYTES = 32 * 1024 * 1024
FINAL = ("finished", "lost", "absent")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def main(op: str) -> int:
    os.umask(0o077)
    say(f"\nOVERNIGHT-{op.upper()} 1\n")  # rc files may have printed before us; readers skip to this line
    if op == "follow":
        return follow()
    if op == "serve":
        return serve()
    order = read_order()
    if op == "exec":
        return execute(order)
    if op in ("start", "facts"):
        say(json.dumps(start(order) if op == "start" else facts(order)) + "\n")
        return 0
    return 2


def say(text: str) -> None:
    write_all(1, text.encode())


def write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_order() -> Json:
    """The first line of standard input, and not one byte more: what follows belongs to the child."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < ORDER_BYTES:
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    order: Json = json.loads(line)
    return order


# --- the run directory ---


def root_of(order: Json) -> str:
    return os.path.join(os.path.expanduser("~"), order["root"])


class RunDir:
    """The files of one run, and what they prove about it."""

    def __init__(self, root: str, run_id: str) -> None:
        if not RUN_ID.match(run_id):
            raise ValueError(f"not a run id: {run_id!r}")
        self.run_id = run_id
        self.path = os.path.join(root, "runs", run_id)

    def at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def read(self, name: str) -> Json | None:
        """A record, or None when it is not there or was caught while being written."""
        try:
            with open(self.at(name), "rb") as file:
                record: Json = json.loads(file.read())
                return record
        except (OSError, ValueError):
            return None

    def write(self, name: str, record: Json) -> None:
        """Make `name` appear whole and for good."""
        with open(self.at(name + ".new"), "wb") as file:
            file.write(json.dumps(record).encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(self.at(name + ".new"), self.at(name))

    def claim(self, digest: str) -> bool:
        """True for exactly one caller. A link, so that nobody ever sees a claim without its content."""
        mine = self.at(f"claim.{os.getpid()}")
        with open(mine, "w") as file:
            file.write(json.dumps({"digest": digest}))
        try:
            os.link(mine, self.at("claim"))
        except FileExistsError:
            return False
        finally:
            os.unlink(mine)
        return True

    def unclaim(self) -> None:
        """Take back what a start wrote, the claim last; the work tree beside it is not ours."""
        for name in (".exit.slot", "spec.json", "started.json", "hb", "released", "out", "err", "claim"):
            try:
                os.unlink(self.at(name))
            except OSError:
                continue

    def supervised(self) -> bool:
        try:
            fd = os.open(self.at("lock"), os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(
                fd, fcntl.LOCK_SH | fcntl.LOCK_NB
            )  # shared: two who ask do not take each other for a supervisor
        except OSError as error:
            return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        finally:
            os.close(fd)
        return False

    def state(self) -> tuple[str, str]:
        """(absent | starting | running | finished | orphaned | lost, why)."""
        if not os.path.exists(self.at("claim")):
            return "absent", "the host has no such run directory"
        if os.path.exists(self.at("exit.json")):
            return "finished", "the exit record cannot be read"
        if self.supervised():
            return ("running" if os.path.exists(self.at("started.json")) else "starting"), ""
        if os.path.exists(self.at("exit.json")):  # it ended between the two looks
            return "finished", "the exit record cannot be read"
        started = self.read("started.json")
        if started is None:
            if age_of(self.at("claim")) < 5:  # between claim and lock
                return "starting", ""
            return "lost", "the supervisor died before the start was recorded"
        if started["boot_id"] != boot_id():
            return "lost", "the host rebooted during the run"
        if marked(self.run_id):
            return "orphaned", "the supervisor died, processes of the run live"
        return "lost", "the supervisor died before it recorded the end"


def age_of(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return 0.0


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


# --- processes ---


def stat_of(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the name, state first; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def call_of(pid: int) -> str | None:
    """The system call its main thread is in, as the kernel writes it; None where that may not be read."""
    try:
        with open(f"/proc/{pid}/syscall") as file:
            return file.read().strip()
    except OSError:
        return None


def tree_below(pid: int) -> list[int]:
    """Every living descendant. Walks children files: reading all of /proc costs 200 times as much."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    children = [int(word) for word in file.read().split()]
            except OSError:
                continue
            waiting += children
            found += children
    return found


def marked(run_id: str) -> list[int]:
    """Living processes that carry the run's mark in their environment, for when no supervisor is left to ask."""
    mark = b"OVERNIGHT_RUN_ID=" + run_id.encode()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue
    return found


def kill(pids: Iterable[int], number: int) -> int:
    """How many took the signal."""
    sent = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            sent += 1
        except OSError:
            continue
    return sent


def threads_of_user() -> int:
    """What RLIMIT_NPROC counts already: every thread of this user."""
    total = 0
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        try:
            if name.isdigit() and os.stat("/proc/" + name).st_uid == os.getuid():
                total += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return total


def become_subreaper() -> bool:
    """Adopt every orphan of the run, so that wait() can prove there is none left. False where Linux is not."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes
    except ImportError:
        return False
    return bool(ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0)  # PR_SET_CHILD_SUBREAPER


def oom_kills() -> int:
    """Kills by the kernel for want of memory since boot, on the whole host."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def oom_kills_of_group(pid: int) -> int | None:
    """The same for that process's memory group since it was made; None where there is none or it cannot be read."""
    file = group_file(pid)
    return group_kills(file) if file else None


def group_file(pid: int) -> str | None:
    """Where the kernel counts the kills in that process's memory group. A dead one's group is the root's."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    except OSError:
        return None
    for names, path in groups:
        folder = "memory" + path if "memory" in names.split(",") else path[1:]
        for name in ("memory.events", "memory.oom_control"):  # of the second and the first kind of groups
            place = os.path.join("/sys/fs/cgroup", folder, name)
            if group_kills(place) is not None:
                return place
    return None


def group_kills(file: str) -> int | None:
    try:
        with open(file) as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
    except OSError:
        return None


class Struck:
    """Kills for want of memory that were the run's own: those of its memory group, or else the host's just now."""

    def __init__(self) -> None:
        self.file: str | None = None
        self.before = 0
        self.host_lately = oom_kills()
        self.own = 0

    def look(self, pid: int) -> None:
        """While it lives; somebody may move it to a group of its own."""
        self.host_lately = oom_kills()
        file = group_file(pid)
        if file != self.file:
            self.file, self.before = file, (group_kills(file) or 0) if file else 0

    def ended(self) -> None:
        """At the moment its main process is found dead."""
        count = group_kills(self.file) if self.file else None
        self.own = max(0, oom_kills() - self.host_lately if count is None else count - self.before)


# --- start ---


def start(order: Json) -> Json:
    """Start the run, once. Whoever comes second is told what became of the first."""
    run = RunDir(root_of(order), order["run_id"])
    try:
        os.makedirs(run.path, 0o700, exist_ok=True)
        mine = run.claim(order["digest"])
    except OSError as error:
        return refusal("claim", error)
    if not mine:
        return standing(run, order["digest"])
    try:
        return daemonise(run, order, prepare(run, order))
    except OSError as error:
        run.unclaim()
        return refusal("prepare", error)


def refusal(what: str, error: OSError) -> Json:
    name = errno.errorcode.get(error.errno or 0, "")
    return {"answer": "error", "what": f"{what}: {error}", "errno": name}


def standing(run: RunDir, digest: str) -> Json:
    claim = run.read("claim") or {}
    if claim.get("digest") != digest:
        return {"answer": "conflict", "run_dir": run.path}
    return {"answer": "already", "state": run.state()[0], "run_dir": run.path}


def prepare(run: RunDir, order: Json) -> int:
    """Everything that can fail for want of room, done before the process exists. Returns the held lock."""
    lock = os.open(run.at("lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    slot = os.open(run.at(".exit.slot"), os.O_WRONLY | os.O_CREAT, 0o600)
    write_all(slot, b" " * RECORD_BYTES)
    os.fsync(slot)
    os.close(slot)
    for name in ("home", "tmp"):
        os.makedirs(run.at(name), 0o700, exist_ok=True)
    for name, text in order["files"].items():
        path = os.path.normpath(os.path.join(run.at("home"), name))
        if not path.startswith(run.at("home") + os.sep):
            raise OSError(errno.EINVAL, f"not below home: {name}")
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    for name in ("out", "err"):
        os.close(os.open(run.at(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    run.write("spec.json", {name: order[name] for name in order if name != "files"})
    for name in ("hb", "released"):
        with open(run.at(name), "wb") as file:
            file.write(b" " * RECORD_BYTES)
    return lock


def daemonise(run: RunDir, order: Json, lock: int) -> Json:
    """Leave a supervisor behind and return its first words. Its standard input is ours, still unread."""
    mouth, ear = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.close(mouth)
                Supervisor(run, order, ear).live()
        except OSError as error:
            run.unclaim()
            tell(ear, refusal("fork", error))
        finally:
            os._exit(0)  # never unwind into the caller's frames: they belong to another process
    os.close(ear)
    os.close(lock)
    os.wait()
    said = b"".join(iter(lambda: os.read(mouth, RECORD_BYTES), b""))
    if not said:
        return {"answer": "died"}
    answer: Json = json.loads(said)
    return answer


def tell(ear: int, answer: Json) -> None:
    """Answer whoever asked for the start, if it still lives; the run does not depend on it."""
    try:
        write_all(ear, json.dumps(answer).encode())
    except OSError:
        return


class Supervisor:
    """Carries one run from its fork to its exit record."""

    def __init__(self, run: RunDir, order: Json, ear: int) -> None:
        self.run = run
        self.order = order
        self.ear = ear
        self.limits: Json = order["limits"]
        places = {"home": run.at("home"), "tmp": run.at("tmp"), "run": run.path}
        self.cwd = places["cwd"] = filled(order["cwd"] or "{home}", places)
        self.env = {name: filled(text, places) for name, text in order["env"].items()}
        # an argument with white space is prose, the instruction: it reaches the agent as it was written
        self.argv = [text if re.search(r"\s", text) else filled(text, places) for text in order["argv"]]
        self.began = time.monotonic()
        self.oom_before, self.oom_group_before = oom_kills(), oom_kills_of_group(os.getpid())
        self.struck = Struck()
        self.cancelled = False
        self.asked = False
        self.code: int | None = None
        self.signal: int | None = None
        self.main_ended: float | None = None
        self.disk_free: int | None = None
        self.tree = WorkTree(self.cwd)
        self.out_bytes = 0
        self.spoke_at = self.began
        self.subreaper = False
        self.main = 0

    def live(self) -> None:
        try:
            problem = self._start()
            if problem.startswith("secrets:"):  # nothing ran; the same order may come again
                raise OSError(problem)
            self._record_start()
            self._beat(time.monotonic())
        except OSError as error:
            self._abandon()
            self.run.unclaim()
            return tell(self.ear, refusal("start", error))
        tell(self.ear, {"answer": "started", "pid": self.main, "run_dir": self.run.path})
        os.close(self.ear)
        try:
            reason, survivors = self._watch()
            self._record_end(reason, survivors, problem)
        except OSError:  # the run directory is gone: there is no place left to say so
            self._abandon()
        return None

    def _start(self) -> str:
        """Fork the agent; returns once it runs, or what kept it from running."""
        for fd in (1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        self.subreaper = become_subreaper()
        self.woken = self._listen()
        threads = threads_of_user()
        report, told = os.pipe()
        self.main = os.fork()
        if self.main == 0:
            os.close(report)
            Child(self, told, threads).become()
        os.close(told)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        problem = b"".join(iter(lambda: os.read(report, RECORD_BYTES), b"")).decode()
        os.close(report)
        return problem

    def _abandon(self) -> None:
        """End everyone. Nothing may live that nobody can record."""
        while self.main and self._reap():
            kill(self._living(), signal.SIGKILL)
            time.sleep(KILL_TICK_S)

    def _listen(self) -> int:
        def cancel(_number: int, _frame: object) -> None:
            self.cancelled = True

        def tell_calls(_number: int, _frame: object) -> None:
            self.asked = True

        woken, wake = os.pipe()
        for fd in (woken, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, cancel)
        signal.signal(signal.SIGUSR1, tell_calls)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        return woken

    def _record_start(self) -> None:
        fields = stat_of(self.main)
        self.run.write(
            "started.json",
            {
                "schema": 1,
                "pid": self.main,
                "pid_ticks": fields[19] if fields else None,
                "supervisor": os.getpid(),
                "boot_id": boot_id(),
                "boot_s": self.began,
                "subreaper": self.subreaper,
                "oom_before": self.oom_before,
                "oom_group_before": self.oom_group_before,
                "tells_calls": True,
            },
        )

    def _watch(self) -> tuple[str, int]:
        """Until wait() says there is nobody left. Returns why it ended and how many outlived the main process."""
        reason, survivors = "", 0
        ending_at, beaten = 0.0, self.began
        while self._reap():
            now = time.monotonic()
            if not reason:
                reason = self._reason(now)
                if reason:
                    sent = kill(self._living(), signal.SIGTERM)
                    survivors = sent if reason == "exited" else 0
                    ending_at = now + self.limits["grace_s"]
            elif now >= ending_at:
                kill(self._living(), signal.SIGKILL)
            if self.asked:
                self.asked = False
                self._tell_calls(now)
            if self.main_ended is None and (now - beaten >= BEAT_S or now - self.began < BEAT_S):
                self.struck.look(self.main)
            if now - beaten >= BEAT_S:
                beaten = now
                self._beat(now)
            pause = KILL_TICK_S if reason and now >= ending_at else TICK_S
            if select.select([self.woken], [], [], pause)[0]:
                os.read(self.woken, 512)
        return reason or "exited", survivors

    def _reap(self) -> bool:
        """Collect whoever died. False once nobody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main and self.main_ended is None:  # numbers come round again in a long run
                self.main_ended = time.monotonic()
                self.disk_free = disk_free(self.run.path)  # at once: what filled it may go with the rest of the tree
                self.struck.ended()
                if os.WIFSIGNALED(status):
                    self.signal = os.WTERMSIG(status)
                else:
                    self.code = os.WEXITSTATUS(status)

    def _living(self) -> list[int]:
        if os.path.isdir("/proc"):
            return tree_below(os.getpid())
        return [-self.main]  # without /proc the main process's group is all that can be named

    def _reason(self, now: float) -> str:
        if self.main_ended is not None:
            return "exited"
        if self.cancelled:
            return "request"
        if now - self.began >= self.limits["total_s"]:
            return "total_s"
        out, err = (os.stat(self.run.at(name)).st_size for name in ("out", "err"))
        if out != self.out_bytes:
            self.out_bytes, self.spoke_at = out, now
        return "max_log_bytes" if out + err > self.limits["max_log_bytes"] else ""

    def _beat(self, now: float) -> None:
        pids = self._living()
        record = {
            "schema": 1,
            "at_s": now,
            "cpu_s": round(cpu_seconds(pids), 2),
            "processes": len(pids),
            "spoke_at_s": self.spoke_at,
            "work_changed_at_s": self.tree.changed_at(now),
        }
        overwrite(self.run.at("hb"), record, lasting=False)  # 200 runs would sync 100 times a second

    def _tell_calls(self, now: float) -> None:
        """Write down in which system calls the run is: many hosts let nobody but an ancestor read that."""
        calls = {pid: call_of(pid) for pid in self._living()}
        try:
            self.run.write("calls", {"at_s": now, "calls": calls})
        except OSError:
            return  # a full disk must not end the run

    def _record_end(self, reason: str, survivors: int, problem: str) -> None:
        ended = self.main_ended or time.monotonic()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = {
            "schema": 1,
            "run_id": self.run.run_id,
            "reason": reason,
            "code": self.code,
            "signal": self.signal,
            "exec_error": problem or None,
            "seconds": round(ended - self.began, 3),
            "survivors": survivors,
            "max_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "oom_kills": max(0, oom_kills() - self.oom_before),
            "oom_kills_own": self.struck.own,
            "disk_free_bytes": disk_free(self.run.path) if self.disk_free is None else self.disk_free,
        }
        finish(self.run, record)


def filled(text: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        text = text.replace("{" + name + "}", path)
    return text


def overwrite(path: str, record: Json, lasting: bool) -> None:
    """Replace a record in its place, which needs no room on a full disk."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, json.dumps(record).encode().ljust(RECORD_BYTES), 0)
        if lasting:
            os.fsync(fd)
    finally:
        os.close(fd)


def finish(run: RunDir, record: Json) -> None:
    overwrite(run.at(".exit.slot"), record, lasting=True)
    os.rename(run.at(".exit.slot"), run.at("exit.json"))
    folder = os.open(run.path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def disk_free(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of the living tree and of everyone it has already buried."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for pid in pids:
        fields = stat_of(pid)
        ticks += sum(int(field) for field in fields[11:15]) if fields else 0
    return usage.ru_utime + usage.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


class WorkTree:
    """When the working directory last changed, as far as a bounded look can tell."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.scanned: float | None = None
        self.seen = 0
        self.changed: float | None = None

    def changed_at(self, now: float) -> float | None:
        """Monotonic seconds of the last change seen; None when there is no such directory."""
        if self.scanned is None or now - self.scanned >= SCAN_S:
            self.scanned = now
            seen = self._look()
            if seen != self.seen:
                self.seen, self.changed = seen, now
        return self.changed

    def _look(self) -> int:
        """One number for all that was found, 0 for nothing; this process alone compares it."""
        found = tuple((path, seen.st_mtime_ns, seen.st_size) for path, seen in entries(self.path))
        return hash(found) if found else 0


def entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """What lies in a work tree, and what shows that its HEAD moved; at most SCAN_ENTRIES."""
    git = os.path.join(folder, ".git")
    waiting, left = [os.path.join(git, "HEAD"), os.path.join(git, "logs"), folder], SCAN_ENTRIES
    while waiting and left > 0:
        path = waiting.pop(0)  # breadth first: the bound cuts depth, not whole folders
        left -= 1
        try:
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                waiting += [os.path.join(path, name) for name in sorted(os.listdir(path)) if name != ".git"]
        except OSError:
            continue
        yield path, found


class Child:
    """The process between fork and exec. The only one that ever holds a secret."""

    def __init__(self, supervisor: Supervisor, told: int, threads: int) -> None:
        self.supervisor = supervisor
        self.told = told
        self.threads = threads

    def become(self) -> NoReturn:
        step = "secrets"
        try:
            env = self._environment()
            step = "cwd"
            os.chdir(self.supervisor.cwd)
            step = "limits"
            self._confine()
            step = "exec"
            os.execvpe(self.supervisor.argv[0], self.supervisor.argv, env)  # noqa: S606  # no shell, on purpose
        except (OSError, ValueError) as error:
            write_all(self.told, explain(step, error, self.supervisor.argv[0], self.supervisor.cwd).encode())
        finally:
            os._exit(127)

    def _environment(self) -> dict[str, Any]:
        env: dict[str, Any] = dict(self.supervisor.env, OVERNIGHT_RUN_ID=self.supervisor.run.run_id)
        for secret in self.supervisor.order["secrets"]:
            value = b""
            while len(value) < secret["bytes"]:
                came = select.select([0], [], [], SECRETS_S)[0]
                part = os.read(0, secret["bytes"] - len(value)) if came else b""
                if not part:
                    raise OSError(errno.EPIPE, "")
                value += part
            env[secret["name"]] = value
        return env

    def _confine(self) -> None:
        run = self.supervisor.run
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(run.at(name), os.O_WRONLY | os.O_APPEND), fd)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)  # Python ignores SIGPIPE and exec would hand that on
        if hasattr(signal, "SIGXFSZ"):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        allowed = self.threads + int(self.supervisor.limits["max_processes"])
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        if hard == resource.RLIM_INFINITY or allowed < hard:
            resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))
        os.umask(0o022)


def explain(step: str, error: OSError | ValueError, command: str, cwd: str) -> str:
    """Why a program could not be started, in words; never holds a value of the environment."""
    if isinstance(error, ValueError):
        return f"{step}: a variable or argument holds a NUL byte"
    if step == "secrets":
        return f"secrets: the connection ended or was mute for {SECRETS_S:.0f} s before all of them came"
    text = f"{step}: {os.strerror(error.errno or 0)}"
    if step != "exec":
        return f"{text}: {cwd}" if step == "cwd" else text
    if error.errno == errno.ENOENT and os.path.exists(command):
        return f"{text}: {command} is there, the interpreter its first line names is not"
    return f"{text}: {command}"


# --- follow ---


class Followed:
    """One subscription: how far the other side has read one run."""

    def __init__(self, run: RunDir, command: Json) -> None:
        self.run = run
        self.key = {"r": run.run_id, "i": command["i"]}
        self.offsets = {"out": int(command["out"]), "err": int(command["err"])}
        self.told: str | None = None
        self.told_at = 0.0
        self.state: tuple[str, str] = ("starting", "")
        self.looked_at = 0.0
        self.gone: Json = {}
        self.gone_at = 0
        self.cancel = False
        self.more = False

    def turn(self, now: float) -> bool:
        """Send what there is, at most one chunk a stream. False once the end was sent."""
        self._look(now)
        state, why = self.state
        if self.cancel and state in ("running", "orphaned"):
            self.cancel = False
            end_run(self.run, state)
        if state != self.told or now - self.told_at >= FOLLOW_BEAT_S:
            self.told, self.told_at = state, now
            send({"k": "s", "state": state, **self.key, **self._vital(now)})
        sent = [self._copy(name) for name in ("out", "err")]
        self.more = max(sent) == READ_BYTES or (any(sent) and state in FINAL)
        if any(sent) or state not in FINAL:  # the state was read before the bytes, so nothing can come after it
            return True
        send({"k": "end", "why": why, "exit": self.run.read("exit.json"), **self.key, **self._vital(now)})
        return False

    def _gone(self) -> Json:
        try:
            written = os.stat(self.run.at("released")).st_mtime_ns
        except OSError:
            return {}
        if written != self.gone_at:
            self.gone_at, self.gone = written, released(self.run)
        return self.gone

    def release(self, safe: Json) -> None:
        try:
            release(self.run, {name: min(safe[name], self.offsets[name]) for name in self.offsets})
        except OSError:
            return  # without room for the record nothing is given back

    def _look(self, now: float) -> None:
        ended = os.path.exists(self.run.at("exit.json"))
        if ended or now - self.looked_at >= (0.1 if self.state[0] == "starting" else 1.0):
            self.looked_at = now
            self.state = self.run.state()

    def _vital(self, now: float) -> Json:
        beat, started = self.run.read("hb") or {}, self.run.read("started.json")
        if "at_s" in beat and started:
            changed = beat.pop("work_changed_at_s")
            beat["age_s"] = round(max(0.0, now - started["boot_s"]), 2)
            beat["quiet_s"] = round(max(0.0, now - beat.pop("spoke_at_s")), 2)
            beat["work_changed_s"] = None if changed is None else round(max(0.0, now - changed), 1)
        return {"started": started, "hb": beat if "age_s" in beat else None}

    def _copy(self, name: str) -> int:
        at = self.offsets[name]
        try:
            fd = os.open(self.run.at(name), os.O_RDONLY)
        except OSError:
            return 0
        try:
            data = os.pread(fd, READ_BYTES, at)
        finally:
            os.close(fd)
        gone = self._gone().get(name, 0) if data else 0  # after the read: the record comes before the hole
        if KEPT_HEAD_BYTES <= at < gone:
            send({"k": "gone", "s": name, "o": at, "from": gone, **self.key})
            self.offsets[name] = gone
        elif data:
            data = data[: KEPT_HEAD_BYTES - at] if at < KEPT_HEAD_BYTES < gone else data
            send({"k": "d", "s": name, "o": at, "n": len(data), **self.key}, data)
            self.offsets[name] += len(data)
        return len(data)


def released(run: RunDir) -> Json:
    """Stream -> where its log begins again after the head that is kept; what lies between is on no disk here."""
    return run.read("released") or {}


def release(run: RunDir, safe: Json) -> None:
    """Give back the room of what its controller has safe on its own disk, but for head and tail.

    Sizes stay offsets: the file keeps its length. Recorded first, so that no
    reader takes a hole for output.
    """
    before = released(run)
    until = {name: (safe[name] - KEPT_TAIL_BYTES) // RECORD_BYTES * RECORD_BYTES for name in ("out", "err")}
    begin = {name: before.get(name, KEPT_HEAD_BYTES) for name in until}
    going = [name for name in until if until[name] - begin[name] >= RELEASE_BYTES]
    if going and punch(run.at("out"), BEYOND, BEYOND + RECORD_BYTES):  # changes nothing: can holes be made there?
        overwrite(run.at("released"), {**before, **{name: until[name] for name in going}}, lasting=True)
        for name in going:
            punch(run.at(name), begin[name], until[name])


def punch(path: str, begin: int, end: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes

        call = ctypes.CDLL(None).fallocate64
    except (ImportError, AttributeError):
        return False
    fd = os.open(path, os.O_RDWR)
    try:
        mode = 0x1 | 0x2  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
        return bool(call(fd, mode, ctypes.c_longlong(begin), ctypes.c_longlong(end - begin)) == 0)
    finally:
        os.close(fd)


SAID = bytearray()  # frames on their way: one by one, each would be a packet of its own


def send(frame: Json, data: bytes = b"") -> None:
    SAID.extend(json.dumps(frame).encode() + b"\n")
    SAID.extend(data)
    if len(SAID) >= CHUNK_BYTES:
        flush()


def flush() -> None:
    write_all(1, SAID)
    SAID.clear()


def end_run(run: RunDir, state: str) -> None:
    """Ask the supervisor to end its run; an orphan, which has none, is ended and recorded here."""
    started = run.read("started.json")
    if started is None:
        return
    if state == "running":
        kill([started["supervisor"]], signal.SIGTERM)
        return
    lock = os.open(run.at("lock"), os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # another follower is at it
    deadline = time.monotonic() + 10
    while kill(marked(run.run_id), signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(KILL_TICK_S)
    seconds = round(time.monotonic() - started["boot_s"], 3)
    record = {"schema": 1, "run_id": run.run_id, "reason": "orphan", "code": None, "signal": None, "seconds": seconds}
    try:
        finish(run, record)
    except OSError:
        return  # the next look finds nobody alive, and says lost
    finally:
        os.close(lock)


class Sampling:
    """A look at one run in a child of the follower, which goes on telling meanwhile.

    The child ends after SAMPLE_S at the latest, even when nobody is left to end it.
    """

    def __init__(self, command: Json) -> None:
        self.key = {"r": command["r"], "i": command["i"]}
        self.said = b""
        self.ear, mouth = os.pipe()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                signal.alarm(SAMPLE_S)
                look(command, mouth)
        except OSError:
            os.close(self.ear)
            raise
        finally:
            os.close(mouth)

    def hear(self) -> bool:
        """Take in what the child said. False once it has ended and its answer was sent."""
        data = os.read(self.ear, CHUNK_BYTES)
        self.said += data
        if data and len(self.said) <= SAMPLE_BYTES:
            return True
        os.close(self.ear)
        kill([self.pid], signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        try:
            send({"k": "sample", **self.key, **json.loads(self.said)})
        except ValueError:
            send({"k": "sample", **self.key, "error": f"the look did not come to its end, status {status}"})
        return False


def look(command: Json, mouth: int) -> NoReturn:
    """Run the modules that came with the command and print what the last of them has seen."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        for fd, ours in ((0, nowhere), (1, mouth), (2, nowhere)):
            os.dup2(ours, fd)  # the channel is the follower's alone
        for name, text in command["code"]:
            sys.modules[name] = module = type(sys)(name)  # where the next one's import finds it
            exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102  # ours, as this file is
        run = RunDir(root_of(command), command["r"])
        say(json.dumps({"sample": module.sampled(run, command["seconds"], globals())}))
    except Exception as error:
        say(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        raise
    finally:
        os._exit(0)  # never unwind into the follower


def follow() -> int:
    """Stream every subscribed run until standard input ends, or nobody pinged for 90 s."""
    signal.alarm(FOLLOW_DEAF_S)  # its default action ends us even while a write to a dead peer blocks
    followed: dict[str, Followed] = {}
    samplings: dict[int, Sampling] = {}
    try:
        return stream(followed, samplings)
    finally:
        kill([each.pid for each in samplings.values()], signal.SIGKILL)


def stream(followed: dict[str, Followed], samplings: dict[int, Sampling]) -> int:
    pending, beaten, busy = b"", 0.0, False
    while True:
        tick = min(FOLLOW_TICK_MOST_S, max(FOLLOW_TICK_S, FOLLOW_TICK_RUN_S * len(followed)))
        ready = select.select([0, *samplings], [], [], 0 if busy else tick)[0]
        if 0 in ready:
            data = os.read(0, CHUNK_BYTES)
            if not data:
                return 0
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                obey(json.loads(line), followed, samplings)
        now = time.monotonic()
        if now - beaten >= FOLLOW_BEAT_S:
            beaten = now
            send({"k": "h"})
        ended: set[str] = {run_id for run_id, each in followed.items() if not each.turn(now)}
        busy = any(each.more for each in followed.values())
        for run_id in ended:
            del followed[run_id]
        for ear in [ear for ear in ready if ear and not samplings[ear].hear()]:
            del samplings[ear]
        flush()


def obey(command: Json, followed: dict[str, Followed], samplings: dict[int, Sampling]) -> None:
    signal.alarm(FOLLOW_DEAF_S)
    kind, run_id = command["c"], command.get("r", "")
    if kind == "sub":
        followed[run_id] = Followed(RunDir(root_of(command), run_id), command)
    elif kind == "unsub":
        followed.pop(run_id, None)
    elif kind == "signal" and run_id in followed:
        followed[run_id].cancel = True
    elif kind == "ping":
        for each in command.get("safe", ()):
            if each["r"] in followed:
                followed[each["r"]].release(each)
    elif kind == "sample":
        look_at(command, samplings)


def look_at(command: Json, samplings: dict[int, Sampling]) -> None:
    """One look at a run at a time: who asks meanwhile gets the answer of the one under way."""
    key = {"r": command["r"], "i": command["i"]}
    for each in samplings.values():
        if each.key["r"] == key["r"]:
            each.key = key
            return
    try:
        sampling = Sampling(command)
    except OSError as error:  # no process to be had is what may well be wrong with the host
        send({"k": "sample", **key, "error": f"the follower could not start a look: {error}"})
    else:
        samplings[sampling.ear] = sampling


# --- serve ---


class Served:
    """One call: a child that does what a process of its own would do, without a login and an interpreter's start.

    Of its output so much is sent as the other side has room for. What it is to read
    is held here until it takes it, and wiped then, since keys are among it; who has
    much to send uses a channel.
    """

    def __init__(self, number: int, op: str, server: Server) -> None:
        self.number = number
        self.room = SERVE_WINDOW_BYTES
        self.pending: list[memoryview] = []
        self.fed = False
        ours = [server.woken, server.wake, *(fd for call in server.calls.values() for fd in call.open)]
        ends = [os.pipe() for _ in range(3)]
        (theirs_in, self.mouth), (out, theirs_out), (err, theirs_err) = ends
        try:
            self.pid = os.fork()
        except OSError:
            for fd in (fd for pair in ends for fd in pair):
                os.close(fd)
            raise
        if self.pid == 0:
            server.wipe()
            become_call(op, (theirs_in, theirs_out, theirs_err), max([*ours, *(fd for pair in ends for fd in pair)]))
        for fd in (theirs_in, theirs_out, theirs_err):
            os.close(fd)
        os.set_blocking(self.mouth, False)
        widen(out)
        self.ears = {out: "out", err: "err"}

    @property
    def open(self) -> list[int]:
        return [*self.ears, *([] if self.mouth < 0 else [self.mouth])]

    def hungry(self) -> bool:
        """Whether there is something to give it, its end of input among that."""
        return self.mouth >= 0 and (bool(self.pending) or self.fed)

    def feed(self) -> None:
        try:
            while self.pending:
                written = os.write(self.mouth, self.pending[0])
                wipe(self.pending[0][:written])
                self.pending[0] = self.pending[0][written:]
                if not self.pending[0]:
                    del self.pending[0]
        except BlockingIOError:
            return
        except OSError:  # it has ended, or wants no more
            self.wipe()
            self.fed = True
        if self.fed and not self.pending:
            os.close(self.mouth)
            self.mouth = -1

    def heard(self, ear: int) -> None:
        stream = self.ears[ear]
        data = os.read(ear, READ_BYTES)
        if stream == "out":
            self.room -= len(data)
        if not data:
            os.close(ear)
            del self.ears[ear]
        send({"k": stream, "i": self.number, "n": len(data)}, data)

    def let_go(self) -> None:
        self.wipe()
        for fd in self.open:
            os.close(fd)
        self.ears, self.mouth = {}, -1

    def wipe(self) -> None:
        for part in self.pending:
            wipe(part)
        self.pending = []


def widen(pipe: int) -> None:
    """Let it hold as much as one read takes, where the kernel can.

    git writes a pack in pieces of 8 kB: a pipe of the usual 64 kB woke us for most
    of them, and a whole history of 200 MB came 0.2 s later (2 cores, 2026-11-29).
    Not more: a user whose pipes hold 64 MB is given tiny ones (pipe-user-pages-soft).
    """
    if sys.platform.startswith("linux"):
        try:
            fcntl.fcntl(pipe, 1031, READ_BYTES)  # F_SETPIPE_SZ, which the library names since 3.10
        except OSError:
            return


def wipe(part: memoryview) -> None:
    part[:] = bytes(len(part))


def become_call(op: str, ends: tuple[int, int, int], highest: int) -> NoReturn:
    """In the child: be a process that was just started with this op, with none of the server's files."""
    code = 1
    try:
        signal.alarm(0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for fd, theirs in enumerate(ends):
            os.dup2(theirs, fd)
        os.closerange(3, highest + 1)
        SAID.clear()
        code = main(op)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        raise
    finally:
        os._exit(code)  # never unwind into the server


class Server:
    """All calls of one connection, each in a child: a login and an interpreter cost more than most of what is asked."""

    def __init__(self) -> None:
        self.calls: dict[int, Served] = {}
        self.living: dict[int, int] = {}
        self.asked, self.filled = memoryview(bytearray(2 * CHUNK_BYTES)), 0  # never copied elsewhere: holds keys
        self.woken, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.woken, False)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def live(self) -> int:
        """Until standard input ends."""
        beaten = 0.0
        while True:
            ears = {e: c for c in self.calls.values() for e, s in c.ears.items() if s == "err" or c.room > 0}
            mouths = {c.mouth: c for c in self.calls.values() if c.hungry()}
            ready, takers, _ = select.select([0, self.woken, *ears], [*mouths], [], FOLLOW_BEAT_S)
            if 0 in ready:
                size = os.readv(0, [self.asked[self.filled :]])
                if not size:
                    return 0
                self._obey(self.filled + size)
            for mouth in takers:
                if mouths[mouth].mouth == mouth:
                    mouths[mouth].feed()
            for ear in [ear for ear in ready if ear in ears and ear in ears[ear].ears]:
                ears[ear].heard(ear)
            if self.woken in ready:
                os.read(self.woken, 512)
                self._reap()
            for number in [n for n, call in self.calls.items() if not call.ears and call.pid not in self.living]:
                self.calls.pop(number).let_go()
            now = time.monotonic()
            if now - beaten >= FOLLOW_BEAT_S:
                beaten = now
                send({"k": "h"})
            flush()

    def wipe(self) -> None:
        """In a child: forget what is under way to others."""
        wipe(self.asked)
        for call in self.calls.values():
            call.wipe()

    def _obey(self, until: int) -> None:
        """Do what was asked whole; the rest moves to the front."""
        signal.alarm(FOLLOW_DEAF_S)
        at = 0
        while True:
            end = next((i for i in range(at, until) if self.asked[i] == NEWLINE), until)
            command: Json = json.loads(bytes(self.asked[at:end])) if end < until else {}
            if not command or end + 1 + command["n"] > until:
                break
            at = end + 1 + command["n"]
            self._do(command, self.asked[end + 1 : at])
        self.filled = until - at
        self.asked[: self.filled] = self.asked[at:until]
        wipe(self.asked[self.filled : until])

    def _do(self, command: Json, data: memoryview) -> None:
        kind, number = command["c"], command.get("i", 0)
        if kind == "call":
            self._begin(number, command["op"])
            return
        call = self.calls.get(number)
        if call is None:
            return  # it has ended, or was a ping
        if kind == "in":
            call.pending.append(memoryview(bytearray(data)))
        elif kind == "eof":
            call.fed = True
        elif kind == "more":
            call.room += command["bytes"]
        elif kind == "close":
            self.calls.pop(number).let_go()

    def _begin(self, number: int, op: str) -> None:
        try:
            call = Served(number, op, self)
        except OSError as error:
            send({"k": "err", "i": number, "n": len(str(error))}, str(error).encode())
            for stream in ("err", "out"):
                send({"k": stream, "i": number, "n": 0})
            send({"k": "exit", "i": number, "code": 126})
            return
        self.calls[number], self.living[call.pid] = call, number

    def _reap(self) -> None:
        while self.living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            number = self.living.pop(pid, None)
            if number in self.calls:
                send({"k": "exit", "i": number, "code": code})


def serve() -> int:
    """Answer calls until standard input ends, or nobody pinged for 90 s. What was called goes on without us."""
    signal.alarm(FOLLOW_DEAF_S)
    return Server().live()


# --- exec and facts ---


def execute(order: Json) -> int:
    """Become the ordered command, its standard input starting right after our line."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"} if order["env"] is None else order["env"]
    time_s = order.get("time_s")
    try:
        os.umask(0o022)
        if order["cwd"]:
            os.chdir(order["cwd"])
        if time_s:
            watch_time(time_s)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvpe(order["argv"][0], order["argv"], env)  # noqa: S606  # no shell, on purpose
    except OSError as error:
        step = "exec" if os.path.isdir(order["cwd"] or "/") else "cwd"
        write_all(2, f"\nOVERNIGHT-EXEC-FAILED {explain(step, error, order['argv'][0], order['cwd'])}\n".encode())
    return 127


def watch_time(time_s: float) -> None:
    """Leave a process behind that ends our group at the deadline and goes when we go.

    Not alarm(): git and others set their own. Not a parent: the channel must be the command itself.
    """
    command, group = os.getpid(), os.getpgrp()
    if os.fork():
        return
    os.setsid()
    for fd in (0, 1, 2):
        os.close(fd)
    deadline = time.monotonic() + time_s
    for number, pause in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.0)):
        while time.monotonic() < deadline:
            if os.getppid() != command:
                os._exit(0)
            time.sleep(0.2)
        kill([-group if group == command else command], number)
        deadline += pause
    os._exit(0)


def facts(order: Json) -> Json:
    import platform
    import pwd
    import shutil

    root = root_of(order)
    os.makedirs(root, 0o700, exist_ok=True)
    path = os.pathsep.join(order["path"])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "uid": os.getuid(),
        "home": os.path.expanduser("~"),
        "root": root,
        "boot_id": boot_id(),
        "disk_free_bytes": disk_free(root),
        "file_system": file_system(root),
        "found": {name: shutil.which(name, path=path) for name in order["find"]},
    }


def file_system(path: str) -> str | None:
    """Its kind (ext4, nfs4, tmpfs), because locks lie on some; None where the kernel does not say."""
    real = os.path.realpath(path)
    best: tuple[str, str | None] = ("", None)
    try:
        with open("/proc/mounts") as file:
            mounts = [line.split()[1:3] for line in file]
    except OSError:
        return None
    for place, kind in mounts:
        if len(place) >= len(best[0]) and (real + "/").startswith(place.rstrip("/") + "/"):
            best = (place, kind)
    return best[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""What a silent run was seen doing: two looks at its processes, a moment apart.

The host's `sampler.py` prints it, `read_sample` reads it. What the host did
not say is None or empty, never zero. Sizes in bytes, ages in seconds at the
second look; a `_delta_` is what changed between the two looks, for a process
or a connection that came in between what it has done at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class LockWait:
    """A lock of the kernel that a process waits for. A lock file that is only polled does not show here.

    `file` is its path, or `inode N` when the process does not show it. `holder` is
    the process that has it, `holder_command` empty when that is not ours to read.
    """

    file: str
    kind: str = ""
    holder: int | None = None
    holder_command: str = ""


@dataclass(frozen=True)
class Process:
    """One process of the run.

    `main` is the agent's first process. `command` is its arguments in one line of
    200 characters at most. `state` is the kernel's letter: R runs or could, S
    sleeps, D waits for a disk, T is stopped, Z is dead and not yet collected.
    `cpu_delta_s` is time on a processor, `wait_delta_s` time it could have run
    and had none. `read_` and `write_delta_bytes` count every call, pipes and
    sockets too; `disk_` what reached the disk. `waits_in` is the kernel function
    the main thread sleeps in (`hrtimer_nanosleep`), or else its system call;
    `syscall` the call with the file it is about, as `read(0)` or `wait4`.
    `stdin` is /dev/null, pipe, tty, socket, closed or a path; `fed_by` the process
    that writes into that pipe as in `one | two`, None when only those above it could.
    """

    pid: int
    parent: int | None = None
    main: bool = False
    command: str = ""
    state: str = ""
    threads: int | None = None
    age_s: float | None = None
    cpu_s: float | None = None
    cpu_delta_s: float | None = None
    wait_delta_s: float | None = None
    read_delta_bytes: int | None = None
    write_delta_bytes: int | None = None
    disk_read_delta_bytes: int | None = None
    disk_write_delta_bytes: int | None = None
    rss_bytes: int | None = None
    waits_in: str = ""
    syscall: str = ""
    stdin: str = ""
    fed_by: int | None = None
    locks: tuple[LockWait, ...] = ()

    @property
    def reads_stdin(self) -> bool:
        """It waits for input that nobody types. False for an event loop (Node, Bun): that cannot be seen."""
        return self.syscall == "read(0)" and self.stdin not in ("", "/dev/null", "closed") and self.fed_by is None


@dataclass(frozen=True)
class Socket:
    """One TCP connection; those that only listen are left out.

    `pid` is the first process of the tree that holds it. `state` is the kernel's
    word: SYN_SENT, ESTABLISHED, CLOSE_WAIT. `send_queue_bytes` were written and
    not acknowledged, `receive_queue_bytes` came and were not read.
    `sent_bytes` and `received_bytes` are payload since its beginning;
    `last_sent_s` and `last_received_s` are None when there was none.
    `retransmits` counts what is unanswered now; each doubles the wait (`backoff`).
    """

    pid: int
    state: str
    remote: str
    local: str = ""
    send_queue_bytes: int | None = None
    receive_queue_bytes: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    sent_delta_bytes: int | None = None
    received_delta_bytes: int | None = None
    last_sent_s: float | None = None
    last_received_s: float | None = None
    retransmits: int | None = None
    backoff: int | None = None


@dataclass(frozen=True)
class Sample:
    """What the host saw of one run.

    `at_s` is the run's age, `seconds` the time between the looks. `ended` says that
    the exit record was there, `supervised` that the supervisor lives. `came` and
    `went` count processes that began and ended between the looks. `asks_names_of`
    are name servers that did not answer from one look to the next. `oom_kills`
    are the whole host's since the run began, `oom_kills_group` those of the run's
    own memory group. `head` is the commit HEAD means and `branch` what it points
    to, None when detached; `head_changed_s` is their age, and so is `work_changed_s`
    that of the newest file within a bounded look. `spoke_s` is the time since a
    stream last grew. `missing` names what could not be looked at.
    """

    at_s: float | None = None
    seconds: float = 0.0
    system: str = ""
    ended: bool = False
    supervised: bool | None = None
    processes: tuple[Process, ...] = ()
    sockets: tuple[Socket, ...] = ()
    asks_names_of: tuple[str, ...] = ()
    came: int | None = None
    went: int | None = None
    oom_kills: int | None = None
    oom_kills_group: int | None = None
    memory_available_bytes: int | None = None
    load: float | None = None
    processors: int | None = None
    run_disk_free_bytes: int | None = None
    run_disk_free_inodes: int | None = None
    work_disk_free_bytes: int | None = None
    work_disk_free_inodes: int | None = None
    head: str | None = None
    branch: str | None = None
    head_changed_s: float | None = None
    work_changed_s: float | None = None
    out_bytes: int | None = None
    err_bytes: int | None = None
    spoke_s: float | None = None
    missing: tuple[str, ...] = ()


def read_sample(record: Mapping[str, Any]) -> Sample:
    """The sample out of what a host printed. Fields it lacks keep their default, those we do not know are dropped."""
    known = _known(Sample, record)
    processes = tuple(_process(each) for each in record.get("processes", ()))
    sockets = tuple(Socket(**_known(Socket, each)) for each in record.get("sockets", ()))
    listed = {name: tuple(record.get(name, ())) for name in ("asks_names_of", "missing")}
    return Sample(**{**known, **listed, "processes": processes, "sockets": sockets})


def _process(record: Mapping[str, Any]) -> Process:
    locks = tuple(LockWait(**_known(LockWait, each)) for each in record.get("locks", ()))
    return Process(**{**_known(Process, record), "locks": locks})


def _known(shape: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: record[field.name] for field in fields(shape) if field.name in record}

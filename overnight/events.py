"""What is said while a run lives.

Two alphabets. `RunEvent` is what the host says of the process: started,
output, heartbeat, then exactly one of exited, killed, lost. `AgentEvent` is
what the harness says in its own output, read into one shape for all harnesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from overnight.sample import Sample
from overnight.usage import Usage


@dataclass(frozen=True)
class Started:
    """The process exists. `boot_s` is the host's boot clock, immune to suspended laptops and wrong clocks."""

    pid: int
    boot_s: float


@dataclass(frozen=True)
class Output:
    """Bytes appended to our own copy. `offset` is where they stand in the stream."""

    stream: Literal["out", "err"]
    offset: int
    data: bytes


@dataclass(frozen=True)
class Heartbeat:
    """The supervisor lives. Ages are seconds on the host's boot clock.

    `age_s` is that of the run, `quiet_s` is the time since standard output last grew there; `work_changed_s`
    the time since the work tree last changed, None while that was not looked at.
    """

    age_s: float
    cpu_s: float
    processes: int
    quiet_s: float = 0.0
    work_changed_s: float | None = None


@dataclass(frozen=True)
class Exited:
    """The process ended by itself. `code` is None when a signal ended it, then `signal` is set.

    `exec_error` is set when the program could not be started at all, e.g.
    `exec: No such file or directory: claude`; nothing ran then. `oom_kills` are
    the whole host's while it ran, `oom_kills_own` those of its memory group, or
    where there is none, the host's in its last 2 s.
    """

    code: int | None
    signal: int | None
    seconds: float
    max_rss_bytes: int | None = None
    oom_kills: int = 0
    oom_kills_own: int = 0
    survivors: int = 0
    exec_error: str | None = None
    disk_free_bytes: int | None = None


@dataclass(frozen=True)
class Killed:
    """We or a limit ended it. `by` names who: request, total_s, max_log_bytes."""

    by: Literal["request", "total_s", "max_log_bytes", "orphan"]
    seconds: float
    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True)
class Lost:
    """The record ends without an ending: host rebooted, run directory vanished, supervisor died before its record."""

    why: str


@dataclass(frozen=True)
class Sampled:
    """The answer to `Follower.sample`: what the run was seen doing, or in `error` why the host could not look."""

    sample: Sample | None
    error: str = ""


RunEvent = Started | Output | Heartbeat | Sampled | Exited | Killed | Lost
Ending = Exited | Killed | Lost


class Act(StrEnum):
    """What an agent event means to us. Anything else the agent prints is `OTHER` and only counts as a sign of life."""

    INIT = "init"
    WAITING = "waiting"
    RETRYING = "retrying"
    SPOKE = "spoke"
    TOOL_STARTED = "tool-started"
    TOOL_RUNNING = "tool-running"
    TOOL_ENDED = "tool-ended"
    COMMITTED = "committed"
    DENIED = "denied"
    ERROR = "error"
    RESULT = "result"
    OTHER = "other"


@dataclass(frozen=True)
class AgentEvent:
    """One structured line of a harness, read.

    `error` is the harness's own error word (`authentication_failed`), `status`
    an HTTP status it reports, `text` its error line or its final answer (never
    evidence by itself). For RESULT, `ok` is the harness's verdict on itself. An
    ERROR is `endless` when the agent would go on for ever, so somebody has to
    end it. `print` is a short digest of a tool's arguments (TOOL_STARTED) or of its
    result (TOOL_ENDED), by which a repeated call is known; None where the
    harness does not show them. `usage` is by model id, empty where the harness
    does not say which: of one answer of the model, or for RESULT of the run.
    `session` is the harness's own name for the conversation.
    """

    act: Act
    text: str = ""
    error: str | None = None
    status: int | None = None
    attempt: int | None = None
    delay_s: float | None = None
    model: str | None = None
    version: str | None = None
    tool: str | None = None
    ok: bool | None = None
    tokens: int | None = None
    usd: float | None = None
    sha: str | None = None
    endless: bool = False
    print: str | None = None
    usage: Mapping[str, Usage] | None = None
    session: str | None = None

"""What crosses between us and a host in one call: orders there, answers back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class HostFacts:
    """What a host said of itself. `root` is absolute; `boot_id` changes with every reboot."""

    python: str
    platform: str
    user: str
    uid: int
    home: str
    root: str
    boot_id: str
    disk_free_bytes: int
    file_system: str | None


@dataclass(frozen=True)
class RunBounds:
    """What the supervisor enforces whether or not anybody is connected.

    `max_processes` counts beyond those the user has when the run starts, since
    the kernel counts per user, and does not bind root.
    """

    total_s: float
    grace_s: float = 10.0
    max_log_bytes: int = 200_000_000
    max_processes: int = 2000


@dataclass(frozen=True)
class SecretSlot:
    """A variable that gets a provider's key."""

    name: str
    provider: str


@dataclass(frozen=True)
class StartOrder:
    """One process to start, once.

    `{home}`, `{tmp}` and `{run}` in `env`, `cwd` and in arguments without white
    space become the run's folders, `{cwd}` in `env` and arguments the one it works
    in. `env` is the whole environment besides the
    secrets and OVERNIGHT_RUN_ID. `files` are made below the run's home. `digest`
    tells a repeated order from another one under the same `run_id`.
    """

    run_id: str
    digest: str
    argv: tuple[str, ...]
    limits: RunBounds
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[SecretSlot, ...] = ()
    cwd: str = "{home}"
    files: Mapping[str, str] = field(default_factory=dict)

    def record(self, root: str, secrets: Sequence[bytes]) -> dict[str, Any]:
        """The order as it is sent: of the secrets only names and lengths, their bytes follow it."""
        slots = [
            {"name": slot.name, "provider": slot.provider, "bytes": len(secret)}
            for slot, secret in zip(self.secrets, secrets, strict=True)
        ]
        return {
            "schema": 1,
            "root": root,
            "run_id": self.run_id,
            "digest": self.digest,
            "argv": list(self.argv),
            "env": dict(self.env),
            "secrets": slots,
            "cwd": self.cwd,
            "files": dict(self.files),
            "limits": asdict(self.limits),
        }


@dataclass(frozen=True)
class StartAnswer:
    """`already`: an earlier start of the same order stands, in `state`. `conflict`: another order holds the run_id."""

    answer: Literal["started", "already", "conflict"]
    run_dir: str
    pid: int | None = None
    state: str | None = None


@dataclass(frozen=True)
class Done:
    """A command that ended. `code` is -N for signal N; `cannot_run` says why it could not be started.

    Output beyond the limit was dropped and `truncated` is set.
    """

    code: int
    out: bytes
    err: bytes
    truncated: bool = False
    cannot_run: str | None = None

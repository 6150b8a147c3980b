"""The words a verdict is made of: the kinds of failure, who must act, what earns another try, and who said so.

The kinds are stored in reports, so their values are never renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple, get_args

Source = Literal["event", "body", "http", "exit", "stderr", "git", "clock", "host", "probe", "lock", "keys"]
ORDER: tuple[Source, ...] = get_args(Source)
"""Who said it, strongest first: the harness's own structured event, the provider's code in a body, an HTTP status,
the record of how the process ended, the harness's own error line, then what we saw ourselves: counted in git, read
from a clock, sampled on the host, asked again by a call of our own. Last what was merely looked up: the lock, and the
places where keys are kept. What the model wrote is no source at all."""


class Family(StrEnum):
    """Who must act."""

    SETUP = "setup"
    AUTH = "auth"
    QUOTA = "quota"
    PROVIDER = "provider"
    NETWORK = "network"
    HOST = "host"
    HARNESS = "harness"
    STALL = "stall"
    WORK = "work"
    OURS = "ours"
    UNKNOWN = "unknown"


WHO: Mapping[Family, str] = {
    Family.SETUP: "whoever edits the batch file or the lock",
    Family.AUTH: "whoever holds the key",
    Family.QUOTA: "whoever pays",
    Family.PROVIDER: "the provider's servers",
    Family.NETWORK: "whoever runs the network",
    Family.HOST: "whoever runs the machine",
    Family.HARNESS: "whoever updates the agent",
    Family.STALL: "nobody yet",
    Family.WORK: "whoever wrote the instruction",
    Family.OURS: "us, or whoever stopped it",
    Family.UNKNOWN: "whoever reads the output",
}


class Retry(StrEnum):
    """What, if anything, earns another attempt."""

    NEVER = "never"
    BACKOFF = "backoff"
    FRESH = "fresh"
    ELSEWHERE = "elsewhere"


class FailureKind(StrEnum):
    """Every named way a run can fail. Values are stored; never rename one."""

    AUTH_REJECTED = "auth-rejected"
    WRONG_HEADER = "wrong-header"
    KEY_MISSING = "key-missing"
    MODEL_UNKNOWN = "model-unknown"
    MODEL_MISMATCH = "model-mismatch"
    REQUEST_REJECTED = "request-rejected"
    BILLING = "billing"
    QUOTA_WINDOW = "quota-window"
    PLAN_EXPIRED = "plan-expired"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider-error"
    PROVIDER_MUTE = "provider-mute"
    NOT_THE_API = "not-the-api"
    NETWORK = "network"
    HOST_UNREACHABLE = "host-unreachable"
    HOST_AUTH = "host-auth"
    HOST_KEY_MISMATCH = "host-key-mismatch"
    HOST_KEY_UNKNOWN = "host-key-unknown"
    HOST_UNFIT = "host-unfit"
    DISK_FULL = "disk-full"
    OUT_OF_MEMORY = "out-of-memory"
    HARNESS_MISSING = "harness-missing"
    HARNESS_CRASHED = "harness-crashed"
    HARNESS_USAGE = "harness-usage"
    SILENT_START = "silent-start"
    WENT_QUIET = "went-quiet"
    TOOL_STUCK = "tool-stuck"
    LOOPING = "looping"
    NO_CHANGE = "no-change"
    TIME_LIMIT = "time-limit"
    LOG_LIMIT = "log-limit"
    TURN_LIMIT = "turn-limit"
    BUDGET_LIMIT = "budget-limit"
    CONTEXT_OVERFLOW = "context-overflow"
    PERMISSION_DENIED = "permission-denied"
    NO_COMMIT = "no-commit"
    VERIFY_FAILED = "verify-failed"
    WORKSPACE = "workspace"
    COLLECT_FAILED = "collect-failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    PREDECESSOR = "predecessor"
    INTERNAL = "internal"
    UNKNOWN = "unknown"


class Rule(NamedTuple):
    """One row of the table.

    `shuts_route`: proven once, it holds for every task on that route.
    `proved_by`: one sighting from any of these sources is enough, one from any
    other is not. `proof` says in words what such a sighting is.
    """

    family: Family
    retry: Retry
    shuts_route: bool
    meaning: str
    remedy: str
    proved_by: frozenset[Source]
    proof: str

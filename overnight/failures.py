"""What can go wrong: one table from kind to who must act, what earns another try, and the mend.

Nothing else in the project decides a retry or words a remedy. The kinds are
stored in reports, so their values are never renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, computed_field


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
    INTERNAL = "internal"
    UNKNOWN = "unknown"


class Rule(NamedTuple):
    """One row of the table. `shuts_route`: proven once, it holds for every task on that route."""

    family: Family
    retry: Retry
    shuts_route: bool
    meaning: str
    remedy: str


_K, _F, _R = FailureKind, Family, Retry

# fmt: off
# two lines a kind, so that the table reads as one
RULES: dict[FailureKind, Rule] = {
    _K.AUTH_REJECTED: Rule(_F.AUTH, _R.NEVER, True, "the provider refused the key",
        "replace the key: overnight credentials add {provider}"),
    _K.WRONG_HEADER: Rule(_F.SETUP, _R.NEVER, True, "the key is right, the header it travels in is not",
        "set the variable the evidence names in the lock entry for {provider} and {harness}"),
    _K.KEY_MISSING: Rule(_F.AUTH, _R.NEVER, True, "no key is stored for this provider",
        "store one: overnight credentials add {provider}; in CI set the variable named above"),
    _K.MODEL_UNKNOWN: Rule(_F.SETUP, _R.NEVER, True, "the provider does not serve this model id",
        "use an exact model id from the lock for {provider}"),
    _K.MODEL_MISMATCH: Rule(_F.SETUP, _R.NEVER, True, "another model answered than the one asked for",
        "check the model id and the tier mapping of {provider} in the lock"),
    _K.REQUEST_REJECTED: Rule(_F.SETUP, _R.NEVER, False, "the provider refused the request itself",
        "read the provider's message in the evidence; check flags and limits in the lock"),
    _K.BILLING: Rule(_F.QUOTA, _R.NEVER, True, "the account has no balance or is blocked",
        "top up or unlock the account at {provider}"),
    _K.QUOTA_WINDOW: Rule(_F.QUOTA, _R.ELSEWHERE, True, "a usage window of the plan is used up",
        "wait for the reset named in the evidence, or give the task another route"),
    _K.PLAN_EXPIRED: Rule(_F.QUOTA, _R.NEVER, True, "the plan has ended or does not cover this",
        "renew the plan at {provider}"),
    _K.RATE_LIMITED: Rule(_F.PROVIDER, _R.BACKOFF, False, "too many requests for this key right now",
        "lower the slots that share this key, or wait"),
    _K.OVERLOADED: Rule(_F.PROVIDER, _R.BACKOFF, False, "the provider has no capacity right now",
        "wait; try an off-peak hour or another route"),
    _K.PROVIDER_ERROR: Rule(_F.PROVIDER, _R.BACKOFF, False, "the provider's servers failed",
        "wait; see the status page of {provider}"),
    _K.PROVIDER_MUTE: Rule(_F.PROVIDER, _R.BACKOFF, False, "the provider took the request and never answered",
        "wait, or give the task another route"),
    _K.NOT_THE_API: Rule(_F.SETUP, _R.NEVER, True, "something answered that is not the model API",
        "check the base URL of {provider} in the lock, and proxies between host and provider"),
    _K.NETWORK: Rule(_F.NETWORK, _R.BACKOFF, False, "the host could not reach the provider",
        "check DNS, proxy and firewall on host {host}"),
    _K.HOST_UNREACHABLE: Rule(_F.HOST, _R.BACKOFF, False, "no SSH connection to the host",
        "check that {host} is up and its sshd answers on the given address and port"),
    _K.HOST_AUTH: Rule(_F.HOST, _R.NEVER, True, "the host refused our SSH key",
        "add the public key to authorized_keys of the user on {host}, or fix key_file"),
    _K.HOST_KEY_MISMATCH: Rule(_F.HOST, _R.NEVER, True, "the host shows another key than the one pinned",
        "if the host was rebuilt on purpose, pin its new key; otherwise treat it as an attack"),
    _K.HOST_KEY_UNKNOWN: Rule(_F.SETUP, _R.NEVER, True, "no key is pinned for this host",
        "put the key the evidence shows into host_key of {host} after checking its fingerprint"),
    _K.HOST_UNFIT: Rule(_F.HOST, _R.NEVER, True, "the host lacks something every run needs",
        "install on {host} what the evidence names"),
    _K.DISK_FULL: Rule(_F.HOST, _R.ELSEWHERE, False, "the disk the run works on is full",
        "make room on {host}: overnight gc; then give the task another attempt"),
    _K.OUT_OF_MEMORY: Rule(_F.HOST, _R.ELSEWHERE, False, "the kernel ended a process of the run for want of memory",
        "lower the slots of {host}, or give the task to a host with more memory"),
    _K.HARNESS_MISSING: Rule(_F.HARNESS, _R.NEVER, True, "the agent's command is not on the host's path",
        "install {harness} on {host}, or add its folder to the host's path"),
    _K.HARNESS_CRASHED: Rule(_F.HARNESS, _R.FRESH, False, "the agent's process died without a verdict",
        "see the tail of its output; check memory on {host} and the CLI version"),
    _K.HARNESS_USAGE: Rule(_F.SETUP, _R.NEVER, True, "the agent refused its command line or configuration",
        "compare the CLI version with the one in the lock for {harness}"),
    _K.SILENT_START: Rule(_F.STALL, _R.FRESH, False, "the agent started and never spoke",
        "look at the evidence; then at hooks, MCP servers and logins under the run's HOME"),
    _K.WENT_QUIET: Rule(_F.STALL, _R.FRESH, False, "the agent spoke, then fell silent",
        "look at the evidence; raise quiet_s only if the last event shows work in progress"),
    _K.TOOL_STUCK: Rule(_F.WORK, _R.FRESH, False, "a command the agent started waits for something that never comes",
        "see the command in the evidence; say in the instruction how to run it without waiting"),
    _K.LOOPING: Rule(_F.STALL, _R.FRESH, False, "the agent repeats the same call and gets the same result",
        "see the repeated call in the evidence; sharpen the instruction"),
    _K.NO_CHANGE: Rule(_F.STALL, _R.FRESH, False, "the agent speaks and changes nothing",
        "sharpen the instruction, or raise no_change_s"),
    _K.TIME_LIMIT: Rule(_F.WORK, _R.NEVER, False, "the run used up total_s",
        "split the task, or raise total_s"),
    _K.LOG_LIMIT: Rule(_F.HARNESS, _R.NEVER, False, "the run wrote more than max_log_bytes",
        "read the head of the log for what repeats, or raise max_log_bytes"),
    _K.TURN_LIMIT: Rule(_F.WORK, _R.NEVER, False, "the agent reached its turn limit",
        "split the task, or raise the turn limit"),
    _K.BUDGET_LIMIT: Rule(_F.WORK, _R.NEVER, False, "the run reached max_usd",
        "split the task, or raise max_usd"),
    _K.CONTEXT_OVERFLOW: Rule(_F.WORK, _R.NEVER, False, "the conversation outgrew the model's window",
        "split the task, or use a model with a larger window"),
    _K.PERMISSION_DENIED: Rule(_F.SETUP, _R.NEVER, False, "the agent was not allowed to do the work",
        "allow the tools the evidence names in the lock entry for {harness}"),
    _K.NO_COMMIT: Rule(_F.WORK, _R.FRESH, False, "the agent ended well and committed nothing",
        "sharpen the instruction; see leftovers for work that was not committed"),
    _K.VERIFY_FAILED: Rule(_F.WORK, _R.NEVER, False, "the commits are here, the check failed on them",
        "see the tail of the check's output"),
    _K.WORKSPACE: Rule(_F.SETUP, _R.NEVER, False, "the repository could not be brought to the host",
        "check repo and base in the batch file"),
    _K.COLLECT_FAILED: Rule(_F.OURS, _R.NEVER, False, "the commits could not be brought home",
        "they still lie where the evidence says; fetch them from there"),
    _K.LOST: Rule(_F.HOST, _R.FRESH, False, "the run's record ends without an ending",
        "check {host} for a reboot, the out-of-memory killer or a cleaned home"),
    _K.CANCELLED: Rule(_F.OURS, _R.NEVER, False, "somebody stopped the run",
        "start the task again when you want it"),
    _K.INTERNAL: Rule(_F.OURS, _R.NEVER, False, "a fault in overnight itself",
        "report it with the traceback in the flow run's log; --resume goes on with this batch"),
    _K.UNKNOWN: Rule(_F.UNKNOWN, _R.NEVER, False, "no positive sign of a cause was found",
        "read head and tail of the output in the evidence, and report the case"),
}
# fmt: on


class Evidence(BaseModel):
    """One thing that was seen.

    `source` is who said it, strongest first: `event` (the harness's own
    structured output), `body` (provider's error code), `http` (status), `exit`
    (code or signal), `stderr` (the harness's error line), `host`, `probe`,
    `clock`, `git`, `lock`, `keys` (the places where keys are kept). The
    model's prose is never a source. `at_s` is seconds since the run started;
    None when the sighting has no place in the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["event", "body", "http", "exit", "stderr", "host", "probe", "clock", "git", "lock", "keys"]
    seen: str
    at_s: float | None = None
    where: str | None = None

    def __str__(self) -> str:
        place = "".join(
            [f" at {self.at_s:.1f} s" if self.at_s is not None else "", f" in {self.where}" if self.where else ""]
        )
        return f"{self.source}: {self.seen}{place}"


class Failure(BaseModel):
    """A named cause with what was seen. A value; what is raised carries one (`FailureError`).

    `remedy` is the table's text with names filled in, or a closer one where
    the evidence allows it. `retry_after_s` is the provider's own reset time.
    """

    # family and retry are written out for readers and derived again when read back
    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: FailureKind
    evidence: tuple[Evidence, ...]
    remedy: str
    retry_after_s: float | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy cannot see pydantic's decorator over a property
    @property
    def family(self) -> Family:
        return RULES[self.kind].family

    @computed_field  # type: ignore[prop-decorator]  # same
    @property
    def retry(self) -> Retry:
        return RULES[self.kind].retry

    @property
    def shuts_route(self) -> bool:
        return RULES[self.kind].shuts_route

    @property
    def brief(self) -> str:
        """The kind and the strongest sighting."""
        return f"{self.kind}: {self.evidence[0].seen if self.evidence else RULES[self.kind].meaning}"

    def __str__(self) -> str:
        """One line: the kind, the strongest sighting, the mend. The rest of the evidence is in the report."""
        more = f" (and {len(self.evidence) - 1} more sightings)" if len(self.evidence) > 1 else ""
        return f"{self.brief}{more}. Mend: {self.remedy}"


def fail(
    kind: FailureKind,
    *evidence: Evidence,
    names: Mapping[str, str] = MappingProxyType({}),
    remedy: str = "",
    retry_after_s: float | None = None,
) -> Failure:
    """Build a Failure with the table's remedy, its `{provider}`, `{harness}` and `{host}` filled from `names`."""
    filled = remedy or RULES[kind].remedy.format_map(_Names(names))
    return Failure(kind=kind, evidence=evidence, remedy=filled, retry_after_s=retry_after_s)


class _Names(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"the {name}"


class OvernightError(Exception):
    """Root of everything this project raises."""


class BadInput(OvernightError):
    """What a user wrote cannot be used; nothing was started.

    Args:
        where: The file, or the block, that must be edited.
        field: The path inside it, e.g. `tasks[2].route.provider`.
        problem: What is wrong with it.
        mend: What to write instead.
    """

    def __init__(self, where: str, field: str, problem: str, mend: str) -> None:
        super().__init__(f"{where}: {field}: {problem}. {mend}")
        self.where, self.field, self.problem, self.mend = where, field, problem, mend


class FailureError(OvernightError):
    """We could not find out or could not go on; `failure` says why. Prefect's retries look at it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class HostError(FailureError):
    """The host or the way to it failed; says nothing about the run on it."""


class RouteError(FailureError):
    """The route cannot carry a run."""


class WorkspaceError(FailureError):
    """The repository could not be brought to the host."""


class CollectError(FailureError):
    """The commits could not be brought home; the evidence says where they lie."""

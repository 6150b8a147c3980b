"""What can go wrong: one table from kind to who must act, what earns another try, the mend, and what proves it.

Nothing else in the project decides a retry or words a remedy, and no failure
keeps its name without a sighting from a source that can prove it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, computed_field

from overnight.kinds import ORDER, WHO, FailureKind, Family, Retry, Rule, Source

__all__ = [
    "RULES",
    "WHO",
    "BadInput",
    "CollectError",
    "Evidence",
    "Failure",
    "FailureError",
    "FailureKind",
    "Family",
    "HostError",
    "OvernightError",
    "Retry",
    "RouteError",
    "Rule",
    "Source",
    "Unproven",
    "WorkspaceError",
    "fail",
]


def _by(*sources: Source) -> frozenset[Source]:
    return frozenset(sources)


_K, _F, _R = FailureKind, Family, Retry
_SAID = _by("event", "body", "http", "stderr", "probe")  # the provider's answer, to the harness or to us

# fmt: off
# three lines a kind, so that the table reads as one
RULES: dict[FailureKind, Rule] = {
    _K.AUTH_REJECTED: Rule(_F.AUTH, _R.NEVER, True, "the provider refused the key",
        "replace the key: overnight credentials add {provider}",
        _SAID, "401 or 403, or the provider's code for it; said by the harness or to a call of our own"),
    _K.WRONG_HEADER: Rule(_F.SETUP, _R.NEVER, True, "the key is right, the header it travels in is not",
        "set the variable the evidence names in the lock entry for {provider} and {harness}",
        _by("probe"), "one key, two calls: refused in the header that is set, taken in the other"),
    _K.KEY_MISSING: Rule(_F.AUTH, _R.NEVER, True, "no key is stored for this provider",
        "store one: overnight credentials add {provider}; in CI set the variable named above",
        _by("keys", "event", "stderr"), "every place a key may stand is empty, or the harness says it found none"),
    _K.MODEL_UNKNOWN: Rule(_F.SETUP, _R.NEVER, True, "the provider does not serve this model id",
        "use an exact model id from the lock for {provider}",
        _SAID, "404, or the provider's code for it"),
    _K.MODEL_MISMATCH: Rule(_F.SETUP, _R.NEVER, True, "another model answered than the one asked for",
        "check the model id and the tier mapping of {provider} in the lock",
        _by("event", "probe"), "the model named in the answer is not the one asked for, nor an alias in the lock"),
    _K.REQUEST_REJECTED: Rule(_F.SETUP, _R.NEVER, False, "the provider refused the request itself",
        "read the provider's message in the evidence; check flags and limits in the lock",
        _SAID, "400 or another 4xx that nothing explains better"),
    _K.BILLING: Rule(_F.QUOTA, _R.NEVER, True, "the account has no balance or is blocked",
        "top up or unlock the account at {provider}",
        _SAID, "402, or the provider's code or words for an empty account"),
    _K.QUOTA_WINDOW: Rule(_F.QUOTA, _R.ELSEWHERE, True, "a usage window of the plan is used up",
        "wait for the reset named in the evidence, or give the task another route",
        _SAID, "the provider's code or words for a used-up window, with its reset time where it gives one"),
    _K.PLAN_EXPIRED: Rule(_F.QUOTA, _R.NEVER, True, "the plan has ended or does not cover this",
        "renew the plan at {provider}",
        _SAID, "the provider's code for it"),
    _K.RATE_LIMITED: Rule(_F.PROVIDER, _R.BACKOFF, False, "too many requests for this key right now",
        "lower the slots that share this key, or wait",
        _SAID, "429 without a code that means balance, window or plan"),
    _K.OVERLOADED: Rule(_F.PROVIDER, _R.BACKOFF, False, "the provider has no capacity right now",
        "wait; try an off-peak hour or another route",
        _SAID, "529 or 503, or the provider's code for it"),
    _K.PROVIDER_ERROR: Rule(_F.PROVIDER, _R.BACKOFF, False, "the provider's servers failed",
        "wait; see the status page of {provider}",
        _SAID, "another 5xx, or an error inside the stream"),
    _K.PROVIDER_MUTE: Rule(_F.PROVIDER, _R.BACKOFF, False, "the provider took the request and never answered",
        "wait, or give the task another route",
        _by("event", "stderr", "clock", "host", "probe"), "a request timed out without a status, or gets no byte"),
    _K.NOT_THE_API: Rule(_F.SETUP, _R.NEVER, True, "something answered that is not the model API",
        "check the base URL of {provider} in the lock, and proxies between host and provider",
        _SAID, "a page, an empty body or a stream that names no message"),
    _K.NETWORK: Rule(_F.NETWORK, _R.BACKOFF, False, "the host could not reach the provider",
        "check DNS, proxy and firewall on host {host}",
        _by("event", "stderr", "host", "probe"), "refused, reset, unresolved, untrusted, or cut half-way"),
    _K.HOST_UNREACHABLE: Rule(_F.HOST, _R.BACKOFF, False, "no SSH connection to the host",
        "check that {host} is up and its sshd answers on the given address and port",
        _by("host"), "the SSH connection could not be made, or it broke and did not come back"),
    _K.HOST_AUTH: Rule(_F.HOST, _R.NEVER, True, "the host refused our SSH key",
        "add the public key to authorized_keys of the user on {host}, or fix key_file",
        _by("host"), "sshd refused the key, or the key file cannot be read"),
    _K.HOST_KEY_MISMATCH: Rule(_F.HOST, _R.NEVER, True, "the host shows another key than the one pinned",
        "if the host was rebuilt on purpose, pin its new key; otherwise treat it as an attack",
        _by("host"), "the key the host shows, and the one that is pinned"),
    _K.HOST_KEY_UNKNOWN: Rule(_F.SETUP, _R.NEVER, True, "no key is pinned for this host",
        "put the key the evidence shows into host_key of {host} after checking its fingerprint",
        _by("host"), "the key the host shows, and that none is pinned"),
    _K.HOST_UNFIT: Rule(_F.HOST, _R.NEVER, True, "the host lacks something every run needs",
        "install on {host} what the evidence names",
        _by("host", "exit"), "what was looked for and is not there, or cannot be entered"),
    _K.DISK_FULL: Rule(_F.HOST, _R.ELSEWHERE, False, "the disk the run works on is full",
        "make room on {host}: overnight gc; then give the task another attempt",
        _by("exit", "event", "stderr", "host"), "the bytes free when it ended, or ENOSPC in the harness's own error"),
    _K.OUT_OF_MEMORY: Rule(_F.HOST, _R.ELSEWHERE, False, "the kernel ended a process of the run for want of memory",
        "lower the slots of {host}, or give the task to a host with more memory",
        _by("exit", "host"), "the kernel's count of processes it killed in the run's own time"),
    _K.HARNESS_MISSING: Rule(_F.HARNESS, _R.NEVER, True, "the agent's command is not on the host's path",
        "install {harness} on {host}, or add its folder to the host's path",
        _by("host", "exit"), "the folders that were searched, or that the program could not be started"),
    _K.HARNESS_CRASHED: Rule(_F.HARNESS, _R.FRESH, False, "the agent's process died without a verdict",
        "see the tail of its output; check memory on {host} and the CLI version",
        _by("exit"), "a signal or an exit code before any verdict"),
    _K.HARNESS_USAGE: Rule(_F.SETUP, _R.NEVER, True, "the agent refused its command line or configuration",
        "compare the CLI version with the one in the lock for {harness}",
        _by("event", "stderr", "exit", "lock", "probe"), "its own words on what it was given, or a version known bad"),
    _K.SILENT_START: Rule(_F.STALL, _R.FRESH, False, "the agent started and never spoke",
        "look at the evidence; then at hooks, MCP servers and logins under the run's HOME",
        _by("clock"), "first_event_s ran out without an event"),
    _K.WENT_QUIET: Rule(_F.STALL, _R.FRESH, False, "the agent spoke, then fell silent",
        "look at the evidence; raise quiet_s only if the last event shows work in progress",
        _by("clock"), "quiet_s ran out since the last event"),
    _K.TOOL_STUCK: Rule(_F.WORK, _R.FRESH, False, "a command the agent started waits for something that never comes",
        "see the command in the evidence; say in the instruction how to run it without waiting",
        _by("host"), "the process that waits, and what it waits for"),
    _K.LOOPING: Rule(_F.STALL, _R.FRESH, False, "the agent repeats the same call and gets the same result",
        "see the repeated call in the evidence; sharpen the instruction",
        _by("event"), "how often the same call came back with the same result"),
    _K.NO_CHANGE: Rule(_F.STALL, _R.FRESH, False, "the agent speaks and changes nothing",
        "sharpen the instruction, or raise no_change_s",
        _by("clock"), "no_change_s ran out since the work tree last changed"),
    _K.TIME_LIMIT: Rule(_F.WORK, _R.NEVER, False, "the run used up total_s",
        "split the task, or raise total_s",
        _by("host", "clock"), "the host ended it at total_s"),
    _K.LOG_LIMIT: Rule(_F.HARNESS, _R.NEVER, False, "the run wrote more than max_log_bytes",
        "read the head of the log for what repeats, or raise max_log_bytes",
        _by("host"), "the bytes written"),
    _K.TURN_LIMIT: Rule(_F.WORK, _R.NEVER, False, "the agent reached its turn limit",
        "split the task, or raise the turn limit",
        _by("event", "stderr"), "the harness says so, or as many answers were counted"),
    _K.BUDGET_LIMIT: Rule(_F.WORK, _R.NEVER, False, "a cap on tokens or money was reached",
        "split the task, or raise the cap that the evidence names",
        _by("event", "stderr"), "the harness says so, or what it told of its usage reached the cap"),
    _K.CONTEXT_OVERFLOW: Rule(_F.WORK, _R.NEVER, False, "the conversation outgrew the model's window",
        "split the task, or use a model with a larger window",
        _SAID, "413, the provider's code, or the harness's own words"),
    _K.PERMISSION_DENIED: Rule(_F.SETUP, _R.NEVER, False, "the agent was not allowed to do the work",
        "allow the tools the evidence names in the lock entry for {harness}",
        _by("event", "stderr"), "the refused tool, and no commit"),
    _K.NO_COMMIT: Rule(_F.WORK, _R.FRESH, False, "the agent ended well and committed nothing",
        "sharpen the instruction; see leftovers for work that was not committed",
        _by("git"), "commits counted since the base: none"),
    _K.VERIFY_FAILED: Rule(_F.WORK, _R.FRESH, False, "the commits are here, the check failed on them",
        "see the tail of the check's output",
        _by("exit"), "how the check ended on the commits"),
    _K.WORKSPACE: Rule(_F.SETUP, _R.NEVER, False, "the repository could not be brought to the host",
        "check repo and base in the batch file",
        _by("git", "host"), "git's own words"),
    _K.COLLECT_FAILED: Rule(_F.OURS, _R.NEVER, False, "the commits could not be brought home",
        "they still lie where the evidence says; fetch them from there",
        _by("git", "host"), "git's own words, and where the work lies"),
    _K.LOST: Rule(_F.HOST, _R.FRESH, False, "the run's record ends without an ending",
        "check {host} for a reboot, the out-of-memory killer or a cleaned home",
        _by("host"), "what is left of the record"),
    _K.CANCELLED: Rule(_F.OURS, _R.NEVER, False, "somebody stopped the run",
        "start the task again when you want it",
        _by("host"), "who stopped it, and when"),
    _K.DEADLINE: Rule(_F.OURS, _R.NEVER, False, "the night was over before the task was",
        "start the task again, or give the batch a later deadline",
        _by("clock"), "the deadline, and what it found the task at"),
    _K.PREDECESSOR: Rule(_F.OURS, _R.NEVER, False, "a task it comes after did not end well",
        "mend the task the evidence names; then start both again",
        _by("host"), "how the task it comes after ended"),
    _K.INTERNAL: Rule(_F.OURS, _R.NEVER, False, "a fault in overnight itself",
        "report it with the traceback in the flow run's log; --resume goes on with this batch",
        _by("host"), "the error, with the place in our code"),
    _K.UNKNOWN: Rule(_F.UNKNOWN, _R.NEVER, False, "no positive sign of a cause was found",
        "read head and tail of the output in the evidence, and report the case",
        frozenset(), "head and tail of the output, and what else was looked at"),
}
# fmt: on


class Evidence(BaseModel):
    """One thing that was seen.

    `source` is who said it; `ORDER` lists them, strongest first. The model's
    prose is never a source. `at_s` is seconds since the run started; None when
    the sighting has no place in the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Source
    seen: str
    at_s: float | None = None
    where: str | None = None

    def __str__(self) -> str:
        place = "".join(
            [f" at {self.at_s:.1f} s" if self.at_s is not None else "", f" in {self.where}" if self.where else ""]
        )
        return f"{self.source}: {self.seen}{place}"


class Failure(BaseModel):
    """A named cause with what was seen. A value; what is raised carries one (`FailureError`). `fail` makes them.

    The first of `evidence` is the sighting that proves the kind, the others follow strongest first.
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
    def shuts_for_good(self) -> bool:
        return self.shuts_route and self.retry is Retry.NEVER  # a used-up window opens by itself

    def also(self, *seen: Evidence) -> Failure:
        """The same failure with more that was seen; what proves it stays first."""
        return self.model_copy(update={"evidence": _ordered(self.kind, (*self.evidence, *seen))})

    @property
    def brief(self) -> str:
        """The kind and the sighting that proves it."""
        return f"{self.kind}: {self.evidence[0].seen if self.evidence else RULES[self.kind].meaning}"

    def __str__(self) -> str:
        """One line: the kind, the sighting that proves it, the mend. The rest of the evidence is in the report."""
        more = f" (and {len(self.evidence) - 1} more sightings)" if len(self.evidence) > 1 else ""
        return f"{self.brief}{more}. Mend: {self.remedy}"


def fail(
    kind: FailureKind,
    *evidence: Evidence,
    names: Mapping[str, str] = MappingProxyType({}),
    remedy: str = "",
    retry_after_s: float | None = None,
) -> Failure:
    """Build a Failure with the table's remedy, its `{provider}`, `{harness}` and `{host}` filled from `names`.

    The first sighting that can prove the kind leads, since it is what the
    caller read the kind from: an event may say `rate_limit` where the code in
    the body says that the account is empty. The others follow by `ORDER`, equal
    ones as given.

    Without any sighting that can prove it, a name would send somebody to mend
    the wrong thing, and an exception here would end a night over its report.
    So the failure becomes `unknown`, keeps what was seen, and says which name
    it lost; and `Unproven` is warned of, which the tests treat as an error.
    """
    rule = RULES[kind]
    if rule.proved_by.isdisjoint(each.source for each in evidence) and kind is not _K.UNKNOWN:
        unproven = f"{kind} was not proven: it takes a sighting by {' or '.join(_in_order(rule.proved_by))}"
        warnings.warn(unproven, Unproven, stacklevel=2)
        kind, remedy, retry_after_s = _K.UNKNOWN, "", None
        evidence = (*evidence, Evidence(source="host", seen=unproven, where="overnight"))
    filled = remedy or RULES[kind].remedy.format_map(_Names(names))
    return Failure(kind=kind, evidence=_ordered(kind, evidence), remedy=filled, retry_after_s=retry_after_s)


def _ordered(kind: FailureKind, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    proof = next((each for each in evidence if each.source in RULES[kind].proved_by), None)
    rest = sorted((each for each in evidence if each is not proof), key=lambda each: ORDER.index(each.source))
    return (*([proof] if proof else []), *rest)


def _in_order(sources: Iterable[Source]) -> list[Source]:
    return sorted(sources, key=ORDER.index)


class Unproven(UserWarning):
    """A failure was named without a sighting that proves it. A fault in overnight, not in the run."""


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

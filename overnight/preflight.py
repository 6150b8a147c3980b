"""Can this agent, on this host, by this very launch path, authenticate to this provider with this model?

Two probes side by side. The agent's own: started by the same supervisor, with
the environment of a run, asked to say one word. And a direct call with the
header the agent will send, which keeps the provider's codes that the agent
swallows and tells a wrong variable from a wrong key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from overnight.events import Act, Exited
from overnight.failures import Evidence, Failure, FailureError, FailureKind, Family, Retry, fail
from overnight.guard import Guard
from overnight.harnesses.protocol import Harness
from overnight.lockfile import HarnessEntry, Provider
from overnight.outcome import process_failure
from overnight.peak import peaks
from overnight.plan import RunPlan
from overnight.probe import Direct, direct, wrong_header
from overnight.quota import ask_left
from overnight.reprobe import Agents, Reprobed, Reprobes
from overnight.route import Route
from overnight.station import GONE_S, Interrupt, Station
from overnight.watch import Watch

_K = FailureKind
_ON_THE_HOST = (Family.HOST, Family.HARNESS)  # what went wrong before any provider was asked
QUESTION = "Reply with the single word {nonce}."


@dataclass(frozen=True)
class Checked:
    """What preflight found of one route. Open when `failure` is None; `notes` are worth a line and decide nothing."""

    route: Route
    seconds: float
    failure: Failure | None = None
    executable: str = ""
    version: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """All that checking a route needs, gathered so that the check itself decides nothing but its verdict."""

    plan: RunPlan
    nonce: str
    harness: Harness
    provider: Provider
    entry: HarnessEntry
    directory: Path


def check(
    question: Question, station: Station, reveal: Callable[[str], str], interrupted: Callable[[], Interrupt | None]
) -> Checked:
    """Probe a route once. Takes about 2 s on a healthy one, at most the lock's probe `total_s` and a little.

    What is wrong with a route is the answer, not an exception.

    Raises:
        HostError: the host could not be reached for now; worth another try.
    """
    began = time.monotonic()
    plan, harness = question.plan, question.harness
    route = plan.route
    executable, version = "", None
    try:
        station.fit()
        executable, version = station.locate(harness)
        bad = bad_version(question, version)
        if bad is not None:
            return Checked(route, time.monotonic() - began, bad, executable, version)
        key = reveal(route.provider)
        left = ask_left(question.provider, key, plan.route.names)
        if left.failure is not None:
            return Checked(route, time.monotonic() - began, left.failure, executable, version, left.notes)
        with ThreadPoolExecutor(1, "direct-probe") as pool:
            answer = pool.submit(_direct, question, key, question.entry.probe.timing.request_timeout_s)
            watch, failure = ask(question, station, plan.located(executable), key, interrupted)
            found = answer.result()
    except FailureError as error:
        if error.failure.retry is Retry.BACKOFF:
            raise
        return Checked(route, time.monotonic() - began, error.failure, executable, version)
    failure = verdict(question, watch, failure, found)
    notes = (*_notes(question, version, found, failure), *left.notes)
    return Checked(route, time.monotonic() - began, failure, executable, version, notes)


def _direct(question: Question, key: str, timeout_s: float) -> Direct:
    plan = question.plan
    asked = (plan.base_url, plan.header, key, plan.route.model, question.provider.errors, timeout_s, plan.speaks)
    return direct(*asked)


def reprobes(question: Callable[[], Question], station: Station, key: str, age_s: Callable[[], float]) -> Reprobes:
    """How the route of a living run is asked again. Neither call raises for what network, provider or host do.

    Args:
        question: Makes a new probe of the route.
        age_s: Of the run, for the evidence.
    """

    def again(asked: Question, timeout_s: float) -> Reprobed:
        found = _direct(asked, key, timeout_s)
        return Reprobed(at_s=round(age_s(), 1), direct=found, named=_wrong_header(asked, found))

    def both(timeout_s: float) -> Reprobed:
        asked = question()
        with ThreadPoolExecutor(1, "direct-probe") as pool:
            answer = pool.submit(again, asked, timeout_s)
            agent = _ask_agent(asked, station, key, timeout_s)
            return replace(answer.result(), agent=agent)

    return Reprobes(lambda timeout_s: again(question(), timeout_s), both)


def _ask_agent(question: Question, station: Station, key: str, timeout_s: float) -> Agents:
    """The agent's own probe, ended when it has no answer in time."""
    deadline = time.monotonic() + timeout_s

    def late() -> Interrupt | None:
        return "cancel" if time.monotonic() > deadline else None

    try:
        executable, _ = station.locate(question.harness)
        watch, failure = ask(question, station, question.plan.located(executable), key, late)
    except FailureError as error:
        return Agents(error.failure)
    failure = failure or not_health(question, watch)
    return Agents(failure, answered=failure is None or failure.kind is not _K.CANCELLED)


def ask(
    question: Question, station: Station, plan: RunPlan, key: str, interrupted: Callable[[], Interrupt | None]
) -> tuple[Watch, Failure | None]:
    """Run the agent's probe to its end; the failure is the process's, None when nothing speaks against it.

    Args:
        plan: The question's own, located on the host.

    Raises:
        HostError: the connection failed.
    """
    watch = Watch(plan, question.harness, question.provider.errors)
    guard = Guard(watch)
    station.start(plan, "{tmp}", key)
    lost = station.attend(
        plan,
        question.directory,
        key,
        guard,
        tell=lambda _: None,
        interrupted=lambda: "cancel" if interrupted() else None,
        give_up_s=GONE_S,
    )
    stopped = lost or (guard.stop.failure if guard.stop else None)
    return watch, process_failure(watch.transcript, watch.said(), stopped, plan.route.names)


def verdict(question: Question, watch: Watch, failure: Failure | None, found: Direct) -> Failure | None:
    """Read both probes together.

    The agent's probe decides whether the route is open: only it goes the whole
    way. The direct probe names the cause when both fail, since it still has the
    provider's code; it never shuts a route on which the agent got through.
    """
    names = question.plan.route.names
    if failure is None:
        return not_health(question, watch)
    if failure.kind is _K.CANCELLED:
        return failure
    named = _wrong_header(question, found)
    if named is not None:
        return named.also(*failure.evidence)
    if found.sent.ok:
        seen = Evidence(source="probe", seen=f"the same key by direct call: {found.sent.evidence.seen}")
        return failure.also(seen)
    unasked = failure.family in _ON_THE_HOST or failure.kind is _K.HARNESS_USAGE
    if found.sent.kind is not None and found.sent.status is not None and not unasked:
        after = found.sent.retry_after_s
        return fail(found.sent.kind, found.sent.evidence, *failure.evidence, names=names, retry_after_s=after)
    if failure.kind in (_K.UNKNOWN, _K.TIME_LIMIT) and found.sent.kind is not None:
        return fail(found.sent.kind, found.sent.evidence, *failure.evidence, names=names)
    return failure.also(found.sent.evidence)


def not_health(question: Question, watch: Watch) -> Failure | None:
    """The process ended well; was it the model we asked that said the word we asked for?"""
    plan, names = question.plan, question.plan.route.names
    text = "".join(s.event.text for s in watch.transcript.said if s.event.act in (Act.SPOKE, Act.RESULT))
    if question.nonce not in text:
        said = f"the word {question.nonce} did not come back; the agent's answer has {len(text)} characters"
        ending = watch.ending
        code = f"exit code {ending.code}" if isinstance(ending, Exited) else "no exit code"
        return fail(_K.UNKNOWN, Evidence(source="event", seen=said), Evidence(source="exit", seen=code), names=names)
    answered = watch.model_answered()
    model = question.provider.models[plan.route.model]
    if answered is not None and answered not in (plan.route.model, *model.answers_as):
        seen = f"asked for {plan.route.model}, answered by {answered}"
        return fail(_K.MODEL_MISMATCH, Evidence(source="event", seen=seen), names=names)
    return None


def _wrong_header(question: Question, found: Direct) -> Failure | None:
    """The failure of a key that is taken in the other header only."""
    if not found.wrong_header:
        return None
    plan, route = question.plan, question.plan.route
    right = [name for name, header in question.harness.HEADER_OF.items() if header is not plan.header]
    return wrong_header(found, route.provider, route.harness, plan.key_variable, right)


def bad_version(question: Question, version: str | None) -> Failure | None:
    """Why the lock forbids this version, or None."""
    known = question.entry.versions.get(version or "")
    if known is None or known.status == "good":
        return None
    seen = f"{question.plan.route.harness} {version} is known bad: {known.note}"
    good = [v for v, entry in question.entry.versions.items() if entry.status == "good"]
    remedy = f"install {question.plan.route.harness} {' or '.join(good)} on {question.plan.route.host}"
    return fail(_K.HARNESS_USAGE, Evidence(source="lock", seen=seen), remedy=remedy)


def _notes(question: Question, version: str | None, found: Direct, failure: Failure | None) -> tuple[str, ...]:
    peak = peaks(question.provider, question.plan.route.model, datetime.now(UTC))
    notes = [f"peak hours now: {rule}" for rule in peak]
    if version not in question.entry.versions:
        notes.append(f"{question.plan.route.harness} {version or 'of unknown version'} is not in the lock")
    if failure is None and not found.sent.ok:
        notes.append(
            f"the agent got through from the host; the direct probe from here did not: {found.sent.evidence.seen}"
        )
    return tuple(notes)

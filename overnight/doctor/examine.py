"""One route, examined: asked three ways, the answers held against each other, and what differs searched for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from overnight import keyshape, probe
from overnight.doctor.asking import AgentSaid, Asker, Setting, heard
from overnight.doctor.disagreement import Answers, Layer, Said, layer, layer_of, said
from overnight.doctor.find import Budget, Search
from overnight.doctor.login import Compared, compare
from overnight.doctor.records import Call, Diagnosis, Finding, HostLook, Mend
from overnight.doctor.trapped import trapped
from overnight.facts import Fact
from overnight.failures import Evidence, Failure, FailureError, FailureKind, HostError, fail
from overnight.harnesses.protocol import Harness
from overnight.lockfile import ProviderLock
from overnight.preflight import verdict
from overnight.report import RouteReport
from overnight.route import Route
from overnight.spec import BatchSpec, TaskSpec
from overnight.station import Interrupt, Station

P = ParamSpec("P")
R = TypeVar("R")

_K = FailureKind
Looked = Callable[[], HostLook | None]
"""None where the host could not be looked at."""
_OURS = "OVERNIGHT_"
_NO_WAY = (Said.NETWORK, Said.MUTE)
# what no change of ours can mend, or is named well enough as it is
_NOT_SEARCHED = (Layer.NONE, Layer.HERE, Layer.HOST, Layer.ACCOUNT, Layer.PROVIDER, Layer.HOST_NETWORK)


@dataclass(frozen=True)
class Case:
    """What is examined, and with what. `shipped` is the lock that came with the program, to compare with.

    `find` searches whatever the answers, and may show the key to another server
    of the same vendor; without it a search begins only where the answers leave
    something to find, and the key stays with the server it is for.
    """

    task: TaskSpec
    batch: BatchSpec
    batch_id: str
    lock: ProviderLock
    lock_path: str
    shipped: ProviderLock
    harnesses: Mapping[str, Harness]
    reveal: Callable[[str], str] = field(repr=False)
    run_dir: Callable[[str], Path]
    find: bool = False
    interrupted: Callable[[], Interrupt | None] = lambda: None

    @property
    def route(self) -> Route:
        return self.task.route


@dataclass
class _Chart:
    """What is known so far of a case."""

    case: Case
    began: float
    calls: list[Call] = field(default_factory=list)
    version: str | None = None
    findings: list[Finding] = field(default_factory=list)
    agent: AgentSaid | None = None

    def diagnosis(
        self, failure: Failure | None, at_fault: Layer, words: str = "", mend: Mend | None = None
    ) -> Diagnosis:
        if failure is not None and mend is not None:
            seen = Evidence(source="probe", seen=str(mend), where="the doctor's search")
            failure = failure.model_copy(
                update={"evidence": (seen, *failure.evidence), "remedy": _remedy(failure, mend)}
            )
        report = RouteReport(
            **self.case.route.model_dump(),
            state="shut" if failure else "open",
            preflight_s=round(time.monotonic() - self.began, 2),
            harness_version=self.version,
            notes=tuple(each.seen for each in self.findings),
            failure=failure,
        )
        agent = self.agent
        return Diagnosis(
            route=report,
            layer="" if at_fault is Layer.NONE else at_fault,
            words=words,
            mend=mend,
            calls=tuple(self.calls),
            findings=tuple(self.findings),
            unverified=unverified(self.case.lock, self.case.route),
            transcript=agent.transcript if agent else "",
            log=str(agent.question.directory) if agent else "",
        )


def examine(case: Case, station: Station, look: Looked | None = None) -> Diagnosis:
    """Find out whether a route is open, and if not, which layer is at fault and what would mend it. Blocks.

    About 2 s for a healthy route; a search takes up to 12 calls more. What is
    wrong is the answer, not an exception.

    Args:
        look: Gives what was found on the host, and waits for it where somebody still looks. Asked late, if at all.

    Raises:
        HostError: the host could not be reached for now; worth another try.
    """
    chart, setting = _Chart(case, time.monotonic()), Setting(case.lock, case.task)
    try:
        station.fit()
        chart.version = station.locate(case.harnesses[case.route.harness])[1]
    except HostError as error:
        if error.failure.kind is _K.HOST_UNREACHABLE:
            raise
        return chart.diagnosis(error.failure, Layer.HOST)
    except FailureError as error:
        return chart.diagnosis(error.failure, Layer.AGENT)
    try:
        key = case.reveal(case.route.provider)
    except FailureError as error:
        return chart.diagnosis(error.failure, Layer.KEY)
    doubt = keyshape.doubt(key, case.lock.providers[case.route.provider].key)
    if doubt:
        chart.findings.append(
            Finding(id="key-unlike-provider", weight="warning", seen=doubt, where=case.route.provider)
        )
    asker = Asker(
        station, case.batch, case.batch_id, case.lock_path, case.harnesses, key, case.run_dir, case.interrupted
    )
    chart.calls = asker.calls
    return _asked(chart, asker, setting, look)


def _asked(chart: _Chart, asker: Asker, setting: Setting, look: Looked | None) -> Diagnosis:
    case = chart.case
    direct, free = _begun(asker.direct, setting), _begun(_free, asker, setting)
    agent = chart.agent = asker.agent(setting)
    if agent.failure is not None and agent.failure.kind is _K.CANCELLED:
        return chart.diagnosis(agent.failure, Layer.UNKNOWN)
    found = direct.result()
    failure = verdict(agent.question, agent.watch, agent.failure, found)
    # a key refused twice is not asked a third time: too many refusals lock accounts out
    refused = said(found.sent.kind) is said(agent.call.kind) is Said.AUTH
    there = asker.there(setting) if failure is not None and not refused else None
    if failure is not None and there is not None and said(there.kind) in _NO_WAY:
        seen = Evidence(source="host", seen=there.seen)  # it knows how far it came: DNS, connection, TLS
        failure = failure.also(seen)
    answers = Answers(
        here=_here(setting, found.sent),
        there=None if there is None else heard(there, case.route.model),
        agent=said(agent.call.kind, agent.call.status),
        other_header=found.wrong_header,
        free=free.result(),
    )
    at_fault, words = layer(answers)
    chart.findings += [
        *_notes(at_fault, words, found, answers),
        *trapped(agent.question.plan, case.lock, shut=failure is not None),
    ]
    mend = None
    if failure is not None and (case.find or at_fault not in _NOT_SEARCHED) and answers.agent is not Said.HOST:
        mend = _searched(chart, asker, setting, look() if look else None, there, agent)
        if failure is not None and mend is not None and mend.proven and (found_at := layer_of(mend.factor)):
            at_fault, words = found_at
            failure = _named_by(mend, answers, failure, case.route)
    compared = _compared(asker, setting, look() if look else None, agent)
    if compared is not None and compared.finding is not None:
        chart.findings.append(compared.finding)
    return chart.diagnosis(failure, at_fault if failure or at_fault is Layer.ANOTHER_KEY else Layer.NONE, words, mend)


def _begun(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """A call in a thread that nobody has to wait for: a provider that never answers must not hold up an interrupt."""
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)  # for whoever asks for the result
            raise

    Thread(target=run, daemon=True, name="direct-probe").start()
    return future


def _here(setting: Setting, sent: probe.Reply) -> Said:
    """A direct call that was answered well by another model than the one asked for was not answered well."""
    route = setting.task.route
    expected = (route.model, *setting.lock.providers[route.provider].models[route.model].answers_as)
    return heard(sent, route.model) if not sent.ok or sent.model in (None, *expected) else Said.SWAPPED


def _named_by(mend: Mend, answers: Answers, failure: Failure, route: Route) -> Failure:
    """The failure by what mended it.

    What the agent blamed was not it where the same call is taken without the
    agent; and a 404 was not about the model where another address helped.
    """
    kind = failure.kind
    if answers.direct is Said.OK:
        kind = _K.HARNESS_USAGE
    elif mend.factor == "base URL" and kind is _K.MODEL_UNKNOWN:
        kind = _K.NOT_THE_API
    return fail(kind, *failure.evidence, names=route.names, retry_after_s=failure.retry_after_s)


def _searched(
    chart: _Chart, asker: Asker, setting: Setting, look: HostLook | None, there: Call | None, agent: AgentSaid
) -> Mend | None:
    installed = look.installed if look else ()
    from_host = there is not None and said(there.kind) not in _NO_WAY
    begun = there if there is not None and from_host else _direct(asker.calls)
    search = Search(
        asker, setting, chart.case.shipped, installed, Budget(), from_host, may_go_elsewhere=chart.case.find
    )
    way = search.way(setting)
    for call in asker.calls:
        if not call.varied:
            search.budget.met(way, call)
    mend = search.run(begun, agent.call)
    if search.came_and_went:
        seen = f"with nothing changed the agent got through, after it had not: {agent.call.seen}"
        chart.findings.append(Finding(id="comes-and-goes", weight="warning", seen=seen, mend="ask again later"))
    return mend


def _direct(calls: Sequence[Call]) -> Call:
    """The call from here with nothing varied; free ones and the other header are not it."""
    return next(call for call in calls if call.by == "here" and not call.varied)


def _free(asker: Asker, setting: Setting) -> bool | None:
    """Whether a call that costs nothing knew the key; None where no such call said either."""
    known: bool | None = None
    plan = asker.planned(setting)[0]
    for each in setting.lock.providers[setting.task.route.provider].free_probes:
        # a gateway of one's own has a key of its own, which is none of the provider's business
        at_home = urlsplit(each.url).netloc == urlsplit(plan.base_url).netloc
        if "auth" not in each.proves or each.key_as == "none" or not at_home:
            continue
        reply = asker.free(setting, each)
        if reply.ok:
            return True
        known = False if reply.kind is _K.AUTH_REJECTED else known
    return known


def _compared(asker: Asker, setting: Setting, look: HostLook | None, agent: AgentSaid) -> Compared | None:
    """Under the login too, where it brings anything that reaches this harness.

    Not with a harness whose key comes in variables of ours alone: no login has those.
    """
    harness = setting.task.route.harness
    by_hand = any(not name.startswith(_OURS) for name in asker.harnesses[harness].HEADER_OF)
    if look is None or not by_hand or agent.call.kind is _K.CANCELLED:
        return None
    brought = [s for s in look.shadows if harness in s.harnesses and not s.source.startswith("./")]
    return compare(asker, setting, agent, look.shadows) if brought else None


def _notes(at_fault: Layer, words: str, found: probe.Direct, answers: Answers) -> list[Finding]:
    if answers.here is Said.SWAPPED and answers.agent is Said.OK:
        seen = f"a direct call was answered by {found.sent.model}, which was not asked; the agent does not say by which"
        mend = "check the model id and the tier mapping of the provider in the lock"
        return [Finding(id="another-model", weight="warning", seen=seen, mend=mend)]
    if at_fault is Layer.HERE:
        seen = f"{words}: {found.sent.evidence.seen}"
        return [Finding(id="no-way-from-here", weight="note", seen=seen, mend="nothing for runs on this host")]
    if at_fault is Layer.ANOTHER_KEY:
        mend = "look at the shadows of this host that nothing stops"
        return [Finding(id="another-key", weight="error", seen=f"{words}: {found.sent.evidence.seen}", mend=mend)]
    return []


def _remedy(failure: Failure, mend: Mend) -> str:
    if failure.kind is _K.WRONG_HEADER:
        return failure.remedy
    if mend.route:
        return f"in the batch, write {', '.join(f'{name}: {value}' for name, value in mend.route.items())}"
    if mend.patch:
        return f"in the lock, {mend.factor}: {mend.works} (--record writes the overlay)"
    return f"use {mend.works}"


def unverified(lock: ProviderLock, route: Route) -> tuple[str, ...]:
    """Places in the lock that this route rests on and that nobody verified."""
    provider, entry = lock.providers[route.provider], lock.harnesses[route.harness]
    wiring = provider.harnesses[route.harness]
    place = f"providers.{route.provider}"
    used: dict[str, Fact] = {
        f"{place}.endpoints.{wiring.endpoint}": provider.endpoints[wiring.endpoint],
        f"{place}.harnesses.{route.harness}": wiring,
        f"{place}.models.{route.model}": provider.models[route.model],
        f"harnesses.{route.harness}": entry,
    }
    for header, accepts in provider.headers.items():
        if accepts.accepted == "unverified":
            used[f"{place}.headers.{header}"] = accepts
    return tuple(name for name, fact in used.items() if fact.provenance.confidence == "unverified")

"""The same small question to one model, asked in each way there is; every answer becomes a `Call`."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from overnight import probe
from overnight.doctor.disagreement import Said, said
from overnight.doctor.records import Call
from overnight.failures import Failure, FailureKind
from overnight.harnesses.protocol import Harness
from overnight.lockfile import FreeProbe, Header, ProviderLock
from overnight.plan import Planner, RunPlan
from overnight.preflight import QUESTION, Question, ask, bad_version, not_health
from overnight.spec import BatchSpec, TaskSpec
from overnight.station import Interrupt, Station
from overnight.watch import Watch
from overnight.wire import judge

ONHOST = Path(__file__).with_name("onhost_call.py")
_K = FailureKind
_STEPS = {
    "dns": "the name does not resolve",
    "connect": "no connection",
    "tls": "the TLS handshake failed",
    "answer": "took the request and did not answer",
}
# a stream has said all we ask of it with the first of these
_ENOUGH = (
    *("event: error", '"type":"error"', '"type": "error"', "content_block_delta", "message_delta", "message_stop"),
    *('.delta"', "response.failed", "response.incomplete", "response.completed"),
)


@dataclass(frozen=True)
class Setting:
    """One way to the model: what is varied, one part at a time."""

    lock: ProviderLock
    task: TaskSpec
    executable: str = ""
    headers: tuple[Header, ...] | None = None
    """Other than the harness sends; no harness can be asked so."""


@dataclass(frozen=True)
class AgentSaid:
    """The agent's probe: the call, its failure whole, and what was asked; what it printed lies in its directory."""

    call: Call
    failure: Failure | None
    question: Question
    watch: Watch

    @property
    def transcript(self) -> str:
        """SHA-256 of what it printed, standard output first."""
        digest = hashlib.sha256()
        for stream in ("out", "err"):
            digest.update((self.question.directory / stream).read_bytes())
        return digest.hexdigest()


@dataclass
class Asker:
    """Asks for one route. Not thread-safe, but for `here`."""

    station: Station
    batch: BatchSpec
    batch_id: str
    lock_path: str
    harnesses: Mapping[str, Harness]
    key: str = field(repr=False)
    run_dir: Callable[[str], Path]
    interrupted: Callable[[], Interrupt | None]
    calls: list[Call] = field(default_factory=list)
    _noting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def planned(self, setting: Setting) -> tuple[RunPlan, str]:
        """The agent's probe with this setting, and the word it must bring back.

        Raises:
            BadInput: the harness cannot be asked so.
        """
        nonce = f"nonce{os.urandom(4).hex()}"
        planner = Planner(setting.lock, self.lock_path, self.harnesses, self.batch, self.batch_id)
        return planner.probe(setting.task, nonce, QUESTION.format(nonce=nonce)), nonce

    def headers(self, setting: Setting) -> dict[str, str]:
        sent = (self.planned(setting)[0].header,) if setting.headers is None else setting.headers
        return {name: value for header in sent for name, value in header.carry(self.key).items()}

    def direct(self, setting: Setting) -> probe.Direct:
        """The direct call of a preflight: a second one in the other header where the first is refused."""
        plan = self.planned(setting)[0]
        rules = setting.lock.providers[plan.route.provider].errors
        asked = (plan.base_url, plan.header, self.key, plan.route.model, rules, self._direct_s(setting))
        found = probe.direct(*asked, plan.speaks)
        self._noted(_call("", found.sent))
        if found.other is not None:
            self._noted(_call(f"header: {found.other.header.wire}", found.other))
        return found

    def free(self, setting: Setting, each: FreeProbe) -> probe.Reply:
        """A call that costs nothing, from this machine."""
        rules = setting.lock.providers[setting.task.route.provider].errors
        reply = probe.free(each, self.key, rules, self._direct_s(setting), setting.task.route.model)
        self._noted(_call(f"free: {each.method} {urlsplit(each.url).path}", reply))
        return reply

    def here(self, setting: Setting, varied: str = "") -> Call:
        """A direct call from this machine. Never raises for what the network or the provider does."""
        plan = self.planned(setting)[0]
        rules = setting.lock.providers[plan.route.provider].errors
        asked = (plan.base_url, self.headers(setting), self.key, plan.route.model, rules, self._direct_s(setting))
        reply = probe.ask(*asked, plan.speaks)
        return self._noted(_call(varied, reply))

    def there(self, setting: Setting, varied: str = "") -> Call:
        """The same call from the host, by its own DNS, routes and certificates.

        Raises:
            HostError: the host could not be asked.
        """
        plan = self.planned(setting)[0]
        timeout_s = self._direct_s(setting)
        body, headers = probe.message(plan.route.model, plan.speaks)
        order = {
            "url": probe.address(plan.base_url, plan.speaks),
            "headers": {**headers, **self.headers(setting)},
            "body": body,
            "timeout_s": timeout_s,
            "enough": _ENOUGH,
        }
        answer = self.station.remote.script(ONHOST, {"request": order}, timeout_s + 15)
        rules = setting.lock.providers[plan.route.provider].errors
        kind: FailureKind | None
        if answer["status"] is None:
            kind = _K.PROVIDER_MUTE if answer["step"] == "answer" and "timed out" in answer["error"] else _K.NETWORK
            place = f" {answer['address']}" if answer["address"] else ""
            seen = f"from {self.station.name}: {_STEPS[answer['step']]}{place} ({answer['error']})"
        else:
            judged = judge(answer["status"], answer["media_type"], answer["text"], rules)
            kind, seen = judged.kind, judged.seen
        seen = seen.replace(self.key, "*" * len(self.key))
        return self._noted(
            Call(by="host", varied=varied, kind=kind, status=answer["status"], seen=seen, seconds=answer["seconds"])
        )

    def agent(self, setting: Setting, varied: str = "") -> AgentSaid:
        """The agent on the host, as runs start it.

        Raises:
            FailureError: it is not there, or the host went away.
            BadInput: the harness cannot be asked so.
        """
        plan, nonce = self.planned(setting)
        harness, entry = self.harnesses[plan.route.harness], setting.lock.harnesses[plan.route.harness]
        executable, version = self.station.locate(harness)
        question = Question(
            plan=plan.located(setting.executable or executable),
            nonce=nonce,
            harness=harness,
            provider=setting.lock.providers[plan.route.provider],
            entry=entry,
            directory=self.run_dir(plan.run_id),
        )
        began = time.monotonic()
        failure = None if setting.executable else bad_version(question, version)
        watch = Watch(question.plan, harness, question.provider.errors)
        if failure is None:
            watch, failure = ask(question, self.station, question.plan, self.key, self.interrupted)
            if failure is None:
                failure = not_health(question, watch)
        else:
            for stream in ("out", "err"):
                (question.directory / stream).touch()
        seconds = time.monotonic() - began
        call = Call(
            by="agent",
            varied=varied,
            kind=None if failure is None else failure.kind,
            status=_status(watch),
            seen="the word came back" if failure is None else str(failure.evidence[0]),
            seconds=seconds,
        )
        return AgentSaid(self._noted(call), failure, question, watch)

    def _direct_s(self, setting: Setting) -> float:
        """As long as the agent waits for an answer, and never longer than its whole probe takes."""
        probe_of_it = setting.lock.harnesses[setting.task.route.harness].probe
        return min(probe_of_it.timing.request_timeout_s, probe_of_it.total_s)

    def _noted(self, call: Call) -> Call:
        with self._noting:
            self.calls.append(call)
        return call


def routed(setting: Setting, **route: str) -> Setting:
    """The same setting with another part of the route."""
    task = setting.task.model_copy(update={"route": setting.task.route.model_copy(update=route)})
    return replace(setting, task=task)


def heard(answer: Call | probe.Reply, model: str) -> Said:
    """What a direct call comes to. A 404 that names the model is about the model, and not about the path."""
    seen = answer.seen if isinstance(answer, Call) else answer.evidence.seen
    return said(answer.kind, None if model in seen else answer.status)


def _call(varied: str, reply: probe.Reply) -> Call:
    seen = reply.evidence.seen
    return Call(by="here", varied=varied, kind=reply.kind, status=reply.status, seen=seen, seconds=reply.seconds)


def _status(watch: Watch) -> int | None:
    """The newest HTTP status that the agent told of."""
    return next((said.event.status for said in reversed(watch.transcript.said) if said.event.status is not None), None)

"""One key, asked of its provider: does it open the door that runs will use?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overnight.failures import BadInput, Failure, FailureKind, fail
from overnight.harnesses import HARNESSES
from overnight.lockfile import OVERLAY, Provider, ProviderLock, Wiring, suggest
from overnight.probe import Direct, direct, wrong_header

_K = FailureKind


@dataclass(frozen=True)
class KeyCheck:
    """What a provider said to one key. `kind` is None when it let the key in.

    `evidence` is what was seen, strongest first; no part of the key is in it.
    `model` and `sent_as` (the header) are what was asked with.
    """

    provider: str
    ok: bool
    kind: FailureKind | None
    evidence: tuple[str, ...]
    mend: str
    model: str = ""
    sent_as: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class KeyQuestion:
    """The call that proves a key: the one this harness makes for this model."""

    provider: str
    entry: Provider
    harness: str
    wiring: Wiring
    model: str
    timeout_s: float

    @property
    def variable(self) -> str:
        return self.wiring.key_variables[0]


def key_question(
    lock: ProviderLock, provider: str, *, model: str | None = None, harness: str | None = None
) -> KeyQuestion:
    """The call that proves a key of this provider; by default the first harness and model the lock lists for it.

    Raises:
        BadInput: the lock has no such provider, model or harness for it.
    """
    where = "command line"
    entry = lock.provider(provider, where=where, field="PROVIDER")
    known = [name for name in entry.harnesses if name in HARNESSES and name in lock.harnesses]
    if not known:
        problem = f"the lock says of no harness how it reaches {provider}"
        raise BadInput(where, "--harness", problem, suggest("", HARNESSES))
    chosen = harness or known[0]
    wiring = lock.wiring(provider, chosen, where=where, field="--harness")
    if chosen not in known:
        raise BadInput(where, "--harness", f"unknown harness {chosen!r}", suggest(chosen, known))
    asked = model or next(iter(entry.models), "")
    if not asked:
        raise BadInput(where, "--model", f"the lock knows no model of {provider}", f"Add one in {OVERLAY}")
    lock.model(provider, asked, where=where, field="--model")
    return KeyQuestion(provider, entry, chosen, wiring, asked, lock.harnesses[chosen].probe.timing.request_timeout_s)


def check_key(question: KeyQuestion, key: str) -> KeyCheck:
    """One real call with the key, a second one if the first header is refused. Blocks, 15 s or so for each at most.

    Never raises for what the network or the provider does.
    """
    header = HARNESSES[question.harness].HEADER_OF[question.variable]
    at = question.entry.endpoints[question.wiring.endpoint]
    found = direct(at.url, header, key, question.model, question.entry.errors, question.timeout_s, at.speaks)
    failure = _failure(question, found)
    seen = [found.sent.evidence] if failure is None else failure.evidence
    return KeyCheck(
        provider=question.provider,
        ok=failure is None,
        kind=None if failure is None else failure.kind,
        evidence=tuple(str(each) for each in seen),
        mend="" if failure is None else failure.remedy,
        model=question.model,
        sent_as=header.wire,
        seconds=found.sent.seconds,
    )


def unusable(provider: str, kind: FailureKind | None, evidence: Sequence[str], mend: str) -> KeyCheck:
    """The answer for a key that was not asked about, since there is none or it cannot be one."""
    return KeyCheck(provider, False, kind, tuple(evidence), mend)


def _failure(question: KeyQuestion, found: Direct) -> Failure | None:
    if found.sent.kind is None:
        return None
    if found.wrong_header:
        header = found.sent.header
        right = [name for name, sends in HARNESSES[question.harness].HEADER_OF.items() if sends is not header]
        return wrong_header(found, question.provider, question.harness, question.variable, right)
    remedy = "check DNS, proxy and firewall of this machine" if found.sent.kind is _K.NETWORK else ""
    names = {"provider": question.provider, "harness": question.harness}
    return fail(found.sent.kind, found.sent.evidence, names=names, remedy=remedy)

"""The route of a run that fell silent, asked again: by the agent on its host, and directly from here.

Whatever a run does not say, a fresh call on the same way does: it tells a key
that was refused meanwhile, or a provider that is down, from a fault of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from overnight.failures import Evidence, Failure, FailureKind, Family, fail
from overnight.probe import Direct

_K = FailureKind
QUOTA = frozenset({_K.BILLING, _K.QUOTA_WINDOW, _K.PLAN_EXPIRED})
"""What a status of 429 may mean beside a rate limit; only the body's code tells."""
_OF_THE_WAY = (Family.AUTH, Family.QUOTA, Family.PROVIDER, Family.NETWORK)
_OPEN_TO_DOUBT = frozenset({_K.MODEL_UNKNOWN, _K.NOT_THE_API, _K.REQUEST_REJECTED, _K.UNKNOWN})


@dataclass(frozen=True)
class Agents:
    """The agent's own probe: `failure` is None when it got through, `answered` False when it was not waited for."""

    failure: Failure | None = None
    answered: bool = True


@dataclass(frozen=True)
class Reprobed:
    """Both calls. `agent` is None when only the direct call was made. `at_s` is the age of the run.

    `named` is the failure of a key that the provider takes in the other header only.
    """

    at_s: float
    direct: Direct
    agent: Agents | None = None
    named: Failure | None = None

    @property
    def kind(self) -> FailureKind | None:
        """What a fresh call on this route meets; None when it is answered, or when nobody could ask."""
        sent, agent = self.direct.sent, self.agent.failure if self.agent else None
        if self.named is not None:
            return self.named.kind
        if sent.kind is not None and (sent.status is not None or sent.kind is _K.PROVIDER_MUTE):
            return sent.kind
        return agent.kind if agent is not None and agent.family in _OF_THE_WAY else None

    @property
    def retry_after_s(self) -> float | None:
        return self.direct.sent.retry_after_s

    def evidence(self) -> tuple[Evidence, ...]:
        """What both calls say, and what that rules out."""
        sent = self.direct.sent
        rules_out = "; so it is neither the key nor the provider as a whole" if sent.ok else ""
        words = f"asked again directly: {sent.evidence.seen}{rules_out}"
        found = [Evidence(source="probe", seen=words, at_s=self.at_s, where=sent.evidence.where)]
        if self.agent is not None:
            found.append(Evidence(source="probe", seen=f"asked again by the agent: {self._agents()}", at_s=self.at_s))
        return tuple(found)

    def _agents(self) -> str:
        if self.agent is None or not self.agent.answered:
            return "no answer in the time there was"
        return "it got through" if self.agent.failure is None else self.agent.failure.brief


@dataclass(frozen=True)
class Reprobes:
    """How the route of one run is asked again; each call blocks for its timeout at most and never raises."""

    direct: Callable[[float], Reprobed]
    both: Callable[[float], Reprobed]


def worth_asking(failure: Failure | None) -> bool:
    """Whether a fresh call could say more of this failure: it is about the way to the model, and no code proves it."""
    if failure is None or any(seen.source in ("body", "probe") for seen in failure.evidence):
        return False
    return failure.family in _OF_THE_WAY or failure.kind in _OPEN_TO_DOUBT


def may_name_a_time(failure: Failure | None) -> bool:
    """Whether the provider may have said when to come back, which no agent passes on: it stands in a header."""
    return failure is not None and failure.kind in (_K.RATE_LIMITED, _K.OVERLOADED) and failure.retry_after_s is None


def timed(failure: Failure, probed: Reprobed) -> Failure:
    """The failure with the time that the provider named to a fresh call, when that met the same."""
    if not may_name_a_time(failure) or probed.kind is not failure.kind:
        return failure
    return failure.model_copy(update={"retry_after_s": probed.retry_after_s})


def refined(failure: Failure, probed: Reprobed, names: Mapping[str, str]) -> Failure:
    """The failure with what a fresh call adds to it.

    A fresh call names what had no name, tells an empty account from a rate
    limit, a wrong header or a firewall from a wrong key, a wrong path from a
    wrong model, an error in a 200 from a page, and why an agent that got
    nowhere stopped. Anything else it only stands beside: it is another call,
    at another moment.
    """
    kind = probed.kind
    narrower = (
        failure.kind is _K.UNKNOWN
        or (failure.kind is _K.RATE_LIMITED and kind in QUOTA)
        or (failure.kind is _K.AUTH_REJECTED and kind in (_K.WRONG_HEADER, _K.NOT_THE_API, _K.REQUEST_REJECTED))
        or (failure.kind is _K.MODEL_UNKNOWN and kind is _K.NOT_THE_API)
        or (failure.kind is _K.NOT_THE_API and probed.direct.sent.status is not None)
        or failure.kind is _K.NO_COMMIT
    )
    if kind is None or not narrower:
        return failure.also(*probed.evidence())
    if probed.named is not None:
        return probed.named.also(*failure.evidence, *probed.evidence())
    return fail(kind, *probed.evidence(), *failure.evidence, names=names, retry_after_s=probed.retry_after_s)

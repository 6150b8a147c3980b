"""What is left at a provider, asked by its free calls before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.gauge import Gauge, Level
from overnight.lockfile import FreeProbe, Provider
from overnight.probe import measured

_K = FailureKind
_EMPTY = {"window": _K.QUOTA_WINDOW, "balance": _K.BILLING}
_NOTHING = (_K.QUOTA_WINDOW, _K.BILLING, _K.PLAN_EXPIRED)
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Left:
    """What the free calls told. `failure` is set only where the provider itself says that nothing is left."""

    failure: Failure | None = None
    notes: tuple[str, ...] = ()


def ask_left(provider: Provider, key: str, names: dict[str, str], timeout_s: float = TIMEOUT_S) -> Left:
    """Ask those free calls of a provider that tell of quota or money. Never raises for what network or provider do.

    A call that is refused, fails or says nothing that the lock knows to read
    proves nothing: the probe of the route has the word then.
    """
    notes: list[str] = []
    for each in filter(_tells, provider.free_probes):
        reply, body = measured(each, key, provider.errors, timeout_s)
        if reply.kind in _NOTHING and reply.status == 200:
            return Left(fail(reply.kind, reply.evidence, names=names), tuple(notes))
        if not reply.ok:
            notes.append(f"what is left could not be read: {reply.evidence.seen}")
            continue
        levels = [(gauge, level) for gauge in each.gauges for level in gauge.read(body)]
        empty = next(((gauge, level) for gauge, level in levels if level.empty), None)
        if empty is not None:
            return Left(_nothing(*empty, [level for _, level in levels], reply.evidence, names), tuple(notes))
        notes += [str(level) for _, level in levels]
    return Left(None, tuple(notes))


def _tells(probe: FreeProbe) -> bool:
    return bool(probe.gauges) and probe.key_as != "none"


def _nothing(gauge: Gauge, empty: Level, levels: Sequence[Level], seen: Evidence, names: dict[str, str]) -> Failure:
    told = [empty, *(level for level in levels if level is not empty)]
    evidence = seen.model_copy(update={"seen": f"{seen.seen}: {'; '.join(map(str, told))}"})
    after_s = max(0.0, (empty.resets_at - datetime.now(UTC)).total_seconds()) if empty.resets_at else None
    return fail(_EMPTY[gauge.of], evidence, names=names, retry_after_s=after_s)

"""What may befall a night, by the name of the failure it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from overnight.failures import BadInput, FailureKind
from overnight.lockfile import suggest
from overnight.rehearsal.faults import Fault, FaultKind, parse_fault
from overnight.rehearsal.model import Say, Shell, Step, Write

_K = FailureKind
_FILE = "overnight-rehearsal.txt"
_WRITTEN = Write(_FILE, "A rehearsal wrote this: the provider was emulated, the instruction was not carried out.\n")
COMMITTED: tuple[Step, ...] = (
    _WRITTEN,
    Shell(f"git add -f {_FILE} && git commit -qm 'Rehearse'"),
    Say("Done. This was a rehearsal."),
)
SILENT = frozenset({FaultKind.HANG, FaultKind.HEADERS_ONLY, FaultKind.STALL, FaultKind.DRIP})
"""Faults that nobody tells of: a clock has to run out."""


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, for every provider of the batch.

    Args:
        name: As the user asked for it; empty when all goes well.
        written: Its fault as `parse_fault` reads it; empty where there is none.
        fault: What the providers do; None for nothing wrong.
        answers_as: The model that answers in place of the one asked for.
        steps: What the model does for every task.
    """

    name: str = ""
    written: str = ""
    fault: Fault | None = None
    answers_as: str | None = None
    steps: tuple[Step, ...] = COMMITTED

    @property
    def is_silent(self) -> bool:
        return self.fault is not None and self.fault.kind in SILENT

    @property
    def expected(self) -> FailureKind | None:
        """The failure it is named after; None for a fault as the emulator writes it."""
        return next((kind for kind in FailureKind if kind == self.name), None)


FAULTS: Mapping[str, str] = {
    # from the first call on: preflight meets them
    _K.AUTH_REJECTED: "key-refused",
    _K.MODEL_UNKNOWN: "model-not-found",
    _K.PLAN_EXPIRED: "plan-expired",
    _K.NOT_THE_API: "html-page",
    # in the middle of the night, once an agent has done something; some end, some last and meet our own probes, too
    _K.REQUEST_REJECTED: "content-refused,turn=2",
    _K.CONTEXT_OVERFLOW: "too-large,turn=2",
    _K.BILLING: "no-balance,turn=2,lasting=yes",
    _K.QUOTA_WINDOW: "window-used-up,turn=2,lasting=yes",
    _K.RATE_LIMITED: "rate-limited,turn=2,lasting=yes",
    _K.OVERLOADED: "overloaded,turn=2,lasting=yes",
    _K.PROVIDER_ERROR: "server-error,turn=2,lasting=yes",
    _K.PROVIDER_MUTE: "hang,turn=2,lasting=yes",
    _K.WENT_QUIET: "stall,turn=2",
    _K.NETWORK: "cut,turn=2",
    # the work's own first request
    _K.SILENT_START: "hang,spares_probes=yes",
}
"""Which fault of a provider leads to a failure. An agent that is told how long to wait may name it more closely."""

_OTHERS: Mapping[str, Trouble] = {
    _K.MODEL_MISMATCH: Trouble(answers_as="another-model"),
    _K.NO_COMMIT: Trouble(steps=(_WRITTEN, Say("Done. I have committed everything."))),
}
NAMES = tuple(sorted([*FAULTS, *_OTHERS]))


def trouble(asked: str) -> Trouble:
    """What `--fault` asks for: a failure's name, or a fault as `parse_fault` reads it. Empty is no trouble at all.

    Raises:
        BadInput: it is neither; names the near ones.
    """
    if not asked:
        return Trouble()
    if asked in _OTHERS:
        return replace(_OTHERS[asked], name=asked)
    written = FAULTS.get(asked, asked)
    if written.partition(",")[0] not in list(FaultKind):
        raise BadInput("command line", "--fault", f"unknown {asked!r}", suggest(asked, [*NAMES, *FaultKind]))
    return Trouble(asked, written, parse_fault(written))

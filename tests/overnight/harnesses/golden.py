"""Reads the golden cases: real transcripts of one agent version, cut to what matters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from overnight.events import AgentEvent, Ending, Exited
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.lockfile import ErrorRule, Provenance
from overnight.transcript import Transcript

ROOT = Path(__file__).resolve().parents[2] / "golden"

_SEEN = Provenance(source="golden cases", date=date(2026, 11, 22), confidence="measured")
_K = FailureKind


def _rule(kind: FailureKind, http: int, *words: str, codes: tuple[str, ...] = ()) -> ErrorRule:
    return ErrorRule(kind=kind, http=(http,), codes=codes, words=words, provenance=_SEEN)


RULES = (
    _rule(_K.BILLING, 429, codes=("1113",)),
    _rule(_K.QUOTA_WINDOW, 429, codes=("1308", "1310")),
    _rule(_K.MODEL_UNKNOWN, 400, codes=("1211",)),
    _rule(_K.PLAN_EXPIRED, 429, codes=("1309",)),
    _rule(_K.QUOTA_WINDOW, 429, "usage limit reached"),
    _rule(_K.MODEL_UNKNOWN, 400, "unknown model"),
    _rule(_K.BILLING, 400, "credit balance is too low"),
)
"""What a lock would say of the providers that were emulated for the recordings."""


@dataclass(frozen=True)
class Case:
    """One recorded run and what it proves. `kind` None: the harness reported no fault."""

    harness: str
    name: str
    out: bytes
    err: bytes
    meta: dict[str, Any]

    @property
    def kind(self) -> FailureKind | None:
        return FailureKind(self.meta["kind"]) if self.meta["kind"] else None

    @property
    def ending(self) -> Ending | None:
        if self.meta["ended"] == "running":
            return None
        return Exited(code=self.meta["code"], signal=self.meta["signal"], seconds=self.meta["seconds"])

    def transcript(self) -> Transcript:
        """The run as a follower would have it, every line at the second it was recorded."""
        transcript, reader = Transcript(), HARNESSES[self.harness].reader()
        transcript.add_events(0.0, reader.feed("err", self.err))
        lines = self.out.splitlines(keepends=True)
        for line, at_s in zip(lines, self.meta["at_s"] or [0.0] * len(lines), strict=True):
            transcript.add_bytes("out", line)
            transcript.add_events(at_s, reader.feed("out", line))
        transcript.add_bytes("err", self.err)
        transcript.ending = self.ending
        return transcript


def cases() -> list[Case]:
    return [_case(meta.parent) for meta in sorted(ROOT.glob("*/*/meta.json"))]


def case(harness: str, name: str) -> Case:
    return _case(ROOT / harness / name)


def _case(folder: Path) -> Case:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return Case(folder.parent.name, folder.name, (folder / "out").read_bytes(), _bytes(folder / "err"), meta)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def read_all(harness: str, out: bytes, *, chunk: int = 0, stream: Literal["out", "err"] = "out") -> list[AgentEvent]:
    """Every event of `out`, fed whole or in chunks of one size."""
    reader, size = HARNESSES[harness].reader(), chunk or max(1, len(out))
    return [e for start in range(0, len(out), size) for e in reader.feed(stream, out[start : start + size])]

"""What the doctor measured, as an overlay that somebody may take up: each fact says who measured it, when and how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from overnight import layers
from overnight.doctor.records import Checkup, Diagnosis
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.layers import laid_over
from overnight.lockfile import OVERLAY, Header, ProviderLock

PROPOSED = f"{OVERLAY.removesuffix('.json')}.proposed.json"


def proposed(checkup: Checkup, lock: ProviderLock, who: str, today: date) -> dict[str, Any]:
    """The overlay; nothing but its head where nothing was proven.

    Args:
        who: User and machine, for the provenance.
    """
    overlay: dict[str, Any] = {"schema": 1, "as_of": str(today)}
    for each in checkup.diagnoses:
        mark = {"source": _source(each, who), "date": str(today), "confidence": "measured"}
        for part in _parts(each, lock):
            overlay = laid_over(overlay, _marked(part, mark), keep_null=True)
    return overlay


def write(overlay: Mapping[str, Any], lock: ProviderLock, folder: Path) -> Path:
    """Write the proposal beside where an overlay would be, never over one; an older proposal is replaced.

    Raises:
        ValueError: it does not fit the lock; then nothing is written.
    """
    head = ("schema", "as_of")
    mark = {"source": PROPOSED, "date": str(overlay["as_of"]), "confidence": "unverified"}
    layers.patched(lock, {name: part for name, part in overlay.items() if name not in head}, mark)
    path = folder / PROPOSED
    path.write_text(json.dumps(overlay, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _parts(each: Diagnosis, lock: ProviderLock) -> list[dict[str, Any]]:
    """Facts that an answer proves, without their provenance."""
    route, parts = each.route, []
    wiring = lock.providers[route.provider].harnesses[route.harness]
    sent = HARNESSES[route.harness].HEADER_OF[wiring.key_variables[0]]
    if route.failure is None:
        provider: dict[str, Any] = {"models": {route.model: {}}, "headers": {sent: {"accepted": "yes"}}}
        provider |= {"harnesses": {route.harness: {}}, "endpoints": {wiring.endpoint: {}}}
        parts.append({"providers": {route.provider: provider}})
        if route.harness_version:
            parts.append({"harnesses": {route.harness: {"versions": {route.harness_version: {"status": "good"}}}}})
    elif route.failure.kind is FailureKind.WRONG_HEADER:
        accepted = {header: {"accepted": "no" if header is sent else "yes"} for header in Header}
        parts.append({"providers": {route.provider: {"headers": accepted}}})
    if each.mend is not None and each.mend.proven:
        parts.append(each.mend.patch)
    return parts


def _marked(part: Mapping[str, Any], mark: Mapping[str, str]) -> dict[str, Any]:
    """The same part, each fact in it with where it comes from."""
    marked: dict[str, Any] = json.loads(json.dumps(part))
    for provider in marked.get("providers", {}).values():
        for section in provider.values():
            for fact in section.values():
                if fact is not None:  # null takes a fact out
                    fact["provenance"] = dict(mark)
    for harness in marked.get("harnesses", {}).values():
        versions = harness.get("versions", {})
        for fact in versions.values() if versions else [harness]:
            fact["provenance"] = dict(mark)
    return marked


def _source(each: Diagnosis, who: str) -> str:
    route = each.route
    agent = f"{route.harness} {route.harness_version or 'of unknown version'} on {route.host}"
    return f"overnight doctor, {agent}, started by {who}; transcript SHA-256 {each.transcript}"

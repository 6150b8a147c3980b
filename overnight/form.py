"""The parameter forms of the Prefect pages, turned into what a batch file would say."""

from __future__ import annotations

import re

from overnight.failures import BadInput
from overnight.lockfile import ProviderLock, suggest
from overnight.route import Route

PARAMETERS = "parameters"
"""What messages call the form, as they call a file by its path."""

REPO_SHAPE = r"^(?!\w+://[^/@]*:[^/@]*@)(?!https?://[^/]*@)"
"""For a form's schema: no URL with credentials, which would already stand in Prefect's database when we refuse it."""

_BETWEEN = " / "
_STANDS_IN = ("scripted", "rehearsal")  # what needs no account comes last in a list of choices


def choices(lock: ProviderLock) -> list[str]:
    """Every `harness / provider / model` that the lock can start, by provider; the rehearsal's last.

    A provider whose address is still the user's to set cannot be started.
    """
    found = [
        (provider, harness, model)
        for provider, entry in lock.providers.items()
        for harness, wiring in entry.harnesses.items()
        if not entry.endpoints[wiring.endpoint].is_yours
        for model in entry.models
    ]
    found.sort(key=lambda route: (any(part.startswith(_STANDS_IN) for part in route[:2]), route))
    return [_BETWEEN.join((harness, provider, model)) for provider, harness, model in found]


def chosen(choice: str, lock: ProviderLock, field: str) -> dict[str, str]:
    """The parts of a choice, as a batch file's `route` names them.

    Raises:
        BadInput: it is none of `choices(lock)`.
    """
    known = choices(lock)
    if choice not in known:
        raise BadInput(PARAMETERS, field, f"the lock has no route {choice!r}", suggest(choice, known))
    return dict(zip(("harness", "provider", "model"), choice.split(_BETWEEN), strict=True))


def choice_of(route: Route) -> str:
    """The choice that a form would show for a route."""
    return _BETWEEN.join((route.harness, route.provider, route.model))


def name_from(instruction: str) -> str:
    """A task's id from its first words, when nobody gave one."""
    words = re.findall(r"[a-z0-9]+", instruction.lower())[:6]
    return "-".join(words)[:40].strip("-") or "task"

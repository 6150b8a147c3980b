"""Finds a provider's key at the last moment before it is used, and tells what is saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from prefect.client.schemas.objects import BlockDocument
from pydantic import ValidationError

from blocks import saved
from blocks.provider_credentials import SLUG, ProviderCredentials, today
from overnight import keyshape, layers, lockfile
from overnight.failures import BadInput, Evidence, FailureError, FailureKind, fail


@dataclass(frozen=True)
class SavedKey:
    """A saved key, without any part of it. `flaw` is why a run would refuse it; `notes` decide nothing."""

    provider: str
    saved_at: datetime | None
    expires_on: date | None
    flaw: BadInput | None
    notes: tuple[str, ...]


def reveal(provider: str, environ: Mapping[str, str]) -> str:
    """The key of a provider: from the block saved under the provider's name, else from the environment.

    A stored key that cannot be one is refused, never passed over for the next
    place. Blocks; call it from a thread where an event loop runs.

    Args:
        provider: Name in the lock.
        environ: The controller's own environment.

    Raises:
        FailureError: KEY_MISSING, with the places that were looked at.
        BadInput: a place holds something that is no key for this provider, or
            one that has expired; names the place and the mend.
    """
    document = saved.document(SLUG, provider)
    if document is not None:
        return _read(document).key.get_secret_value()
    name = keyshape.variable(provider)
    key = environ.get(name)
    if key is None:
        looked = Evidence(source="keys", seen=f"no block {SLUG}/{provider} is saved, and {name} is not set")
        raise FailureError(fail(FailureKind.KEY_MISSING, looked, names={"provider": provider}))
    found = keyshape.flaw(key)
    if found:
        raise BadInput("environment", name, found.problem, found.mend)
    return key


def expiry_note(provider: str) -> str | None:
    """A sentence when the saved key of this provider ends within a week, or has ended; else None. Blocks.

    The end is what the operator wrote when saving; nobody asks the provider.
    """
    document = saved.document(SLUG, provider)
    return None if document is None else keyshape.reminder(provider, _expires_on(document), today())


def saved_keys() -> list[SavedKey]:
    """All that is saved, by name, also what a run would refuse. Blocks on the network."""
    lock = layers.in_use(None, os.environ)
    return [_listed(document, lock) for document in saved.documents(SLUG)]


def _listed(document: BlockDocument, lock: lockfile.ProviderLock) -> SavedKey:
    provider, ends = str(document.name), _expires_on(document)
    notes = [keyshape.reminder(provider, ends, today())]
    flaw: BadInput | None = None
    try:
        key = _read(document).key.get_secret_value()
        notes.append(keyshape.doubt(key, lock.providers[provider].key))
    except BadInput as error:
        flaw = error
    return SavedKey(provider, document.updated, ends, flaw, tuple(note for note in notes if note))


def _expires_on(document: BlockDocument) -> date | None:
    """The date alone, of a block that may hold anything else."""
    given = document.data.get("expires_on")
    try:
        return date.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        return None


def _read(document: BlockDocument) -> ProviderCredentials:
    """The saved block, checked. The REST API and so the UI accept any data, hence the check on reading."""
    provider, where = str(document.name), f"block {SLUG}/{document.name}"
    try:
        block = ProviderCredentials.model_validate(document.data)
    except BadInput as error:
        raise BadInput(where, error.field, error.problem, error.mend) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "data"
        # from None: the error keeps its input, which holds the key
        raise BadInput(where, field, first["msg"], f"Save it again: overnight credentials add {provider}") from None
    if block.provider != provider:
        problem = f"holds a key for {block.provider!r}"
        raise BadInput(where, "provider", problem, f"Save it as {SLUG}/{block.provider}")
    return block

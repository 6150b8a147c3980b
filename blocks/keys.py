"""Finds a provider's key at the last moment before it is used."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from blocks.provider_credentials import SLUG, ProviderCredentials
from overnight import keyshape
from overnight.failures import BadInput, Evidence, FailureError, FailureKind, fail


def reveal(provider: str, environ: Mapping[str, str]) -> str:
    """The key of a provider: from the block saved under the provider's name, else from the environment.

    A stored key that cannot be one is refused, never passed over for the next
    place. Blocks; call it from a thread where an event loop runs.

    Args:
        provider: Name in the lock.
        environ: The controller's own environment.

    Raises:
        FailureError: KEY_MISSING, with the places that were looked at.
        BadInput: a place holds something that is no key for this provider; names the place and the mend.
    """
    block = _block(provider)
    if block is not None:
        return block.key.get_secret_value()
    name = keyshape.variable(provider)
    key = environ.get(name)
    if key is None:
        looked = Evidence(source="keys", seen=f"no block {SLUG}/{provider} is saved, and {name} is not set")
        raise FailureError(fail(FailureKind.KEY_MISSING, looked, names={"provider": provider}))
    found = keyshape.flaw(key)
    if found:
        raise BadInput("environment", name, found.problem, found.mend)
    return key


def _block(provider: str) -> ProviderCredentials | None:
    """The saved block, checked. The REST API and so the UI accept any data, hence the check on reading."""
    # not Block.load: in a thread that inherits the context of an async flow it returns a coroutine (prefect 3.8.8)
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(provider, SLUG)
        except ObjectNotFound:
            return None
    where = f"block {SLUG}/{provider}"
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

"""Reads and removes saved blocks of a type as they lie in the Prefect API, checked by nobody.

Not by Block.load: in a thread that inherits the context of an async flow it
returns a coroutine (prefect 3.8.8).
"""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from overnight.failures import BadInput
from overnight.lockfile import suggest

_PAGE = 200  # more than that the API gives in no answer


def document(slug: str, name: str) -> BlockDocument | None:
    """What is saved under this name, secrets in clear; None where nothing is. Blocks on the network."""
    with get_client(sync_client=True) as client:
        return _read(client, slug, name)


def documents(slug: str) -> list[BlockDocument]:
    """Everything saved of this type by name, secrets in clear; nothing where the type was never registered."""
    found: list[BlockDocument] = []
    with get_client(sync_client=True) as client:
        while True:
            try:
                page = client.read_block_documents_by_type(slug, offset=len(found), limit=_PAGE)
            except PrefectHTTPStatusError as error:
                if error.response.status_code == 404:
                    return []
                raise
            found += page
            if len(page) < _PAGE:
                return sorted((each for each in found if each.name), key=lambda each: str(each.name))


def names(slug: str) -> list[str]:
    """Names under which something of this type is saved."""
    return [str(each.name) for each in documents(slug)]


def missing(slug: str, name: str, where: str, field: str) -> BadInput:
    """What to raise when nothing of this name is saved; offers the nearest names."""
    return BadInput(where, field, f"no block {slug}/{name} is saved", suggest(name, names(slug)))


def remove(slug: str, name: str) -> bool:
    """Whether it was there. What names it, as a batch file may, is not asked."""
    with get_client(sync_client=True) as client:
        found = _read(client, slug, name)
        if found is None:
            return False
        client.delete_block_document(found.id)
        return True


def _read(client: SyncPrefectClient, slug: str, name: str) -> BlockDocument | None:
    try:
        return client.read_block_document_by_name(name, slug)
    except ObjectNotFound:
        return None

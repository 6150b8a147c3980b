"""Fills in the hosts that a batch file names by block."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from pydantic import ValidationError

from blocks.ssh_host import SSHHost
from overnight.failures import BadInput
from overnight.lockfile import suggest
from overnight.spec import HostSpec

SLUG = SSHHost.get_block_type_slug()


def load_hosts(hosts: Mapping[str, HostSpec], source: str) -> dict[str, HostSpec]:
    """The same hosts, each `block: NAME` replaced by what is saved under that name. Blocks on the network.

    What the batch file says beside `block` wins over the block for `slots` and `path`.

    Raises:
        BadInput: no such block, or what is saved there is no host; names the block and the mend.
    """
    return {name: _load(name, host, source) if host.block else host for name, host in hosts.items()}


def _load(name: str, host: HostSpec, source: str) -> HostSpec:
    block = str(host.block)
    # as in blocks.keys: Block.load returns a coroutine in some threads (prefect 3.8.8)
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(block, SLUG)
        except ObjectNotFound:
            known = _saved(client)
            problem = f"no block {SLUG}/{block} is saved"
            raise BadInput(source, f"hosts.{name}.block", problem, suggest(block, known)) from None
    try:
        saved = SSHHost.model_validate(document.data).spec()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "data"
        raise BadInput(f"block {SLUG}/{block}", field, first["msg"], "Save the block again") from error
    return saved.model_copy(update=host.model_dump(include={"slots", "path"} & host.model_fields_set))


def _saved(client: SyncPrefectClient) -> list[str]:
    """Names of the saved hosts; none where the block type was never registered."""
    try:
        return [document.name for document in client.read_block_documents_by_type(SLUG) if document.name]
    except PrefectHTTPStatusError:
        return []

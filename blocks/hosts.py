"""Saved hosts: fills in those a batch file names by block, and reads them back for lists and checks."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.client.schemas.objects import BlockDocument
from pydantic import ValidationError

from blocks import saved
from blocks.ssh_host import SLUG, SSHHost
from overnight.failures import BadInput
from overnight.spec import HostSpec


def load_hosts(hosts: Mapping[str, HostSpec], source: str) -> dict[str, HostSpec]:
    """The same hosts, each `block: NAME` replaced by what is saved under that name. Blocks on the network.

    What the batch file says beside `block` wins over the block for `slots`, `path` and `min_free_bytes`.

    Raises:
        BadInput: no such block, or what is saved there is no host; names the block and the mend.
    """
    return {name: _load(name, host, source) if host.block else host for name, host in hosts.items()}


def read_host(document: BlockDocument) -> HostSpec:
    """The host in a saved block. The REST API and so the UI accept any data, hence the check on reading.

    Raises:
        BadInput: what is saved there is no host; names the block and the mend.
    """
    try:
        return SSHHost.model_validate(document.data).spec()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "data"
        raise BadInput(f"block {SLUG}/{document.name}", field, first["msg"], "Save the block again") from error


def _load(name: str, host: HostSpec, source: str) -> HostSpec:
    block = str(host.block)
    document = saved.document(SLUG, block)
    if document is None:
        raise saved.missing(SLUG, block, source, f"hosts.{name}.block")
    return read_host(document).model_copy(
        update=host.model_dump(include={"slots", "path", "min_free_bytes"} & host.model_fields_set)
    )

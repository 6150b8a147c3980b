"""Makes our block types known to a Prefect API."""

from __future__ import annotations

import asyncio

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from blocks.provider_credentials import ProviderCredentials
from blocks.ssh_host import SSHHost

BLOCKS = (ProviderCredentials, SSHHost)


def register() -> list[str]:
    """Register or refresh our block types on the configured API; one line for each.

    Idempotent; saved blocks are kept. Not callable from a running event loop.
    """
    return asyncio.run(_register())


async def _register() -> list[str]:
    done: list[str] = []
    async with get_client() as client:
        for block in BLOCKS:
            slug = block.get_block_type_slug()
            try:
                await client.read_block_type_by_slug(slug)
                did = "refreshed"
            except ObjectNotFound:
                did = "registered"
            await block.aregister_type_and_schema(client=client)
            done.append(f"{did} block type {slug}")
    return done

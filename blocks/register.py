"""Makes our block types known to a Prefect API."""

from __future__ import annotations

import asyncio

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import HttpUrl

from blocks.forge_credentials import ForgeCredentials
from blocks.provider_credentials import ProviderCredentials
from blocks.ssh_host import SSHHost

BLOCKS = (ProviderCredentials, SSHHost, ForgeCredentials)


def register() -> list[str]:
    """Register or refresh our block types on the configured API; one line for each.

    Idempotent; saved blocks are kept. Not callable from a running event loop.
    """
    return asyncio.run(_register())


def _logo(api_url: str) -> HttpUrl | None:
    """The picture that every self-hosted server carries itself, so it shows without the internet; None elsewhere.

    A data: URL would be kept by the server, and break every client that reads
    the block type (prefect 3.8.8).
    """
    server, found, rest = api_url.rstrip("/").rpartition("/api")
    return HttpUrl(f"{server}/ico/android-chrome-192x192.png") if found and not rest else None


async def _register() -> list[str]:
    done: list[str] = []
    async with get_client() as client:
        for block in BLOCKS:
            slug = block.get_block_type_slug()
            block._logo_url = _logo(str(client.api_url))
            try:
                await client.read_block_type_by_slug(slug)
                did = "refreshed"
            except ObjectNotFound:
                did = "registered"
            await block.aregister_type_and_schema(client=client)
            done.append(f"{did} block type {slug}")
    return done

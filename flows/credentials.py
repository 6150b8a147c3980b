"""Saving a provider's key from the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from blocks.provider_credentials import SLUG, ProviderCredentials
from flows.prepare import state_directory
from flows.progress import Progress
from flows.run_batch import prefect_api
from overnight import keyshape, lockfile


def save_key(provider: str, key: str, state: Path | None, environ: Mapping[str, str]) -> str:
    """Check and save; returns what to say. An older key of the provider is replaced.

    Raises:
        BadInput: unknown provider, or a key that cannot be one. The key is in no message.
    """
    block = ProviderCredentials(provider=provider, key=SecretStr(key))
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        block.save(provider, overwrite=True)
    unlike = keyshape.doubt(key, lockfile.load().providers[provider].key)
    return f"Saved as Prefect block {SLUG}/{provider}" + (f"\nnote: {unlike}" if unlike else "")

"""What an operator saves. `prefect block register -m blocks` finds the block types here."""

from __future__ import annotations

from blocks.forge_credentials import ForgeCredentials
from blocks.provider_credentials import ProviderCredentials
from blocks.ssh_host import SSHHost

__all__ = ["ForgeCredentials", "ProviderCredentials", "SSHHost"]

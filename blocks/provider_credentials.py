"""A provider's key, as an operator saves it."""

from __future__ import annotations

from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator

from overnight import keyshape, lockfile
from overnight.failures import BadInput

SLUG = "provider-credentials"


class ProviderCredentials(Block):
    """A key for a provider that the lock names.

    Save it under the provider's name. Which variable and which header carry
    the key is the lock's business.

    Raises:
        BadInput: the lock does not know the provider, or the key cannot be
            one. Not a ValidationError, because that one carries its input.
    """

    # hide_input_in_errors: what pydantic itself refuses (a missing field, a wrong type) must not show the key either
    # frozen: a block that was checked cannot be changed before it is saved
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True, frozen=True)

    _block_type_name: ClassVar[str | None] = "Provider Credentials"
    _block_type_slug: ClassVar[str | None] = SLUG
    _description: ClassVar[str | None] = "A key for a model provider. Save it under the provider's name in the lock."

    provider: str = Field(
        description="The provider's name in providers.lock.json, e.g. zai", json_schema_extra={"position": 0}
    )
    key: SecretStr = Field(
        description="The key alone: no quotes, no 'Bearer ', no spaces", json_schema_extra={"position": 1}
    )

    @field_validator("provider")
    @classmethod
    def _known(cls, provider: str) -> str:
        lockfile.load().provider(provider, where=f"block {SLUG}", field="provider")
        return provider

    @field_validator("key")
    @classmethod
    def _usable(cls, key: SecretStr) -> SecretStr:
        found = keyshape.flaw(key.get_secret_value())
        if found:
            raise BadInput(f"block {SLUG}", "key", found.problem, found.mend)
        return key

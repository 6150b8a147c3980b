"""A provider's key, as an operator saves it."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from overnight import keyshape, layers, lockfile
from overnight.failures import BadInput
from overnight.keycheck import KeyCheck, check_key, key_question

SLUG = "provider-credentials"


class ProviderCredentials(Block):
    """A key for a provider that the lock names.

    Save it under the provider's name. Which variable and which header carry
    the key is the lock's business.

    Raises:
        BadInput: the lock does not know the provider, or the key cannot be
            one or has expired. Not a ValidationError, because that one carries its input.
    """

    # hide_input_in_errors: what pydantic itself refuses (a missing field, a wrong type) must not show the key either
    # frozen: a block that was checked cannot be changed before it is saved
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True, frozen=True)

    _block_type_name: ClassVar[str | None] = "Provider Credentials"
    _block_type_slug: ClassVar[str | None] = SLUG
    # logo and documentation link: see ssh_host.py
    _description: ClassVar[str | None] = (
        "A key for a model provider. Save it under the provider's own name, as providers.lock.json has it (zai, "
        "deepseek ...): runs look for it there. The key is stored encrypted and travels to a host only with a run. "
        "Save it from a terminal with `overnight credentials add PROVIDER`, try it with "
        "`overnight credentials check PROVIDER`, replace it with `overnight credentials rotate PROVIDER`."
    )
    _code_example: ClassVar[str | None] = """\
        ```python
        import getpass

        from blocks import ProviderCredentials

        key = ProviderCredentials(provider="zai", key=getpass.getpass())
        key.save("zai")

        found = ProviderCredentials.load("zai").check()  # one real call
        print("ok" if found.ok else found.evidence)
        ```"""

    provider: str = Field(
        description="The provider's name in providers.lock.json, e.g. zai", json_schema_extra={"position": 0}
    )
    key: SecretStr = Field(
        description="The key alone: no quotes, no 'Bearer ', no spaces", json_schema_extra={"position": 1}
    )
    expires_on: date | None = Field(
        None,
        description="Last day of this key, where the provider ends it; overnight reminds a week ahead",
        json_schema_extra={"position": 2},
    )

    @field_validator("provider")
    @classmethod
    def _known(cls, provider: str) -> str:
        _lock().provider(provider, where=f"block {SLUG}", field="provider")
        return provider

    @field_validator("key")
    @classmethod
    def _usable(cls, key: SecretStr) -> SecretStr:
        found = keyshape.flaw(key.get_secret_value())
        if found:
            raise BadInput(f"block {SLUG}", "key", found.problem, found.mend)
        return key

    @field_validator("expires_on", mode="before")
    @classmethod
    def _left_empty(cls, given: object) -> object:
        """A form sends an empty text for a date that was not filled in."""
        return None if given == "" else given

    @model_validator(mode="after")
    def _still_good(self) -> ProviderCredentials:
        found = keyshape.expired(self.provider, self.expires_on, today())
        if found:
            raise BadInput(f"block {SLUG}", "expires_on", found.problem, found.mend)
        return self

    def check(self, model: str | None = None, harness: str | None = None, lock: Path | None = None) -> KeyCheck:
        """Ask the provider, by one real call as runs make it, whether it lets this key in. Blocks, up to 30 s.

        Args:
            model: Model id in the lock; default the provider's first one.
            harness: Whose header to send; default the provider's first one.
            lock: Default as for a batch: what OVERNIGHT_LOCK names, else the project's own.

        Raises:
            BadInput: the lock has no such model or harness for this provider.
        """
        return check_key(
            key_question(_lock(lock), self.provider, model=model, harness=harness), self.key.get_secret_value()
        )


def today() -> date:
    return datetime.now(UTC).date()


def _lock(given: Path | None = None) -> lockfile.ProviderLock:
    return layers.in_use(given, os.environ)

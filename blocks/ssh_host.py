"""A machine that carries runs, as an operator saves it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, field_validator

from overnight.spec import HostSpec, pin

SLUG = "ssh-host"


class SSHHost(Block):
    """An SSH host for agent runs. A batch file names it with `block: NAME`."""

    # frozen: a block that was checked cannot be changed before it is saved
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    _block_type_name: ClassVar[str | None] = "SSH Host"
    _block_type_slug: ClassVar[str | None] = SLUG
    # the logo is set by blocks.register; no documentation link, for prefect 3.8.8 takes http addresses alone and the
    # README has none: the description says what it would
    _description: ClassVar[str | None] = (
        "A machine that carries agent runs, reached over SSH as one user with a private key and a pinned host key. "
        "It needs git and Python 3.8 or newer, and keeps no provider's key. Save it from a terminal with "
        "`overnight hosts add NAME USER@ADDRESS`, which shows the host key's fingerprint before it pins it; "
        "`overnight hosts check NAME` tells what was found there. "
        "A batch file names it as `hosts: {box: {block: NAME}}`."
    )
    _code_example: ClassVar[str | None] = """\
        ```python
        from blocks import SSHHost

        box = SSHHost(
            address="10.0.0.5",
            user="dev",
            key_file="~/.ssh/id_ed25519",
            host_key="ssh-ed25519 AAAA...",  # as `ssh-keyscan -t ed25519 10.0.0.5` prints it; compare its fingerprint
            slots=4,
        )
        box.save("box")
        ```"""

    address: str = Field(
        pattern=r"^[^\s@/]+$",
        description="Name or IP address, without user@ and without ssh://",
        json_schema_extra={"position": 0},
    )
    port: int = Field(22, ge=1, le=65535, description="Port of the host's sshd", json_schema_extra={"position": 1})
    user: str = Field(min_length=1, description="Account the agents run under", json_schema_extra={"position": 2})
    key_file: str = Field(
        min_length=1,
        description="Private key on the machine that runs the batch, without a passphrase, e.g. ~/.ssh/id_ed25519",
        json_schema_extra={"position": 3},
    )
    host_key: str = Field(
        description="The host's own public key, pinned: 'ssh-ed25519 AAAA...', as `ssh-keyscan` prints it",
        json_schema_extra={"position": 4},
    )
    slots: int = Field(4, ge=1, le=500, description="Runs at the same time", json_schema_extra={"position": 5})
    path: list[str] = Field(
        [], description="Folders searched for agents before the usual ones", json_schema_extra={"position": 6}
    )
    python: str = Field(
        "python3", min_length=1, description="Python 3.8 or newer on the host", json_schema_extra={"position": 7}
    )
    directory: str = Field(
        ".overnight",
        min_length=1,
        description="Folder for runs on the host, relative to the user's home",
        json_schema_extra={"position": 8},
    )
    min_free_bytes: int = Field(
        1_000_000_000,
        ge=0,
        description="With less free on the host's disk no run is begun there",
        json_schema_extra={"position": 9},
    )

    @field_validator("host_key")
    @classmethod
    def _type_and_key(cls, line: str) -> str:
        """Type and key alone; a host name before it or a comment after it is dropped."""
        return pin(line)

    @property
    def saved_as(self) -> str:
        """The block's name; one made of the address for a host that was never saved."""
        return self._block_document_name or re.sub(r"[^a-z0-9]+", "-", self.address.lower()).strip("-")

    def described(self) -> dict[str, Any]:
        """The same host as a batch file would hold it."""
        return self.spec().model_dump(mode="json", exclude_defaults=True)

    def spec(self) -> HostSpec:
        """The same host as a batch file would give it: a `~` in `key_file` is the home of this machine's user."""
        return HostSpec(
            address=self.address,
            port=self.port,
            user=self.user,
            key_file=Path(self.key_file).expanduser(),
            host_key=self.host_key,
            slots=self.slots,
            path=tuple(self.path),
            python=self.python,
            directory=self.directory,
            min_free_bytes=self.min_free_bytes,
        )

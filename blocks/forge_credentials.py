"""A token for GitHub or GitLab, as an operator saves it."""

from __future__ import annotations

from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, ValidationError, field_validator

from blocks import saved
from overnight import keyshape
from overnight.failures import BadInput
from overnight.forge import PUBLIC, Forge, Kind

SLUG = "forge-credentials"


class ForgeCredentials(Block):
    """A token that may push branches and open pull requests. A task names it with `deliver: {forge: NAME}`.

    Raises:
        BadInput: the token cannot be one. Not a ValidationError, because that one carries its input.
    """

    # see provider_credentials.py
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True, frozen=True)

    _block_type_name: ClassVar[str | None] = "Forge Credentials"
    _block_type_slug: ClassVar[str | None] = SLUG
    _description: ClassVar[str | None] = (
        "A token for GitHub or GitLab, public or one's own, with which overnight pushes the branches of tasks that "
        "succeeded and opens pull requests. It is stored encrypted, and goes to that forge alone, never to a host. "
        "GitHub: a fine-grained token, Contents and Pull requests, read and write. GitLab: a project token with api. "
        "A batch file names it as `deliver: {how: pull_request, forge: NAME}`."
    )
    _code_example: ClassVar[str | None] = """\
        ```python
        import getpass

        from blocks import ForgeCredentials

        ForgeCredentials(kind="github", token=getpass.getpass()).save("work")
        ```"""

    kind: Kind = Field(description="github or gitlab", json_schema_extra={"position": 0})
    token: SecretStr = Field(description="The token alone", json_schema_extra={"position": 1})
    api_url: str = Field(
        "",
        pattern=r"^(https://[^/@\s]+(/[^@\s]*)?|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^@\s]*)?)?$",
        description="Address of its API: https://HOST/api/v3 of GitHub Enterprise, https://HOST/api/v4 of your own "
        "GitLab; empty for the public one",
        json_schema_extra={"position": 2},
    )

    @field_validator("token")
    @classmethod
    def _usable(cls, token: SecretStr) -> SecretStr:
        found = keyshape.flaw(token.get_secret_value())
        if found:
            raise BadInput(f"block {SLUG}", "token", found.problem, found.mend)
        return token

    def forge(self, name: str) -> Forge:
        """The same as `overnight` uses it."""
        return Forge(name, self.kind, (self.api_url or PUBLIC[self.kind]).rstrip("/"), self.token.get_secret_value())


def made(kind: Kind, token: SecretStr, api_url: str) -> ForgeCredentials:
    """A block of what was typed.

    Raises:
        BadInput: the address or the token cannot be used. Never shows the token.
    """
    try:
        return ForgeCredentials(kind=kind, token=token, api_url=api_url)
    except ValidationError:
        mend = "Write https://HOST/api/v3 for GitHub Enterprise, https://HOST/api/v4 for your own GitLab"
        raise BadInput(f"block {SLUG}", "api_url", "is no https address without credentials", mend) from None


def load_forge(name: str, source: str, field: str) -> Forge:
    """What is saved under this name. Blocks on the network.

    Raises:
        BadInput: nothing is, or it cannot be used; names the block and the mend.
    """
    document = saved.document(SLUG, name)
    if document is None:
        raise saved.missing(SLUG, name, source, field)
    try:
        return ForgeCredentials.model_validate(document.data).forge(name)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"]) or "data"
        raise BadInput(f"block {SLUG}/{name}", at, first["msg"], "Save the block again") from None

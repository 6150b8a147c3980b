"""The token of a forge: kept, never shown, and given to that forge alone."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from blocks.forge_credentials import SLUG, ForgeCredentials, load_forge
from overnight.failures import BadInput
from tests.overnight.forges import TOKEN


def test_it_is_the_public_one_unless_told_otherwise() -> None:
    forge = ForgeCredentials(kind="gitlab", token=SecretStr(TOKEN)).forge("work")
    assert (forge.block, forge.api_url, forge.token) == ("work", "https://gitlab.com/api/v4", TOKEN)
    own = ForgeCredentials(kind="github", token=SecretStr(TOKEN), api_url="https://ghe.example/api/v3/")
    assert own.forge("work").api_url == "https://ghe.example/api/v3"


def test_the_token_is_never_printed() -> None:
    block = ForgeCredentials(kind="github", token=SecretStr(TOKEN))
    assert TOKEN not in f"{block} {block!r} {block.model_dump()} {block.model_dump_json()}"


@pytest.mark.parametrize("url", ["http://forge.example/api", "https://me:tok@host/api", "ftp://x", "https://host/a b"])
def test_a_token_travels_by_tls_or_not_at_all(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ForgeCredentials(kind="github", token=SecretStr(TOKEN), api_url=url)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f"Bearer {TOKEN}"])
def test_what_cannot_be_a_token_is_refused_unseen(token: str) -> None:
    with pytest.raises(BadInput) as refused:
        ForgeCredentials(kind="github", token=SecretStr(token))
    assert TOKEN not in str(refused.value)


@pytest.mark.full
@pytest.mark.usefixtures("prefect_api")
def test_it_is_saved_encrypted_and_read_back() -> None:
    ForgeCredentials(kind="github", token=SecretStr(TOKEN)).save("work", overwrite=True)
    assert load_forge("work", "t.yaml", "deliver.forge").token == TOKEN
    with pytest.raises(BadInput, match=f"no block {SLUG}/elsewhere"):
        load_forge("elsewhere", "t.yaml", "deliver.forge")

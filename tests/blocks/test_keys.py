import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate
from pydantic import SecretStr

from blocks.keys import SavedKey, expiry_note, reveal, saved_keys
from blocks.provider_credentials import SLUG, ProviderCredentials, today
from blocks.saved import document, remove
from overnight.failures import BadInput, FailureError, FailureKind
from overnight.keyshape import variable

KEY = "0123abcd.Zx9SECRET"
OTHER = "4567efgh.Yw8SECRET"


def save(name: str, data: dict[str, Any]) -> None:
    """Store what the REST API takes, and so the UI: anything. What was there before goes."""
    remove(SLUG, name)
    ProviderCredentials.register_type_and_schema()
    with get_client(sync_client=True) as client:
        block_type = client.read_block_type_by_slug("provider-credentials")
        (schema,) = [s for s in client.read_block_schemas() if s.block_type_id == block_type.id]
        client.create_block_document(
            BlockDocumentCreate(name=name, data=data, block_type_id=block_type.id, block_schema_id=schema.id)
        )


def test_variable_of_a_provider() -> None:
    assert variable("zai") == "OVERNIGHT_KEY_ZAI"
    assert variable("moonshot-cn") == "OVERNIGHT_KEY_MOONSHOT_CN"


@pytest.mark.full
@pytest.mark.usefixtures("prefect_api")
class TestReveal:
    def test_prefers_the_block(self) -> None:
        ProviderCredentials(provider="zai", key=SecretStr(KEY)).save("zai", overwrite=True)
        assert reveal("zai", {"OVERNIGHT_KEY_ZAI": OTHER}) == KEY

    def test_takes_the_variable_where_there_is_no_block(self) -> None:
        assert reveal("deepseek", {"OVERNIGHT_KEY_DEEPSEEK": OTHER}) == OTHER

    def test_says_where_it_looked_in_vain(self) -> None:
        with pytest.raises(FailureError) as caught:
            reveal("minimax-cn", {"OVERNIGHT_KEY_MINIMAX": OTHER})
        failure = caught.value.failure
        assert failure.kind is FailureKind.KEY_MISSING
        (looked,) = failure.evidence
        assert (
            looked.seen == "no block provider-credentials/minimax-cn is saved, and OVERNIGHT_KEY_MINIMAX_CN is not set"
        )
        assert failure.remedy.startswith("store one: overnight credentials add minimax-cn;")

    @pytest.mark.parametrize("key", ["", f"{OTHER}\n", f"Bearer {OTHER}"])
    def test_refuses_a_variable_that_is_no_key(self, key: str) -> None:
        with pytest.raises(BadInput) as caught:
            reveal("deepseek", {"OVERNIGHT_KEY_DEEPSEEK": key})
        assert (caught.value.where, caught.value.field) == ("environment", "OVERNIGHT_KEY_DEEPSEEK")
        assert "SECRET" not in f"{caught.value} {caught.value!r}"

    @pytest.mark.parametrize(
        ("name", "data", "field", "problem"),
        [
            ("anthropic", {"provider": "anthropic", "key": f"{KEY}\n"}, "key", "whitespace before or after"),
            ("zhipu", {"provider": "zhip", "key": KEY}, "provider", "unknown provider 'zhip'"),
            ("openrouter", {"provider": "openrouter"}, "key", "Field required"),
            ("minimax", {"provider": "minimax", "key": {"is": KEY}}, "key", "valid string"),
            ("moonshot", {"provider": "zai", "key": KEY}, "provider", "holds a key for 'zai'"),
            ("deepseek", {"provider": "deepseek", "key": KEY, "expires_on": "2020-02-29"}, "expires_on", "expired on"),
            ("deepseek", {"provider": "deepseek", "key": KEY, "expires_on": "soon"}, "expires_on", "valid date"),
        ],
    )
    def test_refuses_a_block_that_holds_no_key_for_the_provider(
        self, name: str, data: dict[str, Any], field: str, problem: str
    ) -> None:
        save(name, data)
        with pytest.raises(BadInput) as caught:
            reveal(name, {variable(name): OTHER})
        assert (caught.value.where, caught.value.field) == (f"block provider-credentials/{name}", field)
        assert problem in caught.value.problem
        assert caught.value.mend
        assert "SECRET" not in f"{caught.value} {caught.value!r}"

    # prefect 3.8.8 leaves a client of its own open after every flow, an empty one too
    @pytest.mark.filterwarnings(r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning")
    def test_answers_in_a_thread_of_an_async_flow(self) -> None:
        ProviderCredentials(provider="zai", key=SecretStr(KEY)).save("zai", overwrite=True)

        @flow
        async def night() -> tuple[str, str]:
            with ThreadPoolExecutor(1) as pool:
                plain = await asyncio.get_running_loop().run_in_executor(pool, reveal, "zai", {})
            return await asyncio.to_thread(reveal, "zai", {}), plain

        assert asyncio.run(night()) == (KEY, KEY)
        gc.collect()


@pytest.mark.full
@pytest.mark.usefixtures("prefect_api")
class TestSaved:
    @pytest.fixture(autouse=True)
    def _nothing_else(self) -> None:
        for key in saved_keys():
            remove(SLUG, key.provider)

    def test_lists_what_runs_can_use_and_what_they_refuse(self) -> None:
        ProviderCredentials(provider="anthropic", key=SecretStr(KEY), expires_on=today()).save("anthropic")
        save("zai", {"provider": "zai", "key": f"'{KEY}'", "expires_on": "soon"})
        save("nobody", {"provider": "zai", "key": KEY})
        found = {key.provider: key for key in saved_keys()}
        assert list(found) == ["anthropic", "nobody", "zai"]
        good: SavedKey = found["anthropic"]
        assert (good.expires_on, good.flaw) == (today(), None)
        assert [note.split()[0] for note in good.notes] == ["the", "known"]
        fields = [flaw.field for key in found.values() if (flaw := key.flaw) is not None]
        assert fields == ["provider", "key"]
        assert "SECRET" not in repr(found)

    def test_reminds_of_the_end_also_after_it(self) -> None:
        assert expiry_note("zai") is None
        for days, word in ((30, None), (3, "in 3 days"), (-1, "expired")):
            save("zai", {"provider": "zai", "key": KEY, "expires_on": str(today() + timedelta(days=days))})
            note = expiry_note("zai")
            assert (note is None) == (word is None)
            assert word is None or word in str(note)

    def test_removes_once(self) -> None:
        save("zai", {"provider": "zai", "key": KEY})
        assert (remove(SLUG, "zai"), remove(SLUG, "zai")) == (True, False)
        assert document(SLUG, "zai") is None

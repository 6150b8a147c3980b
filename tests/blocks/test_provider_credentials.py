from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import BlockDocument
from pydantic import SecretStr, ValidationError

from blocks.provider_credentials import ProviderCredentials, today
from overnight import lockfile
from overnight.failures import BadInput, FailureKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.nights import MODEL, make_lock

KEY = "0123abcd.Zx9SECRET"
PARTS = ("SECRET", "0123abcd", "Zx9")


def shown(error: BaseException) -> str:
    """Everything an error and those behind it can put into a log."""
    text = ""
    seen: BaseException | None = error
    while seen is not None:
        text += f"{seen} {seen!r} {vars(seen)}"
        seen = seen.__cause__ or seen.__context__
    return text


@pytest.mark.parametrize("provider", list(lockfile.load().providers))
def test_takes_a_key_for_every_provider_of_the_lock(provider: str) -> None:
    block = ProviderCredentials(provider=provider, key=SecretStr(KEY))
    assert block.key.get_secret_value() == KEY


def test_never_prints_the_key() -> None:
    block = ProviderCredentials(provider="zai", key=SecretStr(KEY))
    printed = f"{block} {block!r} {block.model_dump()} {block.model_dump_json()}"
    assert "zai" in printed
    assert not [part for part in PARTS if part in printed]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "empty"),
        (f"{KEY}\n", "whitespace before or after"),
        (f"{KEY} {KEY}", "whitespace inside"),
        (f"'{KEY}'", "quote"),
        (f"Bearer {KEY}", "Bearer"),
        (f"{KEY}\u201d", "not ASCII"),
    ],
)
@pytest.mark.parametrize("wrap", [SecretStr, str])
def test_refuses_what_cannot_be_a_key_and_never_shows_it(key: str, problem: str, wrap: Any) -> None:
    with pytest.raises(BadInput) as caught:
        ProviderCredentials(provider="zai", key=wrap(key))
    assert caught.value.field == "key"
    assert problem in caught.value.problem
    assert not [part for part in PARTS if part in shown(caught.value)]


def test_refuses_an_unknown_provider_with_a_near_one() -> None:
    with pytest.raises(BadInput, match=r"unknown provider 'z\.ai'\. Did you mean zai\?") as caught:
        ProviderCredentials(provider="z.ai", key=SecretStr(KEY))
    assert not [part for part in PARTS if part in shown(caught.value)]


@pytest.mark.parametrize(
    "data", [{"key": KEY}, {"provider": "zai", "key": [KEY]}, {"provider": {"zai": KEY}, "key": KEY}]
)
def test_what_pydantic_refuses_does_not_show_the_key_either(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        ProviderCredentials(**data)
    assert not [part for part in PARTS if part in f"{caught.value} {caught.value!r}"]


def test_a_checked_block_cannot_be_changed() -> None:
    block = ProviderCredentials(provider="zai", key=SecretStr(KEY))
    with pytest.raises(ValidationError) as caught:
        block.key = SecretStr(f"'{KEY}'")  # type: ignore[misc]  # frozen, which is what is tried
    assert not [part for part in PARTS if part in f"{caught.value} {caught.value!r}"]


def test_the_form_explains_each_field_in_order() -> None:
    fields = ProviderCredentials.model_json_schema()["properties"]
    assert sorted(fields, key=lambda name: fields[name]["position"]) == ["provider", "key", "expires_on"]
    assert all(field["description"] for field in fields.values())
    assert ProviderCredentials.get_block_type_slug() == "provider-credentials"
    assert "overnight credentials add" in str(ProviderCredentials.get_description())
    compile(str(ProviderCredentials.get_code_example()).replace("```python", "").replace("```", ""), "example", "exec")


@pytest.mark.parametrize("given", ["2999-12-31", "", None])
def test_takes_the_date_that_a_form_gives(given: str | None) -> None:
    block = ProviderCredentials.model_validate({"provider": "zai", "key": KEY, "expires_on": given})
    assert str(block.expires_on or "") == (given or "")


def test_a_key_counts_on_its_last_day_and_is_refused_after_it() -> None:
    ProviderCredentials(provider="zai", key=SecretStr(KEY), expires_on=today())
    with pytest.raises(BadInput, match=r"expires_on: the key expired on .*credentials rotate zai") as caught:
        ProviderCredentials(provider="zai", key=SecretStr(KEY), expires_on=today() - timedelta(days=1))
    assert not [part for part in PARTS if part in shown(caught.value)]


@pytest.mark.parametrize(("key", "kind"), [(KEY, None), (f"{KEY}x", FailureKind.AUTH_REJECTED)])
def test_asks_the_provider_about_itself(tmp_path: Path, key: str, kind: FailureKind | None) -> None:
    with EmulatedProvider([Site("well", KEY)]) as provider:
        lock = make_lock(tmp_path / "lock.json", provider.url("well"))
        found = ProviderCredentials(provider="rehearsal", key=SecretStr(key)).check(lock=lock)
    assert (found.ok, found.kind, found.model) == (kind is None, kind, MODEL)
    assert not [part for part in PARTS if part in repr(found)]


def test_a_lock_of_ones_own_names_its_own_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = lockfile.DEFAULT_LOCK.read_text(encoding="utf-8").replace('"zai": {', '"house": {')
    (tmp_path / "lock.json").write_text(text, encoding="utf-8")
    monkeypatch.setenv("OVERNIGHT_LOCK", str(tmp_path / "lock.json"))
    ProviderCredentials(provider="house", key=SecretStr(KEY))
    with pytest.raises(BadInput, match="unknown provider 'zai'"):
        ProviderCredentials(provider="zai", key=SecretStr(KEY))


@pytest.mark.full
@pytest.mark.usefixtures("prefect_api")
def test_saves_and_loads() -> None:
    block = ProviderCredentials(provider="moonshot-cn", key=SecretStr(KEY), expires_on=today())
    block.save("moonshot-cn")
    loaded = ProviderCredentials.load("moonshot-cn")
    assert isinstance(loaded, ProviderCredentials)
    assert (loaded.provider, loaded.key.get_secret_value()) == ("moonshot-cn", KEY)
    assert loaded.expires_on == block.expires_on
    document: BlockDocument = loaded._to_block_document()
    assert not [part for part in PARTS if part in str(document)]

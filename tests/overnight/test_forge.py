"""Pull requests at a forge on loopback: opened once, brought up to date, left alone once somebody closed them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from overnight.forge import Forge, Offer, project_of, request
from overnight.push import Refused
from tests.overnight.forges import TOKEN, FakeForge, forge

OFFER = Offer("acme/app", "overnight/b1/t", "main", "t: Add it", "2 commits")


@pytest.fixture(params=["github", "gitlab"])
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeForge]:
    with forge(request.param, tmp_path) as fake:
        yield fake


def at(fake: FakeForge, token: str = TOKEN) -> Forge:
    return Forge("work", fake.kind, fake.api_url, token)  # type: ignore[arg-type]  # one of the two


def text_of(fake: FakeForge) -> str:
    return str(fake.pulls[0]["body" if fake.kind == "github" else "description"])


def test_it_is_opened_with_what_it_should_say(fake: FakeForge) -> None:
    assert request(at(fake), OFFER) == f"{fake.url}/acme/app/pull/1"
    [made] = fake.pulls
    names = ("head", "base") if fake.kind == "github" else ("source_branch", "target_branch")
    assert [made[name] for name in names] == ["overnight/b1/t", "main"]
    assert made["title"] == "t: Add it"
    assert "2 commits" in text_of(fake)


def test_a_second_time_finds_the_same_and_keeps_what_a_person_wrote(fake: FakeForge) -> None:
    request(at(fake), OFFER)
    name = "body" if fake.kind == "github" else "description"
    fake.pulls[0][name] = f"Before.\n{text_of(fake)}\nAfter."
    fake.pulls[0]["title"] = "My title"
    assert request(at(fake), replace(OFFER, title="other", body="3 commits")) == f"{fake.url}/acme/app/pull/1"
    assert len(fake.pulls) == 1
    assert fake.pulls[0]["title"] == "My title"
    said = text_of(fake)
    assert said.startswith("Before.\n")
    assert said.endswith("\nAfter.")
    assert "3 commits" in said
    assert "2 commits" not in said


@pytest.mark.parametrize("state", ["closed", "merged"])
def test_one_that_somebody_closed_stays_closed(fake: FakeForge, state: str) -> None:
    request(at(fake), OFFER)
    fake.pulls[0]["state"] = state
    with pytest.raises(Refused) as refused:
        request(at(fake), OFFER)
    assert refused.value.went_on
    assert "/acme/app/pull/1" in refused.value.problem
    assert len(fake.pulls) == 1


def test_an_open_one_counts_before_an_older_closed_one(fake: FakeForge) -> None:
    request(at(fake), OFFER)
    fake.pulls.append({**fake.pulls[0], "number": 2, "iid": 2})
    fake.pulls[0]["state"] = "closed"
    request(at(fake), replace(OFFER, body="newer"))
    assert "newer" not in text_of(fake)


def test_without_a_base_it_is_for_the_default_branch(fake: FakeForge) -> None:
    request(at(fake), replace(OFFER, base=None))
    assert "trunk" in (fake.pulls[0].get("base"), fake.pulls[0].get("target_branch"))


def test_a_draft_is_one(fake: FakeForge) -> None:
    request(at(fake), replace(OFFER, draft=True))
    assert fake.pulls[0].get("draft") is True or fake.pulls[0]["title"] == "Draft: t: Add it"


def test_the_token_is_in_its_header_alone(fake: FakeForge) -> None:
    request(at(fake), OFFER)
    for asked in fake.asked:
        carrying = [name for name, value in asked.headers.items() if TOKEN in value]
        assert carrying == ["authorization" if fake.kind == "github" else "private-token"]
        assert TOKEN not in f"{asked.path}{asked.query}{asked.body}"


def test_a_token_that_is_not_let_in_is_named_and_never_shown(fake: FakeForge) -> None:
    with pytest.raises(Refused) as refused:
        request(at(fake, "wrong-token-123456"), OFFER)
    assert "401: Bad credentials" in refused.value.problem
    assert "forge-credentials/work" in refused.value.mend
    assert "wrong-token-123456" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, {"message": f"no {TOKEN}"}, "403: no ***"),
        (
            422,
            {"message": "Validation Failed", "errors": [{"field": "base"}]},
            "Validation Failed; [{'field': 'base'}]",
        ),
        (500, "\x1b[2J", "500"),
        (200, "no list", ""),
        (302, {}, "302"),
    ],
)
def test_what_the_forge_answers_is_told(fake: FakeForge, status: int, body: object, words: str) -> None:
    fake.answers[("POST", "pulls")] = fake.answers[("POST", "merge_requests")] = (status, body)
    with pytest.raises(Refused) as refused:
        request(at(fake), OFFER)
    assert words in refused.value.problem
    assert TOKEN not in str(refused.value)


def test_a_forge_that_is_away_is_named(fake: FakeForge) -> None:
    away = Forge("work", "github", "http://127.0.0.1:9/api", TOKEN)
    with pytest.raises(Refused) as refused:
        request(away, OFFER)
    assert "ConnectError" in refused.value.problem


@pytest.mark.parametrize(
    ("url", "project"),
    [
        ("git@github.com:acme/app.git", "acme/app"),
        ("ssh://git@host:2222/acme/app", "acme/app"),
        ("https://gitlab.example/group/sub/app.git/", "group/sub/app"),
        ("https://me@host/acme/app.js", "acme/app.js"),
        ("file:///srv/acme/app.git", None),
        ("/srv/acme/app.git", None),
        ("https://host/app", None),
    ],
)
def test_the_project_is_read_from_the_remote(url: str, project: str | None) -> None:
    assert project_of(url) == project


@pytest.mark.parametrize(
    ("api", "host"),
    [
        ("https://api.github.com", "github.com"),
        ("https://ghe.example/api/v3", "ghe.example"),
        ("https://gitlab.com/api/v4", "gitlab.com"),
    ],
)
def test_git_shows_the_token_to_the_host_of_the_pages(api: str, host: str) -> None:
    assert Forge("work", "github", api, TOKEN).login.host == host

"""What is left is asked before anything is spent, and only the provider's own word that nothing is shuts a route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.gauge import Gauge
from overnight.lockfile import Header, Provider
from overnight.quota import Left, ask_left
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import KEY, TAPES, Evening, make_lock, make_repo

K = FailureKind
LOCK = lockfile.load()
WRONG = "sk-rehearsal-fake-ffffffffffffffff"
BOTH = frozenset(Header)


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [
        Site("plan", KEY, used_percent=73),
        Site("used-up", KEY, used_percent=100),
        Site("rich", KEY, shape="moonshot"),
        Site("poor", KEY, shape="moonshot", balance=False),
        Site("poor-deepseek", KEY, shape="deepseek", balance=False),
        Site("rich-deepseek", KEY, shape="deepseek"),
        Site("poor-openrouter", KEY, shape="openrouter", balance=False),
    ]
    with EmulatedProvider(sites, TAPES) as running:
        yield running


def here(provider: EmulatedProvider, site: str, name: str) -> Provider:
    """A provider of the lock with its free calls at a site."""
    entry = LOCK.providers[name]
    at, free = provider.url(site), entry.free_probes
    moved = [each.model_copy(update={"url": at + urlsplit(each.url).path}) for each in free]
    return entry.model_copy(update={"free_probes": tuple(moved)})


def left(provider: EmulatedProvider, site: str, name: str, key: str = KEY) -> Left:
    return ask_left(here(provider, site, name), key, {"provider": name})


@pytest.mark.parametrize(
    ("site", "name", "notes"),
    [
        ("plan", "zai", ("73 % of the 5 hours' window used, resets at", "1 % of the week's window used, resets at")),
        ("rich", "moonshot", ("balance: 10.00 left",)),
        ("rich-deepseek", "deepseek", ("balance: 10.00 left",)),
    ],
)
def test_what_is_left_is_a_note(provider: EmulatedProvider, site: str, name: str, notes: tuple[str, ...]) -> None:
    found = left(provider, site, name)
    assert found.failure is None
    assert len(found.notes) == len(notes)
    assert all(note.startswith(begin) for note, begin in zip(found.notes, notes, strict=True))


@pytest.mark.parametrize(
    ("site", "name", "kind", "seen"),
    [
        ("used-up", "zai", K.QUOTA_WINDOW, "100 % of the 5 hours' window used, resets at 20"),
        ("poor", "moonshot", K.BILLING, "balance: 0.00 left"),
        ("poor-deepseek", "deepseek", K.BILLING, "is_available is false"),
        ("poor-openrouter", "openrouter", K.BILLING, "credits: 0.00 left"),
    ],
)
def test_nothing_left_is_the_providers_own_word(
    provider: EmulatedProvider, site: str, name: str, kind: FailureKind, seen: str
) -> None:
    failure = left(provider, site, name).failure
    assert failure is not None
    assert (failure.kind, failure.evidence[0].source, failure.shuts_route) == (kind, "probe", True)
    assert seen in failure.evidence[0].seen


def test_a_used_up_window_says_how_long_it_lasts(provider: EmulatedProvider) -> None:
    failure = left(provider, "used-up", "zai").failure
    assert failure is not None
    assert failure.retry_after_s == pytest.approx(2 * 3600, abs=60)


@pytest.mark.parametrize("site", ["used-up", "poor"])
def test_a_key_that_is_not_let_in_proves_nothing_of_what_is_left(provider: EmulatedProvider, site: str) -> None:
    found = left(provider, site, "zai" if site == "used-up" else "moonshot", WRONG)
    assert found.failure is None
    assert found.notes[0].startswith("what is left could not be read: ")
    assert WRONG not in repr(found)


def test_who_cannot_be_reached_proves_nothing(provider: EmulatedProvider) -> None:
    entry = here(provider, "poor", "moonshot")
    dead = tuple(each.model_copy(update={"url": "http://127.0.0.1:9/"}) for each in entry.free_probes)
    assert ask_left(entry.model_copy(update={"free_probes": dead}), KEY, {}).failure is None


@pytest.mark.full
@pytest.mark.parametrize(("site", "opens"), [("used-up", False), ("plan", True)])
def test_a_route_without_quota_is_shut_before_a_token_is_spent(
    host: tuple[LoopbackHost, HostSpec], provider: EmulatedProvider, site: str, opens: bool, tmp_path: Any
) -> None:
    make_repo(tmp_path / "repo")
    path = make_lock(tmp_path / "lock.json", provider.url(site))
    lock = json.loads(path.read_text())
    free = here(provider, site, "zai").free_probes[:1]
    lock["providers"]["rehearsal"]["free_probes"] = [each.model_dump(mode="json") for each in free]
    path.write_text(json.dumps(lock))
    evening = Evening(tmp_path, str(tmp_path / "repo"), host[1], path)
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id=f"quota-{site}") as night:
        found = night.preflight(task)
        (route,) = night.routes()
    chats = [call for call in provider.calls_of(site) if call.method == "POST"]
    assert (found.failure is None, bool(chats)) == (opens, opens)
    if opens:
        assert any("73 % of the 5 hours' window used" in note for note in route.notes)
    else:
        assert found.failure is not None
        assert (found.failure.kind, route.state) == (K.QUOTA_WINDOW, "shut")


PATHS = st.sampled_from(["a", "a.b", "c"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@given(st.sampled_from(["window", "balance"]), st.lists(PATHS, min_size=6, max_size=6), JSON)
def test_no_body_makes_a_gauge_fail(of: str, paths: list[str], body: object) -> None:
    each, percent, rest, total, used, resets = paths
    fields = {"used_percent": percent, "left": rest, "total": total, "used": used, "resets_ms": resets}
    for level in Gauge.model_validate({"of": of, "name": "x", "each": each, **fields}).read(body):
        assert str(level)


def test_a_moment_is_read_from_milliseconds() -> None:
    gauge = Gauge(of="window", name="w", used_percent="p", resets_ms="at")
    (level,) = gauge.read({"p": "12.5", "at": 1_795_960_000_000})
    assert (level.used_percent, level.resets_at) == (12.5, datetime(2026, 11, 29, 13, 46, 40, tzinfo=UTC))

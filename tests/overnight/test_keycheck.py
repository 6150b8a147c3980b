"""A key asked of an emulated provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight import lockfile
from overnight.failures import BadInput, FailureKind
from overnight.keycheck import KeyCheck, check_key, key_question
from overnight.lockfile import Header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.nights import KEY, MODEL, make_lock
from tests.sshd import free_port

SITES = [Site("well", KEY), Site("header", KEY, accepts=frozenset({Header.X_API_KEY}))]


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider(SITES) as running:
        yield running


def ask(folder: Path, url: str, key: str = KEY, *, model: str | None = None, harness: str | None = None) -> KeyCheck:
    lock = lockfile.load(make_lock(folder / "lock.json", url))
    return check_key(key_question(lock, "rehearsal", model=model, harness=harness), key)


def test_a_good_key_is_let_in_by_one_cheap_call(tmp_path: Path, provider: EmulatedProvider) -> None:
    before = len(provider.calls)
    found = ask(tmp_path, provider.url("well"))
    assert (found.ok, found.kind, found.mend) == (True, None, "")
    assert (found.model, found.sent_as) == (MODEL, "Authorization: Bearer")
    assert found.evidence
    assert len(provider.calls) == before + 1


def test_a_wrong_key_is_refused_with_what_the_provider_said(tmp_path: Path, provider: EmulatedProvider) -> None:
    found = ask(tmp_path, provider.url("well"), "fake-key-wrong-SECRET")
    assert (found.ok, found.kind) == (False, FailureKind.AUTH_REJECTED)
    assert "401" in found.evidence[0]
    assert "rehearsal" in found.mend
    assert "SECRET" not in repr(found)


def test_a_right_key_in_the_wrong_header_is_no_wrong_key(tmp_path: Path, provider: EmulatedProvider) -> None:
    found = ask(tmp_path, provider.url("header"))
    assert (found.ok, found.kind) == (False, FailureKind.WRONG_HEADER)
    assert found.evidence[0].startswith(
        "probe: provider rejects Authorization: Bearer, accepts the same key as x-api-key"
    )
    assert "in the lock" in found.mend


def test_a_provider_without_balance_says_so(tmp_path: Path) -> None:
    broke = Site("broke", KEY, fault=Fault(FaultKind.NO_BALANCE))
    with EmulatedProvider([broke]) as running:
        found = ask(tmp_path, running.url("broke"))
    assert (found.ok, found.kind) == (False, FailureKind.BILLING)


def test_nobody_there_is_our_network_and_not_a_hosts(tmp_path: Path) -> None:
    found = ask(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (found.ok, found.kind) == (False, FailureKind.NETWORK)
    assert "this machine" in found.mend


def test_another_model_and_harness_can_be_asked(tmp_path: Path, provider: EmulatedProvider) -> None:
    found = ask(tmp_path, provider.url("well"), model="rehearsal-small", harness="scripted")
    assert (found.ok, found.model) == (True, "rehearsal-small")
    assert provider.calls[-1].model == "rehearsal-small"


@pytest.mark.parametrize(
    ("choice", "field", "mend"),
    [({"model": "rehearsal-larg"}, "--model", "rehearsal-large"), ({"harness": "goos"}, "--harness", "claude-code")],
)
def test_what_the_lock_does_not_know_is_refused(tmp_path: Path, choice: dict[str, str], field: str, mend: str) -> None:
    with pytest.raises(BadInput) as caught:
        ask(tmp_path, "http://127.0.0.1:1", **choice)
    assert caught.value.field == field
    assert mend in caught.value.mend


@pytest.mark.parametrize("name", list(lockfile.load().providers))
def test_every_provider_of_the_lock_can_be_asked_once_it_is_known_where_it_is_and_what_it_serves(name: str) -> None:
    lock = lockfile.load()
    entry = lock.providers[name]
    missing = [each for each in entry.endpoints.values() if each.is_yours] or not entry.models
    if missing:
        with pytest.raises(BadInput, match=r"the address of|the lock knows no model of") as caught:
            key_question(lock, name)
        assert "overnight.lock.json" in caught.value.mend
        return
    question = key_question(lock, name)
    assert question.model in question.entry.models
    assert question.variable in question.wiring.set

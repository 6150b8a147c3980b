"""The search on a real host and an emulated provider: what it finds, what it counts, and where it stops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from overnight import lockfile
from overnight.doctor.asking import Asker, Setting
from overnight.doctor.find import MOST_CALLS, MOST_REJECTIONS
from overnight.doctor.records import Diagnosis
from overnight.doctor.visit import Visit
from overnight.failures import FailureKind
from overnight.layers import laid_over
from overnight.lockfile import Header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import KEY, MODEL, TAPES, Evening, make_lock, make_repo

K = FailureKind


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [Site("bearer", KEY), Site("x", KEY, frozenset({Header.X_API_KEY}))]
    with EmulatedProvider(sites, TAPES) as running:
        yield running


@pytest.fixture
def evening(host: tuple[LoopbackHost, HostSpec], provider: EmulatedProvider, tmp_path: Path) -> Evening:
    make_repo(tmp_path / "repo")
    lock = make_lock(tmp_path / "lock.json", provider.url("bearer"), probe_s=2)
    return Evening(tmp_path, str(tmp_path / "repo"), host[1], lock)


def changed(evening: Evening, patch: Mapping[str, Any]) -> None:
    lock = json.loads(evening.lock.read_text())
    evening.lock.write_text(json.dumps(laid_over(lock, {"providers": {"rehearsal": patch}})))


def examined(evening: Evening, *, find: bool = True, model: str = MODEL, official: str = "") -> Diagnosis:
    task = evening.task("t", "Add a greeting")
    task = task.model_copy(update={"route": task.route.model_copy(update={"model": model})})
    shipped = lockfile.load(make_lock(evening.directory / "shipped.json", official or lock_url(evening), probe_s=2))
    with evening.night(task, batch_id=evening.directory.name.replace("_", "-")) as night:
        visit = Visit(night, shipped, find=find)
        visit.look("box")
        return visit.examine(task)


def lock_url(evening: Evening) -> str:
    """Where the rehearsal is, whatever a test made of the lock."""
    url: str = json.loads(evening.lock.read_text())["providers"]["rehearsal"]["endpoints"]["anthropic"]["url"]
    return url.split("/v1")[0]


def test_an_open_route_costs_two_calls_and_is_searched_for_nothing(evening: Evening) -> None:
    found = examined(evening)
    assert found.route.failure is None
    assert (found.layer, found.mend, [call.by for call in found.calls]) == ("", None, ["here", "agent"])


def test_a_route_is_asked_in_the_protocol_of_its_endpoint(evening: Evening, provider: EmulatedProvider) -> None:
    task, before = evening.task("t", "Add a greeting", harness="codex"), len(provider.calls)
    with evening.night(task, batch_id="protocol") as night:
        asker = Asker(
            *(night.stations["box"], night.batch, "protocol", str(night.lock_path), night.harnesses, KEY),
            run_dir=night.ledger.run_dir,
            interrupted=lambda: None,
        )
        setting = Setting(night.lock, task)
        answers = [asker.direct(setting).sent.kind, asker.here(setting).kind, asker.there(setting).kind]
    assert answers == [None, None, None]
    assert [call.path for call in provider.calls[before:]] == ["/v1/responses"] * 3


def test_the_variable_that_sends_the_right_header(evening: Evening, provider: EmulatedProvider) -> None:
    make_lock(evening.lock, provider.url("bearer"), probe_s=2, wrong_variable=True)
    found = examined(evening, find=False)
    assert found.route.failure is not None
    assert (found.route.failure.kind, found.layer) == (K.WRONG_HEADER, "header")
    assert found.mend is not None
    assert found.mend.proven
    assert found.mend.patch == {
        "providers": {
            "rehearsal": {
                "harnesses": {
                    "scripted": {"set": {"OVERNIGHT_SCRIPTED_BEARER": "{key}", "OVERNIGHT_SCRIPTED_API_KEY": None}}
                }
            }
        }
    }


def test_two_faults_at_once_are_found_one_after_the_other(evening: Evening, provider: EmulatedProvider) -> None:
    make_lock(evening.lock, provider.url("bearer") + "/v1", probe_s=2, wrong_variable=True)
    found = examined(evening)
    assert found.mend is not None
    assert found.mend.proven
    assert found.mend.factor == "base URL and header"


def test_a_model_by_another_spelling_is_for_the_batch_to_mend(evening: Evening) -> None:
    known = {"provenance": {"source": "a test", "date": "2026-11-22", "confidence": "measured"}}
    changed(evening, {"models": {"Rehearsal-Large": known}})
    found = examined(evening, model="Rehearsal-Large")
    assert found.mend is not None
    assert (found.mend.factor, found.mend.route, found.mend.patch) == ("model", {"model": MODEL}, {})
    assert found.route.failure is not None
    assert found.route.failure.remedy == f"in the batch, write model: {MODEL}"


def test_a_refused_key_is_never_tried_more_than_three_times_in_the_same_way(
    evening: Evening, provider: EmulatedProvider
) -> None:
    evening.key = "sk-rehearsal-fake-another-key-000000"
    before = len(provider.calls)
    found = examined(evening)
    assert found.route.failure is not None
    assert (found.route.failure.kind, found.layer) == (K.AUTH_REJECTED, "key")
    assert found.mend is None
    asked = [call for call in provider.calls[before:] if call.status == 401]
    ways = Counter((call.path, tuple(sorted(call.keys))) for call in asked if call.keys)
    assert max(ways.values()) <= MOST_REJECTIONS
    assert sum(bool(call.varied) for call in found.calls) <= MOST_CALLS


def test_what_no_change_can_mend_is_not_searched(evening: Evening, provider: EmulatedProvider) -> None:
    provider.set_fault("bearer", Fault(FaultKind.NO_BALANCE))
    try:
        found = examined(evening, find=False)
    finally:
        provider.set_fault("bearer", None)
    assert found.route.failure is not None
    assert (found.route.failure.kind, found.layer) == (K.BILLING, "account")
    assert not any(call.varied for call in found.calls)
    assert [call.by for call in found.calls] == ["here", "agent", "host"]


def test_no_part_of_a_key_is_in_what_was_found(evening: Evening, provider: EmulatedProvider) -> None:
    make_lock(evening.lock, provider.url("bearer"), probe_s=2, wrong_variable=True)
    assert KEY not in examined(evening).model_dump_json()


def test_a_free_call_that_knows_the_key_is_not_taken_for_the_message(
    evening: Evening, provider: EmulatedProvider
) -> None:
    make_lock(evening.lock, provider.url("bearer"), probe_s=2, wrong_variable=True)
    known = {"source": "a test", "date": "2026-11-22", "confidence": "measured"}
    free = {"url": provider.url("bearer") + "/v1/models", "key_as": "bearer", "proves": ["auth"], "provenance": known}
    changed(evening, {"free_probes": [free]})
    found = examined(evening, find=False)
    assert found.mend is not None
    assert (found.layer, found.mend.factor, found.mend.proven) == ("header", "header", True)


def test_the_key_stays_with_the_server_it_is_for_unless_a_search_was_asked_for(
    evening: Evening, provider: EmulatedProvider
) -> None:
    known = {"source": "a test", "date": "2026-11-22", "confidence": "measured"}
    make_lock(evening.lock, provider.url("bearer") + "/nowhere", probe_s=2)
    with EmulatedProvider([Site("official", KEY)]) as elsewhere:
        free = {"url": elsewhere.url("official") + "/v1/models", "key_as": "bearer", "proves": ["auth"]}
        changed(evening, {"free_probes": [{**free, "provenance": known}]})
        assert examined(evening, find=False, official=elsewhere.url("official")).mend is None
        assert elsewhere.calls == []
        evening.directory = evening.directory / "again"
        evening.directory.mkdir()
        found = examined(evening, official=elsewhere.url("official"))
    assert found.mend is not None
    assert (found.mend.factor, found.mend.works, found.mend.proven) == ("base URL", elsewhere.url("official"), True)

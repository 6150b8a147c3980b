"""A user's batch on emulated providers: what changes, and what does not."""

from __future__ import annotations

import pytest

from overnight import lockfile
from overnight.harnesses import HARNESSES
from overnight.lockfile import Header, ProviderLock
from overnight.plan import Planner
from overnight.rehearsal.staged import Staged, shape_of, sites, staged
from overnight.rehearsal.troubles import Trouble, trouble
from overnight.route import Route
from overnight.spec import AUTHOR, BatchSpec, HostSpec, Limits, TaskSpec

LOCK = lockfile.load()
EVERY = [
    (harness, provider)
    for provider, entry in LOCK.providers.items()
    for harness, wiring in entry.harnesses.items()
    if harness in HARNESSES and entry.models and not entry.endpoints[wiring.endpoint].is_yours
]


def task(harness: str, provider: str, **fields: object) -> TaskSpec:
    route = Route(host="box", harness=harness, provider=provider, model=next(iter(LOCK.providers[provider].models)))
    told = {"id": f"{harness}-{provider}", "repo": "/r", "base": "main", "instruction": "Go", "field": "tasks[0]"}
    return TaskSpec.model_validate({**told, "route": route, "limits": Limits(), **fields})


def batch(*tasks: TaskSpec, **fields: object) -> BatchSpec:
    hosts = {"box": HostSpec(kind="local", directory="/srv/night")}
    told = {"name": "tonight", "source": "tonight.yaml", "author": AUTHOR, "hosts": hosts, "tasks": tasks}
    return BatchSpec.model_validate({**told, **fields})


def stage(asked: BatchSpec, what: Trouble = Trouble(), lock: ProviderLock = LOCK) -> Staged:  # noqa: B008  # frozen
    return staged(asked, lock, what, lambda name: f"http://127.0.0.1:9/{name}", "ab12cd")


def test_its_lock_knows_no_real_address() -> None:
    tasks = [task(*each) for each in EVERY]
    found = stage(batch(*tasks)).lock
    assert set(found.providers) == {provider for _, provider in EVERY}
    for name, provider in found.providers.items():
        assert {each.url for each in provider.endpoints.values()} == {f"http://127.0.0.1:9/{name}"}
        assert not provider.free_probes
        assert not provider.other_urls


@pytest.mark.parametrize("asked", ["", "went-quiet"])
def test_every_route_of_the_lock_can_be_planned(asked: str) -> None:
    tasks = [task(*each) for each in EVERY]
    found = stage(batch(*tasks), trouble(asked))
    plans = Planner(found.lock, "lock", HARNESSES, found.batch, "b").check()
    assert len(plans) == len(EVERY)


def test_hosts_work_beside_their_own_folder() -> None:
    assert stage(batch(task("scripted", "rehearsal"))).batch.hosts["box"].directory == "/srv/night-rehearsal/ab12cd"


def test_nobody_is_asked_and_nothing_is_spread() -> None:
    found = stage(batch(task("scripted", "rehearsal", approve=True), spread=True)).batch
    assert not found.spread
    assert not found.tasks[0].approve


def test_waits_are_the_users_own_unless_it_is_about_silence() -> None:
    asked = batch(task("claude-code", "zai"))
    found = stage(asked, trouble("rate-limited"))
    assert found.batch.tasks[0].limits == asked.tasks[0].limits
    assert found.lock.harnesses == LOCK.harnesses
    assert found.shortened == ()


def test_a_silence_is_waited_for_less_long_and_it_is_said() -> None:
    found = stage(batch(task("claude-code", "zai")), trouble("went-quiet"))
    limits, timing = found.batch.tasks[0].limits, found.lock.harnesses["claude-code"].timing
    assert timing is not None
    assert timing.longest_s < (limits.quiet_s or 0) < 60
    assert any(words.startswith("quiet_s 45, not 420") for words in found.shortened)
    assert any("claude-code" in words for words in found.shortened)


def test_a_shorter_wait_of_the_users_own_stays() -> None:
    limits = Limits(quiet_s=20, first_event_s=5, turn_s=None)
    found = stage(batch(task("goose", "zai", limits=limits)), trouble("went-quiet"))
    assert found.batch.tasks[0].limits == limits


def test_a_site_takes_what_the_lock_does_not_refuse() -> None:
    asked = batch(task("goose", "anthropic"), task("claude-code", "zai"))
    found = sites(asked, LOCK, trouble("model-mismatch"))
    assert found["anthropic"].accepts == {Header.X_API_KEY}
    assert found["zai"].accepts == set(Header)
    assert found["zai"].models == tuple(LOCK.providers["zai"].models)
    assert found["zai"].answers_as == "another-model"
    assert found["zai"].key != found["anthropic"].key


@pytest.mark.parametrize(
    ("name", "shape"),
    [("zai", "zhipu"), ("kimi-coding", "moonshot"), ("dashscope-intl", "dashscope"), ("anthropic", "anthropic")],
)
def test_a_provider_has_the_words_of_its_vendor(name: str, shape: str) -> None:
    assert shape_of(name, LOCK.providers[name]) == shape


def test_a_task_keeps_all_else() -> None:
    asked = task("scripted", "rehearsal")
    [found] = stage(batch(asked)).batch.tasks
    assert found == asked

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from overnight import layers, lockfile
from overnight.failures import BadInput
from overnight.layers import Layered
from overnight.lockfile import DEFAULT_LOCK, OVERLAY
from overnight.spec import Limits
from tests.overnight.overlays import OWN, layered, overlay, settled
from tests.overnight.samples import batch, planner, task

LOCK = lockfile.load()
PAIRS = [(provider, harness) for provider, entry in LOCK.providers.items() for harness in entry.harnesses]
TIMING = {"request_timeout_s": 60, "retries": 1, "backoff_s": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Layered:
    return settled(tmp_path_factory.mktemp("overlay"))


@pytest.mark.parametrize(("provider", "harness"), PAIRS)
def test_every_pair_makes_a_plan_with_every_model_once_addresses_are_set(
    whole: Layered, provider: str, harness: str
) -> None:
    for model in whole.lock.providers[provider].models:
        route = {"host": "box", "harness": harness, "provider": provider, "model": model}
        (plan,) = planner(batch(task(route=route, limits=Limits(quiet_s=6000))), whole.lock).check()
        assert "{" not in plan.base_url
        assert list(plan.env.secrets()) == [plan.key_variable]
        assert whole.lock.providers[provider].headers[plan.header].accepted != "no"


def test_without_an_overlay_the_lock_is_as_it_was() -> None:
    of = layers.load(DEFAULT_LOCK, None)
    assert of.lock == LOCK
    assert of.layer("providers", "zai") == str(DEFAULT_LOCK)


def test_an_overlay_wins_fact_by_fact_and_leaves_the_rest(tmp_path: Path) -> None:
    changes = {"zai": {"endpoints": {"anthropic": {"url": "https://proxy.example/zai", "provenance": OWN}}}}
    of = layered(tmp_path, providers=changes)
    before, after = LOCK.providers["zai"], of.lock.providers["zai"]
    assert after.endpoints["anthropic"].url == "https://proxy.example/zai"
    assert after.endpoints["anthropic"].provenance.source == "our own measurement"
    assert after.model_copy(update={"endpoints": before.endpoints}) == before
    assert of.lock.model_copy(update={"providers": LOCK.providers}) == LOCK
    assert of.layer("providers", "zai", "endpoints", "anthropic", "url") == str(of.overlay)
    assert of.layer("providers", "zai", "endpoints") == str(of.overlay)
    assert of.layer("providers", "zai", "models", "glm-5.2") == str(DEFAULT_LOCK)
    assert of.layer("providers", "zhipu") == str(DEFAULT_LOCK)


def test_a_fact_that_is_touched_is_no_longer_what_the_old_source_said(tmp_path: Path) -> None:
    of = layered(tmp_path, providers={"zai": {"endpoints": {"anthropic": {"url": "https://proxy.example/zai"}}}})
    found = of.lock.providers["zai"].endpoints["anthropic"].provenance
    assert (found.source, str(found.date), found.confidence) == (OVERLAY, "2026-11-21", "unverified")
    assert of.lock.providers["zai"].headers == LOCK.providers["zai"].headers


def test_a_new_fact_needs_no_ceremony(tmp_path: Path) -> None:
    changes = {
        "providers": {"zai": {"models": {"glm-6": {}}}},
        "harnesses": {"goose": {"versions": {"2": {"status": "bad"}}}},
    }
    of = layered(tmp_path, **changes)
    assert of.lock.providers["zai"].models["glm-6"].provenance.confidence == "unverified"
    assert of.lock.harnesses["goose"].versions["2"].provenance.source == OVERLAY
    assert of.lock.harnesses["goose"].provenance == LOCK.harnesses["goose"].provenance


def test_a_part_of_a_fact_that_is_no_fact_marks_the_one_around_it(tmp_path: Path) -> None:
    of = layered(tmp_path, harnesses={"goose": {"timing": TIMING}})
    assert of.lock.harnesses["goose"].timing is not None
    assert of.lock.harnesses["goose"].provenance.source == OVERLAY


def test_null_takes_a_fact_out_and_a_list_replaces_a_list(tmp_path: Path) -> None:
    of = layered(tmp_path, providers={"zai": {"models": {"glm-5.3": None}, "errors": []}})
    assert "glm-5.3" not in of.lock.providers["zai"].models
    assert of.lock.providers["zai"].errors == ()


def test_a_whole_provider_and_a_trap_can_be_added(tmp_path: Path) -> None:
    raw: Any = json.loads(LOCK.providers["deepseek"].model_dump_json(by_alias=True))
    trap = {"match": {"words": "w", "variables": ["MY_KEY"]}, "why": "y", "mend": "m", "breaks": "providers.ours.key"}
    of = layered(tmp_path, providers={"ours": raw}, known_bad={"my-trap": trap})
    assert of.lock.providers["ours"] == LOCK.providers["deepseek"]
    assert of.lock.known_bad["my-trap"].provenance.source == OVERLAY


@pytest.mark.parametrize(
    ("content", "field", "problem"),
    [
        ("{", "file", "is not JSON"),
        ("[]", "file", "is not an object"),
        ({"schema": 1}, "as_of", "is missing"),
        ({"as_of": "2026-11-21"}, "schema", "is missing"),
        ({"schema": 2, "as_of": "2026-11-21"}, "schema", "Input should be 1"),
        ({"schema": 1, "as_of": "yesterday"}, "as_of", "valid date"),
        ({"schema": 1, "as_of": "2026-11-21", "provider": {}}, "provider", "Extra inputs"),
        (
            {"schema": 1, "as_of": "2026-11-21", "providers": {"zai": {"headers": {"bearer": {"accepted": "si"}}}}},
            "providers.zai.headers.bearer.accepted",
            "'yes', 'no'",
        ),
        (
            {"schema": 1, "as_of": "2026-11-21", "providers": {"new": {"title": "New"}}},
            "providers.new.endpoints",
            "Field required",
        ),
        (
            {"schema": 1, "as_of": "2026-11-21", "harnesses": {"goose": {"env": {"A;B": "1"}}}},
            "harnesses.goose.env.A;B.[key]",
            "match pattern",
        ),
        (
            {
                "schema": 1,
                "as_of": "2026-11-21",
                "known_bad": {"Bad Id": None, "x": {"match": {"words": "w", "value": "("}}},
            },
            "known_bad.x.match.value",
            "not a regular expression",
        ),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused_by_place(
    tmp_path: Path, content: Any, field: str, problem: str
) -> None:
    path = tmp_path / OVERLAY
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        layers.load(DEFAULT_LOCK, path)
    assert (caught.value.where, caught.value.field) == (str(path), field)
    assert problem in caught.value.problem
    assert caught.value.mend


def test_a_missing_overlay_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        layers.load(DEFAULT_LOCK, tmp_path / "none.json")


def test_an_overlay_is_looked_for_up_to_the_repository_and_no_further(tmp_path: Path) -> None:
    repo, inner = tmp_path / "repo", tmp_path / "repo" / "a" / "b"
    inner.mkdir(parents=True)
    above = overlay(tmp_path)
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    assert layers.find(inner) is None
    assert layers.find(tmp_path) == above
    mine = overlay(repo)
    assert layers.find(inner) == mine
    own = overlay(inner)
    assert layers.find(inner) == own


def test_outside_a_repository_only_the_folder_itself_counts(tmp_path: Path) -> None:
    overlay(tmp_path)
    (tmp_path / "below").mkdir()
    assert layers.find(tmp_path / "below") is None


def test_a_file_called_like_an_overlay_is_laid_over_the_lock_where_a_lock_is_named(tmp_path: Path) -> None:
    path = overlay(tmp_path, providers={"zai": {"models": {"glm-9": {}}}})
    proposed, other = tmp_path / "overnight.lock.proposed.json", tmp_path / "other.json"
    for copy in (proposed, other):
        shutil.copy(path, copy)
    for named in (path, proposed):
        lock = layers.whole(named)
        assert "glm-9" in lock.providers["zai"].models
        assert lock.providers["zhipu"] == LOCK.providers["zhipu"]
    assert layers.in_use(None, {"OVERNIGHT_LOCK": str(proposed)}).providers["zai"] != LOCK.providers["zai"]
    assert layers.in_use(None, {}) == LOCK
    with pytest.raises(BadInput):
        layers.whole(other)  # an overlay under another name is half a lock


def test_a_patch_can_take_out_and_says_where_new_facts_come_from() -> None:
    mark = {"source": "a test", "date": "2026-11-22", "confidence": "measured"}
    part: dict[str, Any] = {"providers": {"zai": {"models": {"glm-9": {}, "glm-5": None}}}}
    models = layers.patched(LOCK, part, mark).providers["zai"].models
    assert models["glm-9"].provenance.source == "a test"
    assert "glm-5" not in models
    assert layers.laid_over({"a": 1}, {"a": None}, keep_null=True) == {"a": None}
    assert layers.laid_over({"a": 1}, {"a": None}) == {}

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from overnight import lockfile
from overnight.failures import BadInput
from overnight.lockfile import HarnessEntry, Header, ProviderLock, Timing, Wiring
from overnight.spec import Limits

LOCK = lockfile.load()
RAW: dict[str, Any] = json.loads(lockfile.DEFAULT_LOCK.read_text(encoding="utf-8"))
SCHEMA_FILE = lockfile.DEFAULT_LOCK.with_name("providers.lock.schema.json")
# written out here a second time on purpose: the harness modules must not be what proves the lock
HEADER_OF = {
    ("claude-code", "ANTHROPIC_AUTH_TOKEN"): Header.BEARER,
    ("claude-code", "ANTHROPIC_API_KEY"): Header.X_API_KEY,
    ("aider", "ANTHROPIC_API_KEY"): Header.X_API_KEY,
    ("codex", "OVERNIGHT_CODEX_API_KEY"): Header.BEARER,
    ("copilot", "COPILOT_PROVIDER_API_KEY"): Header.X_API_KEY,
    ("copilot", "COPILOT_PROVIDER_BEARER_TOKEN"): Header.BEARER,
    ("goose", "ANTHROPIC_API_KEY"): Header.X_API_KEY,
    ("opencode", "OVERNIGHT_OPENCODE_BEARER"): Header.BEARER,
    ("opencode", "OVERNIGHT_OPENCODE_API_KEY"): Header.X_API_KEY,
    ("pi", "OVERNIGHT_PI_API_KEY"): Header.X_API_KEY,
    ("pi", "OVERNIGHT_PI_BEARER"): Header.BEARER,
    ("qwen", "ANTHROPIC_API_KEY"): Header.X_API_KEY,
    ("scripted", "OVERNIGHT_SCRIPTED_BEARER"): Header.BEARER,
    ("scripted", "OVERNIGHT_SCRIPTED_API_KEY"): Header.X_API_KEY,
}


WIRINGS = [
    pytest.param(provider, harness, wiring, id=f"{provider}-{harness}")
    for provider, entry in LOCK.providers.items()
    for harness, wiring in entry.harnesses.items()
]
each_wiring = pytest.mark.parametrize(("provider", "harness", "wiring"), WIRINGS)


def test_names_every_promised_provider_and_harness() -> None:
    promised = "anthropic zai zhipu moonshot moonshot-cn deepseek minimax minimax-cn openrouter rehearsal rehearsal-x"
    promised += " kimi-coding alibaba-coding dashscope volcengine-coding volcengine mimo stepfun siliconflow vercel"
    promised += " fireworks litellm ollama lm-studio vllm llama-cpp"
    assert set(promised.split()) <= set(LOCK.providers)
    assert set(LOCK.environment_only) == {"bedrock", "vertex", "foundry"}
    agents = {"aider", "claude-code", "codex", "copilot", "gemini-cli", "goose", "opencode", "pi", "qwen", "scripted"}
    assert set(LOCK.harnesses) == agents
    assert all("claude-code" in provider.harnesses for provider in LOCK.providers.values())


def test_checked_in_schema_is_the_models_own() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == lockfile.schema()
    jsonschema.validate(RAW, lockfile.schema(), cls=jsonschema.Draft202012Validator)


@each_wiring
def test_one_variable_carries_the_key_in_a_header_the_provider_may_take(
    provider: str, harness: str, wiring: Wiring
) -> None:
    (variable,) = wiring.key_variables
    assert wiring.set[variable] == "{key}"
    accepted = LOCK.providers[provider].headers[HEADER_OF[harness, variable]].accepted
    assert accepted != "no"
    if accepted == "unverified":
        assert wiring.provenance.confidence == "unverified", "a guess must not be dressed as a fact"


@each_wiring
def test_no_variable_is_bound_twice(provider: str, harness: str, wiring: Wiring) -> None:
    entry = LOCK.harnesses[harness]
    names = [*wiring.set, *wiring.empty, *wiring.absent, *entry.env, *entry.absent]
    assert sorted(names) == sorted(set(names))
    assert set(entry.probe.env) <= set(entry.env), "a probe may only shorten what a run has"


@each_wiring
def test_only_known_placeholders(provider: str, harness: str, wiring: Wiring) -> None:
    assert placeholders(wiring.set.values()) <= {"base_url", "model", "key"}
    entry = LOCK.harnesses[harness]
    waits = {"request_timeout_ms", "request_timeout_s", "retries"}
    assert placeholders([*entry.env.values(), *entry.probe.env.values()]) <= {*waits, "base_url", "model", "cwd"}
    if placeholders(entry.env.values()) & waits:
        assert wiring.timing or entry.timing, "nothing to fill the placeholders with"


def placeholders(values: Any) -> set[str]:
    return {name for value in values for name in re.findall(r"{([\w -]*)}", value)}


@pytest.mark.parametrize("provider", list(LOCK.providers))
def test_claude_code_cannot_name_a_model_that_was_not_asked_for(provider: str) -> None:
    wiring = LOCK.providers[provider].harnesses["claude-code"]
    tiers = [f"ANTHROPIC_DEFAULT_{tier}_MODEL" for tier in ("OPUS", "SONNET", "HAIKU")]
    assert {wiring.set[name] for name in ("ANTHROPIC_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL", *tiers)} == {"{model}"}


@pytest.mark.parametrize("provider", list(LOCK.providers))
def test_claude_code_sends_one_credential(provider: str) -> None:
    wiring = LOCK.providers[provider].harnesses["claude-code"]
    pair = {"ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"}
    assert set(wiring.key_variables) | set(wiring.empty) == pair
    assert "CLAUDE_CODE_OAUTH_TOKEN" in LOCK.harnesses["claude-code"].absent


def test_urls_are_bases() -> None:
    for provider in LOCK.providers.values():
        for endpoint in provider.endpoints.values():
            assert not endpoint.url.endswith(("/", "/v1"))


def test_probe_asks_the_api_that_runs_use() -> None:
    for provider in LOCK.providers.values():
        assert (provider.probe.method, provider.probe.path) == ("POST", "/v1/messages")
        assert set(provider.probe.proves) == {"auth", "model", "billing", "quota"}


@pytest.mark.parametrize("entry", list(LOCK.harnesses.values()), ids=list(LOCK.harnesses))
def test_longest_wait_is_below_the_usual_quiet_limit(entry: HarnessEntry) -> None:
    quiet_s = Limits().quiet_s
    assert quiet_s is not None
    if entry.timing:
        assert entry.timing.longest_s < quiet_s
    assert entry.probe.timing.longest_s < entry.probe.total_s


def test_longest_wait_counts_every_try() -> None:
    assert Timing(request_timeout_s=120, retries=2, backoff_s=5).longest_s == 365


@pytest.mark.parametrize(
    "family",
    [("zai", "zhipu", "rehearsal", "rehearsal-x"), ("moonshot", "moonshot-cn"), ("minimax", "minimax-cn")],
)
def test_providers_with_one_error_table_keep_one(family: tuple[str, ...]) -> None:
    first, *others = (LOCK.providers[name].errors for name in family)
    assert all(other == first for other in others)


def test_every_fact_says_where_it_comes_from_and_none_is_from_later_than_the_lock() -> None:
    sources = list(provenances(RAW))
    assert len(sources) > 400
    for source in sources:
        assert source["source"].strip()
        assert source["date"] <= RAW["as_of"]


def provenances(data: Any) -> Iterator[dict[str, str]]:
    below = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for each in below:
        yield from provenances(each)
    if isinstance(data, dict) and "provenance" in data:
        yield data["provenance"]


def test_an_address_that_is_yours_to_set_starts_no_run() -> None:
    with pytest.raises(BadInput) as caught:
        LOCK.wiring("ollama", "claude-code", where="night.yaml", field="tasks[0].route.harness")
    assert caught.value.problem == "the address of ollama is yours to set"
    assert "providers.ollama.endpoints.anthropic.url" in caught.value.mend


def test_what_is_environment_only_starts_no_run() -> None:
    with pytest.raises(BadInput, match="bedrock is environment-only") as caught:
        LOCK.provider("bedrock", where="night.yaml", field="tasks[0].route.provider")
    assert "overnight lock env bedrock" in caught.value.mend


def test_third_party_models_are_no_claude_names() -> None:
    for name in LOCK.providers.keys() - {"anthropic", "openrouter"}:
        assert not [model for model in LOCK.providers[name].models if "claude" in model]


@pytest.mark.parametrize(
    ("ask", "problem", "mend"),
    [
        (lambda lock, at: lock.provider("z-ai", **at), "unknown provider 'z-ai'", "Did you mean zai?"),
        (lambda lock, at: lock.harness("claude", **at), "unknown harness 'claude'", "Did you mean claude-code?"),
        (
            lambda lock, at: lock.model("zai", "GLM-4.7", **at),
            "unknown model of provider zai 'GLM-4.7'",
            "Did you mean glm-4.7 ",
        ),
        (
            lambda lock, at: lock.wiring("rehearsal", "goose", **at),
            "unknown harness for provider rehearsal 'goose'",
            "Known: claude-code, codex, copilot, opencode, pi, scripted",
        ),
    ],
)
def test_unknown_names_are_refused_with_near_ones(ask: Any, problem: str, mend: str) -> None:
    with pytest.raises(BadInput) as caught:
        ask(LOCK, {"where": "night.yaml", "field": "tasks[0].route"})
    assert caught.value.where == "night.yaml"
    assert caught.value.field == "tasks[0].route"
    assert caught.value.problem == problem
    assert caught.value.mend.startswith(mend)


def changed(tmp_path: Path, path: str, value: Any) -> Path:
    """The real lock with one place changed, as a file."""
    lock: Any = json.loads(json.dumps(RAW))
    *parents, last = path.split("/")
    place = lock
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    place[last] = value
    file = tmp_path / "providers.lock.json"
    file.write_text(json.dumps(lock), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("path", "value", "field", "problem"),
    [
        ("schema", 2, "schema", "Input should be 1"),
        ("providers/zai/title", None, "providers.zai.title", "valid string"),
        ("providers/zai/tittle", "x", "providers.zai.tittle", "Extra inputs are not permitted"),
        ("providers/zai/errors/0/kind", "auth", "providers.zai.errors.0.kind", "'auth-rejected'"),
        ("providers/zai/endpoints/anthropic/url", "https://x/", "providers.zai.endpoints.anthropic.url", "pattern"),
        ("providers/zai/endpoints/anthropic/url", '"https://x"', "providers.zai.endpoints.anthropic.url", "pattern"),
        ("providers/zai/harnesses/claude-code/endpoint", "antropic", "providers.zai", "Did you mean anthropic?"),
    ],
)
def test_a_lock_that_does_not_fit_is_refused_by_place(
    tmp_path: Path, path: str, value: Any, field: str, problem: str
) -> None:
    file = changed(tmp_path, path, value)
    with pytest.raises(BadInput) as caught:
        lockfile.load(file)
    assert caught.value.where == str(file)
    assert caught.value.field == field
    assert problem in caught.value.problem


CEILING = {"concurrent": 30, "provenance": {"source": "plan page", "date": "2026-11-22", "confidence": "official"}}


def test_only_published_limits_are_limits(tmp_path: Path) -> None:
    lock = lockfile.load(changed(tmp_path, "providers/zai/limits", CEILING))
    assert lock.concurrency() == {**LOCK.concurrency(), "zai": 30}
    for name, entry in LOCK.providers.items():
        if entry.limits is not None:
            assert entry.limits.provenance.confidence in ("official", "measured"), f"{name}: a guess limits nobody"


@pytest.mark.parametrize("given", [{}, {"concurrent": None}, {"each_key": {"per_s": 90}}])
def test_limits_that_limit_nothing_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        lockfile.load(changed(tmp_path, "providers/zai/limits", {"provenance": CEILING["provenance"], **given}))
    assert (caught.value.field, "gives no number" in caught.value.problem) == ("providers.zai.limits", True)


@pytest.mark.parametrize("value", [0, 1.5])
def test_a_limit_is_a_number_of_requests(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        lockfile.load(changed(tmp_path, "providers/zai/limits", {**CEILING, "concurrent": value}))
    assert caught.value.field == "providers.zai.limits.concurrent"


def test_the_lock_is_what_is_given_then_what_is_named_then_our_own(tmp_path: Path) -> None:
    named = {"OVERNIGHT_LOCK": str(tmp_path / "named.json")}
    assert lockfile.place(tmp_path / "given.json", named) == tmp_path / "given.json"
    assert lockfile.place(None, named) == tmp_path / "named.json"
    assert lockfile.place(None, {"OVERNIGHT_LOCK": ""}) == lockfile.DEFAULT_LOCK


def test_a_missing_lock_and_text_that_is_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        lockfile.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="Invalid JSON"):
        lockfile.load(tmp_path / "bad.json")


def test_a_lock_survives_a_round_trip() -> None:
    again = ProviderLock.model_validate_json(LOCK.model_dump_json(by_alias=True))
    assert again == LOCK


def test_a_vendor_is_what_several_providers_share() -> None:
    shared: dict[str, set[str]] = {}
    for name, entry in LOCK.providers.items():
        if entry.vendor:
            shared.setdefault(entry.vendor, set()).add(name)
    assert {"zai", "zhipu"} in shared.values()
    assert {"minimax", "minimax-cn"} in shared.values()
    assert all(len(names) > 1 for names in shared.values())

"""What a site takes and refuses, asked by the probe; its free calls, asked as the lock describes them."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import httpx
import pytest

from overnight import lockfile
from overnight.failures import BadInput, FailureKind
from overnight.lockfile import FreeProbe, Header
from overnight.probe import Reply, ask, free
from overnight.rehearsal.dialects import Shape
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import MODELS, Site
from overnight.rehearsal.sites import parse_sites

K = FailureKind
LOCK = lockfile.load()
KEY, ELSEWHERE, WRONG = "sk-right-0123456789abcdef", "sk-other-region-0123456789", "sk-wrong-0123456789abcdef"
BEARER, X_API_KEY = Header.BEARER.carry(KEY), Header.X_API_KEY.carry(KEY)
SITES = (
    Site("gated", KEY, shape="moonshot", clients=("claude-cli/", "opencode")),
    Site("poor-anthropic", KEY, shape="anthropic", balance=False),
    Site("region", KEY, shape="minimax", keys_elsewhere=(ELSEWHERE,)),
    Site("plan", KEY, outside_plan=("glm-big",)),
    Site("open", KEY, needs_key=False),
    Site("one-header", KEY, accepts=frozenset(Header), refuses_both=True),
    Site("blocked", KEY, shape="anthropic", serves_here=False),
    Site("mapped", KEY, shape="deepseek", models=("v4-pro", "flash")),
    Site("zhipu", KEY),
    Site("moonshot", KEY, shape="moonshot"),
    Site("poor-moonshot", KEY, shape="moonshot", balance=False),
    Site("deepseek", KEY, shape="deepseek"),
    Site("poor-deepseek", KEY, shape="deepseek", accepts=frozenset({Header.X_API_KEY}), balance=False),
    Site("minimax", KEY, shape="minimax", keys_elsewhere=(ELSEWHERE,)),
    Site("dashscope", KEY, shape="dashscope"),
    Site("openrouter", KEY, shape="openrouter"),
    Site("anthropic", KEY, shape="anthropic", accepts=frozenset({Header.X_API_KEY})),
)
SHAPE: dict[str, Shape] = {site.name: site.shape for site in SITES}


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider(SITES) as running:
        yield running


def asked(provider: EmulatedProvider, site: str, headers: Mapping[str, str], model: str = MODELS[0]) -> Reply:
    rules = LOCK.providers["kimi-coding" if site == "gated" else SHAPE[site]].errors
    return ask(provider.url(site), headers, KEY, model, rules)


@pytest.mark.parametrize(
    ("site", "headers", "kind", "seen"),
    [
        ("gated", BEARER, K.REQUEST_REJECTED, "HTTP 403, code access_terminated_error"),
        ("gated", {**BEARER, "User-Agent": "claude-cli/2.1.330 (external)"}, None, "a message"),
        ("gated", {**Header.BEARER.carry(WRONG), "User-Agent": "curl/8"}, K.AUTH_REJECTED, "Invalid Authentication"),
        ("poor-anthropic", BEARER, K.BILLING, "HTTP 400, code invalid_request_error: Your credit balance"),
        ("poor-moonshot", BEARER, K.BILLING, "HTTP 429, code exceeded_current_quota_error"),
        ("poor-deepseek", X_API_KEY, K.BILLING, "HTTP 402"),
        ("region", Header.BEARER.carry(ELSEWHERE), K.AUTH_REJECTED, "invalid api key (2049)"),
        ("region", Header.BEARER.carry(WRONG), K.AUTH_REJECTED, "login fail (1004)"),
        ("open", {}, None, "a message"),
        ("open", Header.BEARER.carry(WRONG), None, "a message"),
        ("one-header", {**BEARER, **X_API_KEY}, K.AUTH_REJECTED, "code 1000"),
        ("one-header", X_API_KEY, None, "a message"),
        ("blocked", BEARER, K.REQUEST_REJECTED, "HTTP 403, code forbidden: Request not allowed"),
        ("blocked", {}, K.REQUEST_REJECTED, "code forbidden"),
        ("zhipu", {}, K.AUTH_REJECTED, "code 1001"),
    ],
)
def test_what_a_site_takes(
    provider: EmulatedProvider, site: str, headers: Mapping[str, str], kind: FailureKind | None, seen: str
) -> None:
    found = asked(provider, site, headers)
    assert (found.kind, seen in found.evidence.seen) == (kind, True), found


def test_a_model_that_the_plan_does_not_hold_is_listed_and_refused(provider: EmulatedProvider) -> None:
    listed = httpx.get(provider.url("plan") + "/v1/models", headers=BEARER, trust_env=False).json()["data"]
    assert "glm-big" in [each["id"] for each in listed]
    found = asked(provider, "plan", BEARER, "glm-big")
    assert (found.kind, "code 1311" in found.evidence.seen) == (K.PLAN_EXPIRED, True)


@pytest.mark.parametrize(
    ("model", "answers"), [("claude-opus-5", "v4-pro"), ("claude-haiku-4-5", "flash"), ("v4-pro", "v4-pro")]
)
def test_deepseek_answers_for_names_of_claude_with_its_own(
    provider: EmulatedProvider, model: str, answers: str
) -> None:
    assert asked(provider, "mapped", BEARER, model).model == answers
    assert asked(provider, "mapped", BEARER, "gpt-5").kind is K.MODEL_UNKNOWN


def free_probes() -> list[tuple[str, FreeProbe]]:
    """The lock's own, each with the site that stands for its provider."""
    sites = ("zhipu", "moonshot", "deepseek", "minimax", "dashscope", "openrouter", "anthropic")
    found = [(site, probe) for site in sites for probe in LOCK.providers[site].free_probes]
    assert {site for site, _ in found} == set(sites)
    return found


def here(provider: EmulatedProvider, site: str, probe: FreeProbe) -> FreeProbe:
    """The same call to the site. A path below the base URL is below the site's too."""
    parts = urlsplit(probe.url)
    path = parts.path.removeprefix("/api/anthropic") + (f"?{parts.query}" if parts.query else "")
    return probe.model_copy(update={"url": provider.url(site) + path})


@pytest.mark.parametrize(("site", "probe"), free_probes(), ids=lambda value: getattr(value, "url", value))
def test_each_free_probe_of_the_lock_tells_a_good_key_from_a_bad_one(
    provider: EmulatedProvider, site: str, probe: FreeProbe
) -> None:
    rules, call = LOCK.providers[site].errors, here(provider, site, probe)
    headers = {Header.BEARER, Header.X_API_KEY}
    accepted = next(each.accepts for each in SITES if each.name == site)
    right = free(call, KEY, rules, model=MODELS[0])
    if probe.key_as in headers - accepted and "/v1/models" in probe.url:  # a route of the chats: it takes their header
        assert right.kind is K.AUTH_REJECTED
        return
    assert right.ok, right
    assert right.proves == (() if probe.key_as == "none" else probe.proves)
    wrong = free(call, WRONG, rules, model=MODELS[0])
    assert wrong.ok if probe.key_as == "none" else wrong.kind is K.AUTH_REJECTED, wrong
    assert WRONG not in repr(wrong)


@pytest.mark.parametrize(
    ("site", "provider_name", "key", "kind", "seen"),
    [
        ("zhipu", "zhipu", WRONG, K.AUTH_REJECTED, "HTTP 200, success is false, code is 401"),
        ("zhipu", "zhipu", KEY, None, "HTTP 200, success is true, code is 200"),
        ("poor-deepseek", "deepseek", KEY, K.BILLING, "HTTP 200, is_available is false"),
        ("deepseek", "deepseek", WRONG, K.AUTH_REJECTED, "Authentication Fails (governor)"),
        ("minimax", "minimax", ELSEWHERE, K.AUTH_REJECTED, "HTTP 200, base_resp.status_code is 2049"),
        ("minimax", "minimax", WRONG, K.AUTH_REJECTED, "HTTP 200, base_resp.status_code is 1004"),
        ("moonshot", "moonshot", KEY, None, "HTTP 200, code is 0"),
    ],
)
def test_a_free_probe_says_what_it_saw(
    provider: EmulatedProvider, site: str, provider_name: str, key: str, kind: FailureKind | None, seen: str
) -> None:
    entry = LOCK.providers[provider_name]
    found = free(here(provider, site, entry.free_probes[0]), key, entry.errors)
    assert (found.kind, seen in found.evidence.seen) == (kind, True), found


def test_counting_tokens_proves_the_model_too(provider: EmulatedProvider) -> None:
    entry = LOCK.providers["anthropic"]
    probe = here(provider, "anthropic", entry.free_probes[1])
    assert free(probe, KEY, entry.errors, model="claude-9").kind is K.MODEL_UNKNOWN
    with pytest.raises(ValueError, match="needs a model"):
        free(probe, KEY, entry.errors)


def test_a_broken_chat_spares_the_free_calls(provider: EmulatedProvider) -> None:
    provider.set_fault("zhipu", Fault(FaultKind.FORBIDDEN))
    entry = LOCK.providers["zhipu"]
    assert free(here(provider, "zhipu", entry.free_probes[0]), KEY, entry.errors).ok
    assert asked(provider, "zhipu", BEARER).kind is K.AUTH_REJECTED
    provider.set_fault("zhipu", None)


def test_tls_is_served_with_a_certificate_that_nobody_trusts_yet() -> None:
    with EmulatedProvider([Site("s", KEY)], tls=True) as provider:
        url = provider.url("s")
        assert url.startswith("https://127.0.0.1:")
        found = ask(url, BEARER, KEY, MODELS[0], ())
        assert (found.kind, "CERTIFICATE_VERIFY_FAILED" in found.evidence.seen) == (K.NETWORK, True)
        assert "PRIVATE" not in provider.certificate
        trusting = ssl.create_default_context(cadata=provider.certificate)
        with httpx.Client(verify=trusting, trust_env=False, timeout=5) as client:
            assert client.get(url + "/v1/models", headers=BEARER).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http") + "/", trust_env=False)


def test_sites_are_read_from_text() -> None:
    written = [
        "intl,shape=minimax,clients=claude-cli+opencode,balance=no,accepts=any,outside_plan=m9,refuses_both=yes",
        "cn,shape=minimax,elsewhere=intl,models=m1+m2,answers_as=m3,serves_here=no",
    ]
    fault = Fault(FaultKind.HANG)
    intl, cn = parse_sites(written, {"cn": fault}, lambda name: f"key-of-{name}")
    assert intl == Site(
        "intl",
        "key-of-intl",
        accepts=frozenset(Header),
        shape="minimax",
        clients=("claude-cli", "opencode"),
        balance=False,
        needs_key=False,
        outside_plan=("m9",),
        refuses_both=True,
    )
    assert (cn.keys_elsewhere, cn.models, cn.answers_as) == (("key-of-intl",), ("m1", "m2"), "m3")
    assert (cn.serves_here, cn.fault, cn.accepts) == (False, fault, frozenset({Header.BEARER}))
    assert "key-of" not in repr([intl, cn])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["a,balance=maybe"], "unknown 'maybe'"),
        (["a,shape=minmax"], "Did you mean minimax"),
        (["a,client=x"], "Did you mean clients"),
        (["a,clients="], "has an empty part"),
        (["a,models=m1++m2"], "has an empty part"),
        (["a", "b,elsewhere=c"], "unknown 'c'"),
        (["a", "a"], "is there twice"),
    ],
)
def test_a_site_that_cannot_be_read_is_refused_by_name(written: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("?", "")):
        parse_sites(written, {}, lambda name: name)


def test_a_free_call_is_recorded_like_any_other(provider: EmulatedProvider) -> None:
    entry = LOCK.providers["openrouter"]
    free(here(provider, "openrouter", entry.free_probes[0]), KEY, entry.errors)
    call = provider.calls[-1]
    assert (call.site, call.method, call.path, call.status) == ("openrouter", "GET", "/api/v1/key", 200)
    assert KEY not in json.dumps(dict(call.keys))

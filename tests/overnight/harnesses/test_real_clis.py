"""The real agent CLIs against an emulated provider on loopback, started from our own argv and the lock's wiring."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from overnight import lockfile
from overnight.events import Act
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.harnesses.protocol import Launch
from overnight.lockfile import Header, Timing
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Say, Shell, Tape, Write
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.transcript import Transcript
from tests.overnight.harnesses.running import Ran, git, run

pytestmark = pytest.mark.full

K = FailureKind
KEY = "sk-rehearsal-0123456789"
MODEL = "rehearsal-large"
# which provider of the lock each harness is wired to, and what that provider takes
PROVIDERS = {
    "claude-code": ("rehearsal", Header.BEARER),
    "codex": ("rehearsal", Header.BEARER),
    "goose": ("rehearsal-x", Header.X_API_KEY),
    "opencode": ("rehearsal-x", Header.X_API_KEY),
    "pi": ("rehearsal-x", Header.X_API_KEY),
    "qwen": ("rehearsal-x", Header.X_API_KEY),
    "copilot": ("rehearsal", Header.BEARER),
}
# tries again for a minute, or for ever: it has to be named while it runs
INSISTS = ("codex", "opencode", "copilot")
# tries again for 75 s and says nothing meanwhile
HIDES_ITS_TRIES = ("qwen",)
# of a 429 it keeps the number alone
WORDLESS = {("codex", FaultKind.NO_BALANCE): K.RATE_LIMITED}
TELLS_NO_TOKENS = ("copilot",)
TELLS_NO_MODEL = ("codex", "pi")
COMMIT = Shell("printf 'b\\n' > b.txt && git add -A && git commit -m 'Add a greeting' && git log --oneline")
TAPE = (Write("greeting.txt", "hello, 身份\n"), COMMIT, Say("Added."))


@pytest.fixture(scope="module", params=list(PROVIDERS))
def agent(request: pytest.FixtureRequest, real_agent: Callable[[str], Agent]) -> tuple[str, Agent]:
    return request.param, real_agent(request.param)


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [Site(header.value, KEY, accepts=frozenset({header})) for header in Header]
    with EmulatedProvider(sites, [Tape("Add a greeting", TAPE)]) as running:
        yield running


def launch(name: str, agent: Agent, url: str, instruction: str, *, probe: bool = False) -> Launch:
    lock, provider = lockfile.load(), PROVIDERS[name][0]
    entry, wiring = lock.harnesses[name], lock.providers[provider].harnesses[name]
    flags = entry.flags + wiring.flags + (entry.probe.flags if probe else ())
    (variable,) = wiring.key_variables
    header, timing = HARNESSES[name].HEADER_OF[variable], Timing(request_timeout_s=4, retries=1, backoff_s=2)
    told = tuple(filled(flag, url) for flag in flags)
    return Launch(str(agent.path), instruction, MODEL, told, base_url=url, header=header, timing=timing)


def environment(name: str, url: str, **more: str) -> Mapping[str, str]:
    lock, provider = lockfile.load(), PROVIDERS[name][0]
    entry, wiring = lock.harnesses[name], lock.providers[provider].harnesses[name]
    env = {**entry.env, **wiring.set, **dict.fromkeys(wiring.empty, "")}
    return {**{variable: filled(text, url) for variable, text in env.items()}, **more}


def filled(text: str, url: str) -> str:
    fill = {"{base_url}": url, "{key}": KEY, "{model}": MODEL, "{request_timeout_ms}": "4000", "{retries}": "1"}
    for hole, value in fill.items():
        text = text.replace(hole, value)
    return text


def site(name: str) -> str:
    return PROVIDERS[name][1].value


def go(name: str, agent: Agent, provider: EmulatedProvider, instruction: str, place: Path, **env: str) -> Ran:
    url = provider.url(site(name))
    return run(HARNESSES[name], launch(name, agent, url, instruction), environment(name, url, **env), place)


def kind(name: str, transcript: Transcript) -> FailureKind | None:
    lock, provider = lockfile.load(), PROVIDERS[name][0]
    names = {"provider": provider, "harness": name, "host": "box", "model": MODEL}
    failure = HARNESSES[name].diagnose(transcript, lock.providers[provider].errors, names)
    return failure.kind if failure else None


def test_makes_a_real_commit(agent: tuple[str, Agent], provider: EmulatedProvider, tmp_path: Path) -> None:
    name, cli = agent
    ran = go(name, cli, provider, "Add a greeting", tmp_path)
    assert git(ran.work, "log", "--format=%s").splitlines() == ["Add a greeting", "base"]
    assert git(ran.work, "show", "HEAD:greeting.txt") == "hello, 身份\n"
    assert git(ran.work, "status", "--porcelain") == ""
    assert kind(name, ran.transcript) is None
    acts = [e.act for e in ran.events]
    assert acts.count(Act.TOOL_STARTED) == acts.count(Act.TOOL_ENDED) == 2
    assert acts.count(Act.DENIED) == 0
    assert ran.transcript.init is not None
    assert ran.transcript.init.event.model == (None if name in TELLS_NO_MODEL else MODEL)
    result = ran.transcript.last(Act.RESULT)
    assert result is not None
    assert result.event.ok
    assert result.event.tokens or name in TELLS_NO_TOKENS
    assert KEY.encode() not in ran.out + ran.err


def test_sends_the_header_it_declares(agent: tuple[str, Agent], provider: EmulatedProvider, tmp_path: Path) -> None:
    name, cli = agent
    go(name, cli, provider, "Add a greeting", tmp_path)
    chats = [call for call in provider.calls if call.site == site(name) and call.model]
    assert {header for call in chats for header in call.keys} == {PROVIDERS[name][1]}


@pytest.mark.parametrize(
    "head", ["---\ntitle: x\n---\n", "-p ", "--version\n", "/clear "], ids=["yaml", "-p", "flag", "/"]
)
def test_no_instruction_is_taken_for_a_flag_or_a_command(
    agent: tuple[str, Agent], provider: EmulatedProvider, tmp_path: Path, head: str
) -> None:
    name, cli = agent
    # the tape plays only if the whole text reached the model's first message
    with EmulatedProvider([Site("only", KEY, frozenset(Header))], [Tape(f"{head}Add a greeting", TAPE)]) as only:
        url = only.url("only")
        ran = run(HARNESSES[name], launch(name, cli, url, f"{head}Add a greeting"), environment(name, url), tmp_path)
    assert "Add a greeting" in git(ran.work, "log", "--format=%s")


def test_a_probe_gives_the_word_back(agent: tuple[str, Agent], provider: EmulatedProvider, tmp_path: Path) -> None:
    name, cli = agent
    url = provider.url(site(name))
    started = launch(name, cli, url, "Reply with the single word kestrel-7.", probe=True)
    ran = run(HARNESSES[name], started, environment(name, url), tmp_path)
    result = ran.transcript.last(Act.RESULT)
    assert result is not None
    assert (result.event.ok, result.event.text.strip(), kind(name, ran.transcript)) == (True, "kestrel-7", None)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (FaultKind.KEY_REFUSED, K.AUTH_REJECTED),
        (FaultKind.NO_BALANCE, K.BILLING),
        (FaultKind.PAYMENT_REQUIRED, K.BILLING),
        (FaultKind.OVERLOADED, K.OVERLOADED),
        (FaultKind.ERROR_IN_OK, K.NOT_THE_API),
        (FaultKind.EMPTY, K.NOT_THE_API),
    ],
)
def test_names_what_the_provider_did(
    agent: tuple[str, Agent], provider: EmulatedProvider, tmp_path: Path, fault: FaultKind, expected: FailureKind
) -> None:
    name, cli = agent
    expected = WORDLESS.get((name, fault), expected)
    if name in HIDES_ITS_TRIES and fault is FaultKind.OVERLOADED:
        fault, expected = FaultKind.FORBIDDEN, K.AUTH_REJECTED  # one wait of 75 s, for the empty balance, is enough
    provider.set_fault(site(name), Fault(fault))
    try:
        url = provider.url(site(name))
        until = (lambda so_far: kind(name, so_far) is expected) if name in INSISTS else None
        started = launch(name, cli, url, "Add a greeting")
        ran = run(HARNESSES[name], started, environment(name, url), tmp_path, timeout_s=150, until=until)
    finally:
        provider.set_fault(site(name), None)
    assert kind(name, ran.transcript) is expected


@pytest.mark.parametrize("flag", ["--disable=unbounded_connection_retries", "--enable=unbounded_connection_retries"])
def test_codex_names_a_refused_connection(real_agent: Callable[[str], Agent], tmp_path: Path, flag: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asked = launch("codex", real_agent("codex"), url, "Add a greeting")
        started = dataclasses.replace(asked, flags=(*asked.flags, flag))
        ran = run(HARNESSES["codex"], started, environment("codex", url), tmp_path)
    assert kind("codex", ran.transcript) is K.NETWORK
    assert ran.code == 1  # with either: a refused connection is tried once more, then the turn fails


def test_the_version_it_prints_is_the_one_obtained(agent: tuple[str, Agent]) -> None:
    name, cli = agent
    assert cli.version in lockfile.load().harnesses[name].versions

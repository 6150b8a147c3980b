"""What preflight concludes from the agent's probe and the direct one, read together, on a real host."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.failures import BadInput, FailureKind, HostError
from overnight.lockfile import Header
from overnight.night import Night
from overnight.preflight import Checked
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import KEY, PYTHON, TAPES, Evening, make_lock, make_repo

K = FailureKind
AGENT = "claude-code"


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    sites = [
        Site("well", KEY),
        Site("other", KEY, answers_as="rehearsal-small"),
        Site("either", KEY, frozenset(Header)),
    ]
    with EmulatedProvider(sites, TAPES) as running:
        yield running


@pytest.fixture
def evening(host: tuple[LoopbackHost, HostSpec], provider: EmulatedProvider, tmp_path: Path) -> Evening:
    make_repo(tmp_path / "repo")
    lock = make_lock(tmp_path / "lock.json", provider.url("well"), probe_s=1.5)
    return Evening(tmp_path, str(tmp_path / "repo"), host[1], lock)


def command(evening: Evening, name: str, text: str) -> None:
    """Put a command of our own making first on the host's path."""
    folder = evening.directory / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    evening.host = evening.host.model_copy(update={"path": (str(folder), *evening.host.path)})


@contextmanager
def asked(evening: Evening, harness: str = "scripted") -> Iterator[tuple[Night, Checked]]:
    task = evening.task("t", "Add a greeting", harness=harness)
    with evening.night(task, batch_id=evening.directory.name.replace("_", "-")) as night:
        yield night, night.preflight(task)


def test_an_open_route_says_what_will_run(evening: Evening) -> None:
    with asked(evening) as (night, found):
        assert (found.failure, found.notes, found.version) == (None, (), "1")
        assert found.executable.endswith("/python3")
        assert [route.state for route in night.routes()] == ["open"]
    assert not list((evening.state / "batches").glob("*/runs/*/handle.json"))


def answering(evening: Evening) -> None:
    """An agent that says the word without asking anybody."""
    word = "$(printf '%s' \"$*\" | sed -n 's/.*single word \\([a-z0-9]*\\)[.].*/\\1/p')"
    result = f'{{\\"type\\":\\"result\\",\\"subtype\\":\\"success\\",\\"is_error\\":false,\\"result\\":\\"{word}\\"}}'
    command(evening, "claude", f'[ "$1" = --version ] && echo \'2.1.330 (Claude Code)\' || echo "{result}"')


def test_an_agent_that_gets_through_opens_the_route_whatever_the_direct_probe_met(
    evening: Evening, provider: EmulatedProvider
) -> None:
    answering(evening)
    provider.set_fault("well", Fault(FaultKind.OVERLOADED))
    try:
        with asked(evening, AGENT) as (_, found):
            assert found.failure is None
            assert "the direct probe from here did not: HTTP 529" in found.notes[0]
            assert any("note: the agent got through" in line for line in evening.told)
    finally:
        provider.set_fault("well", None)


def test_another_model_than_the_one_asked_for_shuts_the_route(evening: Evening, provider: EmulatedProvider) -> None:
    evening.lock = make_lock(evening.directory / "lock.json", provider.url("other"))
    with asked(evening) as (_, found):
        assert found.failure is not None
        assert found.failure.kind is K.MODEL_MISMATCH
        assert found.failure.evidence[0].seen == "asked for rehearsal-large, answered by rehearsal-small"


@pytest.mark.full
def test_a_good_ending_without_the_word_is_not_health(evening: Evening) -> None:
    result = '{"type":"result","subtype":"success","is_error":false,"result":"Hello! How can I help?"}'
    command(evening, "claude", f"[ \"$1\" = --version ] && echo '2.1.330 (Claude Code)' || echo '{result}'")
    with asked(evening, AGENT) as (_, found):
        assert found.failure is not None
        assert found.failure.kind is K.UNKNOWN
        assert "did not come back; the agent's answer has 22 characters" in found.failure.evidence[0].seen


@pytest.mark.full
def test_a_version_known_as_bad_is_refused_unasked(evening: Evening, provider: EmulatedProvider) -> None:
    command(evening, "claude", "echo '2.1.83 (Claude Code)'")
    before = len(provider.calls)
    with asked(evening, AGENT) as (_, found):
        assert found.failure is not None
        assert (found.failure.kind, found.version) == (K.HARNESS_USAGE, "2.1.83")
        assert "2.1.83 is known bad" in found.failure.evidence[0].seen
        assert "2.1.330" in found.failure.remedy
    assert len(provider.calls) == before


@pytest.mark.full
@pytest.mark.parametrize(
    ("says", "version", "note"),
    [
        ("echo '9.9.9 (Claude Code)'", "9.9.9", "claude-code 9.9.9 is not in the lock"),
        ("true", None, "unknown version"),
    ],
)
def test_a_version_nobody_tried_is_a_note(evening: Evening, says: str, version: str | None, note: str) -> None:
    command(evening, "claude", f'[ "$1" = --version ] && {{ {says}; exit; }}; exit 1')
    with asked(evening, AGENT) as (_, found):
        assert found.version == version
        assert note in found.notes[0]


@pytest.mark.full
def test_a_crash_is_not_put_on_the_provider(evening: Evening, provider: EmulatedProvider) -> None:
    command(evening, "claude", "[ \"$1\" = --version ] && echo '2.1.330 (Claude Code)' || kill -SEGV $$")
    provider.set_fault("well", Fault(FaultKind.OVERLOADED))
    try:
        with asked(evening, AGENT) as (_, found):
            assert found.failure is not None
            assert found.failure.kind is K.HARNESS_CRASHED
            assert "HTTP 529" in found.failure.evidence[-1].seen
    finally:
        provider.set_fault("well", None)


def test_no_key_is_an_answer(evening: Evening) -> None:
    task = evening.task("t", "Add a greeting")

    def refuse(provider: str) -> str:
        raise BadInput("keys", provider, "is not stored", "Store one")

    with evening.night(task, batch_id="nokey", reveal=refuse) as night:
        found = night.preflight(task)
    assert found.failure is not None
    assert (found.failure.kind, found.failure.remedy) == (K.KEY_MISSING, "Store one")


@pytest.mark.full
def test_an_interrupted_probe_ends_the_agent_and_says_so(evening: Evening) -> None:
    command(evening, "claude", "[ \"$1\" = --version ] && echo '2.1.330 (Claude Code)' || sleep 30")
    task = evening.task("t", "Add a greeting", harness=AGENT)
    with evening.night(task, batch_id="stopped") as night:
        night.stop("detach")
        found = night.preflight(task)
    assert found.failure is not None
    assert found.failure.kind is K.CANCELLED


@pytest.mark.full
def test_a_host_that_goes_away_is_tried_again_by_whoever_called(
    host: tuple[LoopbackHost, HostSpec], evening: Evening
) -> None:
    evening.host = evening.host.model_copy(update={"port": 1})
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="away") as night:
        night.stations["box"].remote.host._patience_s = 0.2  # type: ignore[attr-defined]  # the wait is not tested here
        with pytest.raises(HostError):
            night.preflight(task)
        assert night.checked == {}


@pytest.mark.full
def test_a_host_that_goes_down_under_a_probe_is_named_soon(
    evening: Evening, host: tuple[LoopbackHost, HostSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be waited for as long as for a run: an hour, and all other routes with it."""
    monkeypatch.setattr("overnight.preflight.GONE_S", 1.0)
    command(evening, "python3", f'case "$*" in *--model=*) exec sleep 20;; esac; exec {PYTHON}/python3 "$@"')
    evening.lock = make_lock(evening.directory / "quick.json", "http://127.0.0.1:9", probe_s=1.0)
    quick = json.loads(evening.lock.read_text())
    quick["harnesses"]["scripted"]["probe"]["total_s"] = 3
    evening.lock.write_text(json.dumps(quick))
    down = threading.Thread(target=_take_down, args=(host[0], evening.directory / "state"))
    down.start()
    try:
        with asked(evening) as (_, found):
            assert found.failure is not None
            assert found.failure.kind is K.HOST_UNREACHABLE
            assert "no word from the host" in found.failure.evidence[0].seen
    finally:
        down.join()
        host[0].link.accept()


def _take_down(host: LoopbackHost, state: Path) -> None:
    """End the link once the probe is followed."""
    deadline = time.monotonic() + 20
    while not list(state.glob("batches/*/runs/*probe*/out")) and time.monotonic() < deadline:
        time.sleep(0.05)
    host.link.refuse()
    host.link.cut()

"""The scripted agent, started for real and talking to an emulated provider on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.events import Act
from overnight.failures import FailureKind
from overnight.harnesses import scripted
from overnight.harnesses.protocol import Launch
from overnight.lockfile import Header
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Say, Shell, Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.harnesses.golden import RULES
from tests.overnight.harnesses.running import Ran, git, run
from tests.sshd import wait_until

pytestmark = pytest.mark.full  # many real processes: too slow for the fast tier

K = FailureKind
KEY = "sk-scripted-0123456789"
MODEL = "rehearsal-large"
NAMES = {"provider": "rehearsal", "harness": "scripted", "host": "box", "model": MODEL}
COMMIT = Shell("printf 'hi\\n' > greeting.txt && git add -A && git commit -qm 'Add a greeting'")
TAPES = [
    Tape("Add a greeting", (COMMIT, Say("Added."))),
    Tape("Show your environment", (Shell("env > seen.txt; cat seen.txt"), Say("Shown."))),
    Tape("Never stop", tuple(Shell("true") for _ in range(9))),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    both = frozenset({Header.BEARER, Header.X_API_KEY})
    with EmulatedProvider([Site("a", KEY), Site("both", KEY, accepts=both)], TAPES) as running:
        yield running


def wired(provider: EmulatedProvider, key: str = KEY, **env: str) -> dict[str, str]:
    return {
        "OVERNIGHT_SCRIPTED_BASE_URL": provider.url("a"),
        "OVERNIGHT_SCRIPTED_BEARER": key,
        "OVERNIGHT_SCRIPTED_RETRIES": "0",
        **env,
    }


def agent(instruction: str, env: dict[str, str], place: Path, *flags: str, max_turns: int | None = None) -> Ran:
    launch = Launch(sys.executable, instruction, MODEL, flags, max_turns=max_turns)
    return run(scripted, launch, env, place, timeout_s=30, sweep=False)


def play(place: Path, *steps: dict[str, object]) -> Ran:
    block = "\n".join(json.dumps(step) for step in steps)
    return agent(f"Do this.\n\n```script\n{block}\n```\n", {}, place)


def kind(ran: Ran) -> FailureKind | None:
    failure = scripted.diagnose(ran.transcript, RULES, NAMES)
    return failure.kind if failure else None


def test_works_with_a_model_until_the_commit(provider: EmulatedProvider, tmp_path: Path) -> None:
    ran = agent("Add a greeting", wired(provider), tmp_path)
    assert git(ran.work, "log", "--format=%s").splitlines() == ["Add a greeting", "base"]
    assert (ran.work / "greeting.txt").read_bytes() == b"hi\n"
    assert [e.act for e in ran.events] == [
        Act.INIT,
        Act.WAITING,
        Act.OTHER,
        Act.TOOL_STARTED,
        Act.TOOL_ENDED,
        Act.WAITING,
        Act.OTHER,
        Act.SPOKE,
        Act.RESULT,
    ]
    assert [bool(e.usage) for e in ran.events if e.act is Act.OTHER] == [True, True]
    assert (ran.events[-1].ok, ran.events[-1].tokens, ran.events[-2].model) == (True, 220, MODEL)
    assert kind(ran) is None


@pytest.mark.parametrize(
    "instruction", ["---\ntitle: x\n---\nAdd a greeting", "-p Add a greeting", "--help Add a greeting"]
)
def test_an_instruction_like_a_flag_is_an_instruction(
    provider: EmulatedProvider, tmp_path: Path, instruction: str
) -> None:
    assert "Add a greeting" in git(agent(instruction, wired(provider), tmp_path).work, "log", "--format=%s")


def test_each_variable_gives_the_header_it_declares(provider: EmulatedProvider, tmp_path: Path) -> None:
    for variable, header in scripted.HEADER_OF.items():
        env = {"OVERNIGHT_SCRIPTED_BASE_URL": provider.url("both"), variable: KEY}
        assert agent("Add a greeting", env, tmp_path).code == 0
        assert set(provider.calls[-1].keys) == {header}


def test_no_command_it_runs_sees_the_key_and_no_line_shows_it(provider: EmulatedProvider, tmp_path: Path) -> None:
    ran = agent("Show your environment", wired(provider), tmp_path)
    assert "PATH=" in (ran.work / "seen.txt").read_text()
    assert KEY not in (ran.work / "seen.txt").read_text()
    assert KEY.encode() not in ran.out + ran.err


def test_a_probe_gets_its_word_back_without_tools(provider: EmulatedProvider, tmp_path: Path) -> None:
    ran = agent("Reply with the single word kestrel-7.", wired(provider), tmp_path, "--no-tools")
    assert ran.events[-1].text == "kestrel-7"
    assert provider.calls[-1].tools == ()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (FaultKind.KEY_REFUSED, K.AUTH_REJECTED),
        (FaultKind.PAYMENT_REQUIRED, K.BILLING),
        (FaultKind.NO_BALANCE, K.BILLING),
        (FaultKind.WINDOW_USED_UP, K.QUOTA_WINDOW),
        (FaultKind.SERVER_ERROR, K.PROVIDER_ERROR),
        (FaultKind.OVERLOADED, K.OVERLOADED),
        (FaultKind.HTML_PAGE, K.NOT_THE_API),
        (FaultKind.ERROR_IN_OK, K.NOT_THE_API),
        (FaultKind.HANG, K.PROVIDER_MUTE),
        (FaultKind.HEADERS_ONLY, K.PROVIDER_MUTE),
        (FaultKind.CUT, K.NETWORK),
    ],
)
def test_names_what_the_provider_did(
    provider: EmulatedProvider, tmp_path: Path, fault: FaultKind, expected: FailureKind
) -> None:
    provider.set_fault("a", Fault(fault))
    try:
        ran = agent("Add a greeting", wired(provider, OVERNIGHT_SCRIPTED_TIMEOUT_S="0.5"), tmp_path)
    finally:
        provider.set_fault("a", None)
    assert (ran.code, kind(ran)) == (1, expected)


def test_tries_again_what_time_mends(provider: EmulatedProvider, tmp_path: Path) -> None:
    provider.set_fault("a", Fault(FaultKind.RATE_LIMITED, times=1))
    ran = agent("Add a greeting", wired(provider, OVERNIGHT_SCRIPTED_RETRIES="2"), tmp_path)
    retry = next(e for e in ran.events if e.act is Act.RETRYING)
    assert (retry.status, retry.attempt) == (429, 1)
    assert kind(ran) is None


def test_a_refused_key_is_not_tried_twice(provider: EmulatedProvider, tmp_path: Path) -> None:
    before = len(provider.calls)
    ran = agent("Add a greeting", wired(provider, "sk-wrong", OVERNIGHT_SCRIPTED_RETRIES="2"), tmp_path)
    assert kind(ran) is K.AUTH_REJECTED
    assert len(provider.calls) == before + 1


@pytest.mark.parametrize(
    ("key", "expected"), [("", K.KEY_MISSING), ("sk-a\nb", K.AUTH_REJECTED), ("sk-“a”", K.AUTH_REJECTED)]
)
def test_a_key_no_header_can_carry_is_named_and_not_shown(
    provider: EmulatedProvider, tmp_path: Path, key: str, expected: FailureKind
) -> None:
    before = len(provider.calls)
    ran = agent("Add a greeting", wired(provider, key), tmp_path)
    assert kind(ran) is expected
    assert len(provider.calls) == before
    assert b"sk-" not in ran.out + ran.err


def test_nobody_at_the_address_is_a_network_fault(provider: EmulatedProvider, tmp_path: Path) -> None:
    ran = agent("Add a greeting", wired(provider, OVERNIGHT_SCRIPTED_BASE_URL="http://127.0.0.1:1"), tmp_path)
    assert kind(ran) is K.NETWORK


def test_a_model_that_never_ends_meets_the_turn_cap(provider: EmulatedProvider, tmp_path: Path) -> None:
    assert kind(agent("Never stop", wired(provider), tmp_path, max_turns=3)) is K.TURN_LIMIT


def test_plays_a_script_line_by_line(tmp_path: Path) -> None:
    ran = play(
        tmp_path,
        {"say": "Starting"},
        {"write": "a.txt", "text": "身份\n"},
        {"sh": "git add -A && git commit -qm 'Add a' && echo committed"},
        {"raw": "not json"},
        {"stderr": "a warning"},
        {"sleep": 0.01},
    )
    assert git(ran.work, "log", "--format=%s").splitlines() == ["Add a", "base"]
    assert (ran.work / "a.txt").read_text(encoding="utf-8") == "身份\n"
    assert ran.err == b"a warning\n"
    assert [e.act for e in ran.events].count(Act.OTHER) == 1
    assert (ran.code, ran.events[-1].ok, kind(ran)) == (0, True, None)


@pytest.mark.parametrize(
    ("step", "code", "expected"),
    [
        ({"exit": 0}, 0, K.HARNESS_CRASHED),
        ({"exit": 7}, 7, K.HARNESS_CRASHED),
        ({"kill": "KILL"}, -signal.SIGKILL, K.HARNESS_CRASHED),
        ({"dance": 1}, 2, K.HARNESS_USAGE),
    ],
)
def test_ends_as_the_script_says(tmp_path: Path, step: dict[str, object], code: int, expected: FailureKind) -> None:
    ran = play(tmp_path, step)
    assert (ran.code, kind(ran)) == (code, expected)


def test_can_refuse_to_be_ended_politely(tmp_path: Path) -> None:
    ran = play(tmp_path, {"ignore": "TERM"}, {"sh": "kill -TERM $PPID"}, {"say": "still here"})
    assert "still here" in [e.text for e in ran.events]


def test_leaves_children_behind(tmp_path: Path) -> None:
    ran = play(tmp_path, {"sh": "true"}, {"fork": 2})
    try:
        wait_until(lambda: len(_working_in(ran.work)) == 2, 10)  # a child that is being forked is in no folder yet
    finally:
        for pid in _working_in(ran.work):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _working_in(ran.work), 60)


def _working_in(folder: Path) -> list[int]:
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _cwd(pid) == str(folder)]


def _cwd(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def test_reads_the_version_it_prints() -> None:
    done = subprocess.run(scripted.version_argv(sys.executable), capture_output=True, check=True, text=True, timeout=30)
    assert scripted.read_version(done.stdout) == "1"
    assert scripted.read_version("Python 3.11.2") is None

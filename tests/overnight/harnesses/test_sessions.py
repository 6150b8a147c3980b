"""The real agent CLIs go on with a session of their own: the emulated model sees what was said to the run before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.lockfile import Header
from overnight.night import Night
from overnight.preflight import Checked
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Say, Shell, Tape, Write
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Call, Site
from overnight.report import RunReport
from overnight.resume import resumption
from overnight.route import Route
from overnight.spec import TaskSpec
from tests.overnight.nights import KEY, MODEL, Evening, carry_out, commit, loopback, make_repo

pytestmark = pytest.mark.full

PROVIDERS = {"claude-code": "", "codex": "", "copilot": "", "pi": "-x", "qwen": "-x"}
# in a file of the repository, since an agent may look at what it is to run, and refuse to kill
DIE_ONCE = """[ -e ../../dead ] && exit
touch ../../dead
sleep 2
kill -9 $(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' ../started.json)
sleep 9
"""
# one that died in a call may be told a made-up result of it, or make it once more
DIES = (
    Write("one.txt", "1\n"),
    Shell("git add -A && git commit -qm one"),
    Write("two.txt", "2\n"),
    Shell("sh die.sh"),
    Shell("git add -A && git commit -qm two"),
    Say("Done."),
)
STUMBLES = tuple(step for step in DIES if step != DIES[3])


@dataclass
class World:
    """A night with one agent, and what its model heard in each attempt."""

    night: Night
    task: TaskSpec
    provider: EmulatedProvider
    runs: Path

    def attempt(self, number: int, before: RunReport | None = None) -> tuple[RunReport, list[Call]]:
        seen = len(self.provider.calls)
        task = self.task.model_copy(update={"resumed": resumption(self.task, before) if before else None})
        run = carry_out(self.night, task, number)
        return run, [call for call in self.provider.calls[seen:] if call.tools]


def lock_at(provider: EmulatedProvider, path: Path, real: Path) -> Path:
    lock = json.loads(real.read_text())
    for name in ("rehearsal", "rehearsal-x"):
        for endpoint in lock["providers"][name]["endpoints"].values():
            endpoint["url"] = provider.url(name)
    for entry in lock["harnesses"].values():
        if "timing" in entry:
            entry["timing"]["retries"] = 0
    path.write_text(json.dumps(lock))
    return path


@pytest.fixture
def begun(tmp_path: Path, real_agent: Callable[[str], Agent]) -> Iterator[Callable[[str, str], World]]:

    with ExitStack() as stack:

        def begin(name: str, instruction: str) -> World:
            sites = [Site("rehearsal", KEY), Site("rehearsal-x", KEY, accepts=frozenset({Header.X_API_KEY}))]
            provider = stack.enter_context(EmulatedProvider(sites, [Tape("Die once", DIES), Tape("Stumble", STUMBLES)]))
            _, host = stack.enter_context(loopback(tmp_path / "host", path=[str(real_agent(name).path.parent)]))
            make_repo(tmp_path / "repo")
            commit(tmp_path / "repo", "die.sh", DIE_ONCE)

            lock = lock_at(provider, tmp_path / "lock.json", lockfile.DEFAULT_LOCK)
            evening = Evening(tmp_path, str(tmp_path / "repo"), host, lock)
            route = Route(host="box", harness=name, provider=f"rehearsal{PROVIDERS[name]}", model=MODEL)
            task = evening.task("a", instruction).model_copy(update={"route": route, "resume_session": True})
            night = stack.enter_context(evening.night(task))
            night.settle(Checked(route, 0.0))
            return World(night, task, provider, tmp_path / "host" / "home" / ".overnight" / "runs")

        yield begin


def went_on(first: RunReport, second: RunReport, heard: list[Call]) -> None:
    """The second went on with the first's session: proven by what the model was sent, and by what was committed."""
    assert second.failure is None
    assert second.resumed is not None
    assert second.resumed.why == ""
    assert first.session == second.resumed.session is not None
    assert heard[0].turn > 1, "the results of the first run's tools stand in the first request of the second"
    assert [each.subject for each in second.commits] == ["one", "two"]
    assert second.commits[0] == first.commits[0]
    assert second.leftovers is None


def used(heard: list[Call]) -> int:
    """What the emulated model says that so many answers cost."""
    return 110 * len(heard)


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "copilot"])
def test_one_that_was_killed_goes_on(name: str, begun: Callable[[str, str], World]) -> None:
    here = begun(name, "Die once")
    first, heard = here.attempt(1)
    assert first.failure is not None
    assert first.failure.kind is FailureKind.HARNESS_CRASHED
    assert [call.turn for call in heard] == [1, 2, 3, 4]
    second, heard = here.attempt(2, first)
    went_on(first, second, heard)
    assert second.tokens == used(heard)


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_one_whose_provider_stumbled_goes_on_and_its_usage_is_its_own(
    name: str, begun: Callable[[str, str], World]
) -> None:
    here = begun(name, "Stumble")
    site = f"rehearsal{PROVIDERS[name]}"
    # Qwen Code asks again for 75 s when it is told of an overload
    kind = FaultKind.FORBIDDEN if name == "qwen" else FaultKind.OVERLOADED
    here.provider.set_fault(site, Fault(kind, turn=4, lasting=True))
    first, heard = here.attempt(1)
    assert first.failure is not None
    assert [call.turn for call in heard][:4] == [1, 2, 3, 4]
    here.provider.set_fault(site, None)
    second, heard = here.attempt(2, first)
    went_on(first, second, heard)
    assert second.tokens == (None if name == "copilot" else used(heard))


def test_one_that_was_killed_before_it_told_its_session_begins_afresh(begun: Callable[[str, str], World]) -> None:
    here = begun("copilot", "Die once")
    first, _ = here.attempt(1)
    second, heard = here.attempt(2, first)
    assert second.failure is None
    assert second.resumed is not None
    assert (second.resumed.session, second.resumed.why) == (None, "it told no session id")
    assert heard[0].turn == 1
    assert [each.subject for each in second.commits] == ["one", "two"]


def test_a_session_that_the_agent_refuses_does_not_shut_its_route(begun: Callable[[str, str], World]) -> None:
    here = begun("claude-code", "Die once")
    first, _ = here.attempt(1)
    (kept,) = (here.runs / first.run_id / "home").glob(f".claude/projects/*/{first.session}.jsonl")
    kept.write_text("")
    second, _ = here.attempt(2, first)
    assert second.failure is not None
    assert second.failure.kind is FailureKind.HARNESS_CRASHED
    assert f"would not go on with session {first.session}" in second.failure.evidence[0].seen
    assert here.night.shut_by(second.route) is None
    third, heard = here.attempt(3, second)
    assert (third.failure, heard[0].turn) == (None, 1)
    assert third.resumed is not None
    assert third.resumed.session is None


def test_every_harness_that_can_is_proven_here() -> None:
    can = {name for name, each in HARNESSES.items() if not isinstance(each.SESSIONS, str)}
    assert can == {*PROVIDERS, "scripted"}

"""A breach of each invariant is planted and must be named: a suite that cannot fail proves nothing."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from overnight.collected import Commit
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.report import BatchReport, RunReport, count, exit_code
from tests.chaos.faults import STRIKES, Hit
from tests.chaos.invariants import INVARIANTS, breaches
from tests.chaos.machine import pids
from tests.chaos.schedule import Kind, Schedule, Shape, Work, draw
from tests.chaos.seen import Agent, Log, Seen, agents, holding, is_held, left_over, listening
from tests.chaos.world import World
from tests.overnight.nights import KEY, make_repo
from tests.sshd import wait_until

NOW = datetime(2026, 11, 29, tzinfo=UTC)
BATCH = "chaos-1"
SHA = {name: name.encode().hex().ljust(40, "0") for name in ("base", "a", "b", "lost")}
KILLED = fail(FailureKind.HARNESS_CRASHED, Evidence(source="exit", seen="ended by signal 9 (SIGKILL)"))
REBOOTED = fail(FailureKind.LOST, Evidence(source="host", seen="the host rebooted during the run"))


def work(task_id: str, shape: Shape = "good") -> Work:
    return Work(task_id, "h1", shape, (0.1,), 0, 1, verified=False)


def run(task_id: str, sha: str = "", failure: Failure | None = None, **fields: Any) -> RunReport:
    commits = (Commit(sha=SHA[sha], subject=sha, author_date=NOW),) if sha else ()
    given = {
        "run_id": f"{BATCH}.{task_id}.1",
        "attempt": 1,
        "state": "failed" if failure else "succeeded",
        "commits": commits,
        "branch": f"overnight/{BATCH}/{task_id}" if commits else None,
        **fields,
    }
    route = {"host": "h1", "harness": "scripted", "provider": "rehearsal", "model": "m"}
    return RunReport(task_id=task_id, failure=failure, **route, **given)


def agent(task_id: str, *shas: str, ended: int | None = 0) -> Agent:
    return Agent(f"{BATCH}.{task_id}.1", ("boot",), tuple(SHA[sha] for sha in shas), ended, "", 100.0, 110.0)


def log(task_id: str, ours: bytes = b"said\n") -> Log:
    return Log(f"{BATCH}.{task_id}.1", b"said\n", b"said\n", ours)


def night(*runs: RunReport, **changed: Any) -> Seen:
    """A night in which all is well: a task that succeeded and one whose agent was killed."""
    runs = runs or (run("t0", "a"), run("t1", "b", KILLED))
    made = Seen(
        schedule=Schedule(1, "light", 1, 2, (work("t0"), work("t1")), ()),
        batch_id=BATCH,
        hits=(Hit("kill-agent", 105.0, "agent", "h1", f"{BATCH}.t1.1"),),
        exit_code=1,
        stuck="",
        report=report(*runs),
        outcomes={each.run_id: each for each in runs if each.run_id},
        planned=frozenset(each.run_id for each in runs if each.run_id),
        agents={each.run_id: each for each in (agent("t0", "a"), agent("t1", "b", ended=None))},
        logs=(log("t0"), log("t1")),
        home=frozenset(SHA[name] for name in ("base", "a", "b")),
        refs={
            "refs/heads/main": SHA["base"],
            f"refs/heads/overnight/{BATCH}/t0": SHA["a"],
            f"refs/heads/overnight/{BATCH}/t1": SHA["b"],
            f"refs/overnight/{BATCH}.t0.1/head": SHA["a"],
        },
    )
    return replace(made, **changed)


def report(*runs: RunReport, **changed: Any) -> BatchReport:
    made: dict[str, Any] = {
        "batch_id": BATCH,
        "name": "chaos",
        "started_at": NOW,
        "ended_at": NOW,
        "exit_code": exit_code(runs, interrupted=False),
        "routes": (),
        "runs": runs,
        "counts": count(runs),
    }
    return BatchReport(**{**made, **changed})


def broken(seen: Seen) -> list[str]:
    return [name for name, words in breaches(seen).items() if words]


def test_a_night_in_which_all_is_well_breaks_nothing() -> None:
    assert broken(night()) == []


RUNS = (run("t0", "a"), run("t1", "b", KILLED))
PLANTED: dict[str, tuple[str, Callable[[], Seen]]] = {
    "it never ended": ("outcomes", lambda: night(stuck="no end after 120 s")),
    "a killed agent is called a success": ("outcomes", lambda: night(run("t0", "a"), run("t1", "b"), exit_code=0)),
    "a success is called a failure": ("outcomes", lambda: night(run("t0", "a", KILLED), RUNS[1])),
    "a cause that never happened": ("outcomes", lambda: night(RUNS[0], run("t1", "b", REBOOTED, state="lost"))),
    "a broken link is an excuse": (
        "outcomes",
        lambda: night(
            run("t0", "a", fail(FailureKind.HOST_UNREACHABLE, Evidence(source="host", seen="no word"))),
            RUNS[1],
            hits=(*night().hits, Hit("cut", 104.0, "nothing passes", "h1", until=106.0)),
        ),
    ),
    "a run that nobody decided": ("outcomes", lambda: night(outcomes={RUNS[0].run_id: RUNS[0]})),
    "two outcomes of one run": (
        "outcomes",
        lambda: night(outcomes={**night().outcomes, RUNS[0].run_id: run("t0", "a", KILLED)}),
    ),
    "a success with another's commit": ("outcomes", lambda: night(run("t0", "b"), RUNS[1])),
    "a commit that is nowhere": (
        "commits",
        lambda: night(agents={**night().agents, RUNS[1].run_id: agent("t1", "b", "lost", ended=None)}),
    ),
    "a commit that is home and not told": (
        "commits",
        lambda: night(RUNS[0], run("t1", "", KILLED)),
    ),
    "one byte lost": ("logs", lambda: night(logs=(log("t0", b"sad\n"), log("t1")))),
    "one byte twice": ("logs", lambda: night(logs=(log("t0", b"ssaid\n"), log("t1")))),
    "no log": ("logs", lambda: night(logs=(Log(RUNS[0].run_id, b"said\n", b"said\n", None),))),
    "more than was ever written": ("logs", lambda: night(logs=(Log(RUNS[0].run_id, b"said\n", None, b"said\nmore"),))),
    "two processes for one run": (
        "once",
        lambda: night(agents={**night().agents, RUNS[0].run_id: replace(agent("t0", "a"), boots=("boot", "boot"))}),
    ),
    "a process is left over": ("leftovers", lambda: night(leftovers=("a process on h1: sleep 300",))),
    "a ref of nobody": ("leftovers", lambda: night(refs={**night().refs, "refs/overnight/x/head": SHA["a"]})),
    "a branch of nobody": ("leftovers", lambda: night(refs={**night().refs, "refs/heads/stray": SHA["a"]})),
    "the key lies somewhere": ("secrets", lambda: night(secrets=("state/plan.json",))),
    "no report": ("report", lambda: night(report=None)),
    "wrong counts": ("report", lambda: night(report=report(*RUNS, counts={**count(RUNS), "succeeded": 2}))),
    "wrong exit code": ("report", lambda: night(report=report(*RUNS, exit_code=0), exit_code=0)),
    "the process says another": ("report", lambda: night(exit_code=0)),
    "a task is missing": ("report", lambda: night(report=report(RUNS[0]), exit_code=0)),
    "an attempt twice": ("report", lambda: night(report=report(*RUNS, RUNS[1]))),
    "an attempt is missing": ("report", lambda: night(report=report(RUNS[0], run("t1", "b", KILLED, attempt=2)))),
    "left running": ("report", lambda: night(report=report(RUNS[0], run("t1", "b", KILLED, left_running=True)))),
    "a branch elsewhere": (
        "report",
        lambda: night(refs={**night().refs, f"refs/heads/overnight/{BATCH}/t0": SHA["b"]}),
    ),
}


@pytest.mark.parametrize("breach", PLANTED)
def test_a_planted_breach_is_named(breach: str) -> None:
    invariant, planted = PLANTED[breach]
    assert invariant in broken(planted())


def test_every_invariant_can_break() -> None:
    assert {invariant for invariant, _ in PLANTED.values()} == set(INVARIANTS)


def test_a_commit_that_is_named_with_its_place_is_not_lost() -> None:
    lies = Evidence(source="host", seen="the work lies in /root/.overnight/runs/x/work")
    failed = fail(FailureKind.HARNESS_CRASHED, KILLED.evidence[0], lies)
    made = {**night().agents, f"{BATCH}.t1.1": agent("t1", "b", "lost", ended=None)}
    assert broken(night(run("t0", "a"), run("t1", "b", failed), agents=made)) == []


# --- what is seen is really looked at ---


def test_a_seed_means_the_same_for_ever_and_all_kinds_are_drawn() -> None:
    assert draw(7) == draw(7) != draw(8)
    drawn = {fault.kind for seed in range(1, 201) for fault in draw(seed).faults}
    assert drawn == set(STRIKES) == set(get_args(Kind))
    assert {each.shape for seed in range(1, 201) for each in draw(seed).work} == set(get_args(Shape))


@pytest.fixture
def here(tmp_path: Path) -> World:
    """A world without machines."""
    for name in ("state/batches/b", "side"):
        (tmp_path / name).mkdir(parents=True)
    make_repo(tmp_path / "repo")
    return World(tmp_path, draw(1), {}, tmp_path / "lock", tmp_path / "f", frozenset(pids()), frozenset(listening()))


def test_a_process_a_lock_a_port_and_a_lock_file_are_found(here: World) -> None:
    locked = here.state / "batches" / "b" / "controller.lock"
    lying = here.repo / ".git" / "refs.lock"
    lying.touch()
    with (
        locked.open("w") as file,
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(["sleep", "60"]) as stray,
    ):
        port = server.getsockname()[1]
        wanted = {
            "a process here: sleep 60",
            f"a lock that is held: {locked}",
            f"a lock file: {lying}",
            f"port {port} is listened on",
        }
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            wait_until(lambda: wanted <= set(left_over(here)))  # a process has no words yet while it is being born
        finally:
            stray.kill()
    lying.unlink()
    assert not wanted & set(left_over(here))
    assert not is_held(locked)


def test_a_secret_is_found_by_content_and_by_name(tmp_path: Path) -> None:
    assert holding(tmp_path, KEY.encode()) == []
    (tmp_path / "prefect.db").write_bytes(b"\0\xff" + KEY.encode() + b"\0")
    (tmp_path / f"x-{KEY}").mkdir()
    assert sorted(holding(tmp_path, KEY.encode())) == [str(tmp_path / "prefect.db"), str(tmp_path / f"x-{KEY}")]


def test_an_agent_that_was_started_twice_shows_in_its_notes(tmp_path: Path) -> None:
    start = json.dumps({"what": "start", "at": time.time(), "pid": os.getpid(), "boot": "b"})
    (tmp_path / "b.t0.1.notes").write_text(f"{start}\n{start}\n")
    assert agents(tmp_path)["b.t0.1"].boots == ("b", "b")

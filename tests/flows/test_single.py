"""One coding task as a flow run, by a worker: to commits, refused, cancelled, approved, crashed and resumed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import AwaitingRetry

from overnight import past
from overnight.ledger import Ledger
from overnight.rehearsal.model import Shell, Tape, Wait
from tests.flows.served import Served, served
from tests.overnight.nights import COMMIT

pytestmark = pytest.mark.full

QUICK, SLOW, IDLE = "Add a greeting", "Take your time over it", "Only talk about it"
TAPES = (Tape(QUICK, (Shell(COMMIT),)), Tape(SLOW, (Shell(COMMIT), Wait(120))), Tape(IDLE, ()))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served"), TAPES) as here:
        yield here


def words(run: FlowRun) -> str:
    assert run.state is not None
    return f"{run.state.name}: {run.state.message}"


def committed(up: Served, batch: str, task: str) -> list[str]:
    """Subjects on the branch of a task, newest first, without those of main."""
    branches = up.git("for-each-ref", "--format=%(refname:short)", f"refs/heads/overnight/{batch}-*/{task}").split()
    return up.git("log", "--format=%s", f"main..{branches[0]}").splitlines() if branches else []


def living(up: Served) -> list[int]:
    """Processes of agents on the host."""
    mark = str(up.runs)
    return [p.pid for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(mark)]


def flow_process(run_id: UUID) -> psutil.Process:
    """The process that carries a flow run."""
    every = psutil.process_iter(["environ"])
    return next(p for p in every if (p.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") == str(run_id))


def has_committed(up: Served, name: str, count: int = 1) -> bool:
    """Whether so many agents of a batch have made their commit on the host."""
    told = [run / "work" / ".git" / "logs" / "HEAD" for run in up.runs.glob(f"{name}-*")]
    return sum(log.exists() and "Add greeting" in log.read_text() for log in told) == count


def until(holds: Any, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def logs(up: Served, run: FlowRun) -> str:
    mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    return "\n".join(line.message for line in up.call(lambda client: client.read_logs(log_filter=mine, limit=200)))


def test_a_task_comes_to_commits(up: Served) -> None:
    run = up.ended(up.single(QUICK, name="greet", verify="test -s greeting.txt"))
    assert words(run) == "Completed: 1 succeeded"
    assert run.name == "greet"
    assert {"provider:rehearsal", "harness:scripted", "host:box"} <= set(run.tags)
    assert committed(up, "greet", "greet") == ["Add greeting"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo": "https://token@git.example/x"},
        {"route": "claude-code / nobody / x"},
        {"instruction": ""},
        {"limits": {"total_s": -1}},
    ],
    ids=str,
)
def test_the_form_refuses_what_it_can_say_before_anything_starts(up: Served, wrong: dict[str, Any]) -> None:
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        up.single(**{"instruction": QUICK, **wrong})


def test_the_rest_is_refused_in_the_words_of_the_command_line(up: Served) -> None:
    run = up.ended(up.single(QUICK, repo="/no/such/folder"))
    assert words(run) == "Failed: parameters: repo: no folder /no/such/folder. Give a git repository or a URL"
    run = up.ended(up.single(QUICK, limits={"quiet_s": 400, "total_s": 300}))
    assert words(run).startswith("Failed: parameters: limits.quiet_s: ")


def test_a_failed_task_shows_its_cause_and_its_mend(up: Served) -> None:
    run = up.ended(up.single(IDLE))
    assert run.name == "only-talk-about-it"
    assert words(run).startswith("Failed: 1 failed; no-commit: ")
    assert "Mend: " in words(run)


def test_cancel_ends_the_run_on_its_host_and_collects_what_it_committed(up: Served) -> None:
    begun = up.single(SLOW, name="slow")
    until(lambda: has_committed(up, "slow"))

    up.cancel(begun)
    run = up.ended(begun)
    assert words(run).startswith("Cancelled")
    until(lambda: committed(up, "slow", "slow") == ["Add greeting"])
    until(lambda: not living(up))


def test_a_flow_that_is_killed_while_it_is_cancelled_is_finished_by_its_worker(up: Served) -> None:
    begun = up.single(SLOW, name="brief")
    until(lambda: has_committed(up, "brief"))
    flow = flow_process(begun)
    flow.send_signal(signal.SIGSTOP)  # it cannot hear the request, as one that hangs
    up.cancel(begun)
    until(lambda: not living(up), 120)
    until(lambda: committed(up, "brief", "brief") == ["Add greeting"])
    assert words(up.ended(begun)).startswith("Cancelled")


@pytest.mark.parametrize(("decision", "delivered"), [("all", ["Add greeting"]), ("none", [])])
def test_a_branch_waits_for_a_persons_word(up: Served, decision: str, delivered: list[str]) -> None:
    name = f"asked-{decision}"
    begun = up.single(QUICK, name=name, approve=True)
    up.until(begun, lambda run: run.state is not None and run.state.is_paused())
    assert committed(up, name, name) == []

    async def answer(client: Any) -> None:
        await client.resume_flow_run(begun, run_input={"deliver": decision})

    up.call(answer)
    assert words(up.ended(begun)).startswith("Completed: ")
    assert committed(up, name, name) == delivered
    heads = up.git("for-each-ref", "--format=%(refname)", f"refs/overnight/{name}-*/head")
    assert heads or up.git("for-each-ref", "--format=%(refname)", "refs/overnight/").count(name)


def test_retry_of_a_killed_flow_goes_on_with_what_it_began(up: Served) -> None:
    begun = up.single(SLOW, name="again")
    until(lambda: has_committed(up, "again"))
    flow_process(begun).kill()
    assert words(up.ended(begun)).startswith("Crashed")
    time.sleep(6)  # a worker tells of it twice, and 3 s later over whatever came meanwhile (Prefect 3.9.1)
    up.call(lambda client: client.set_flow_run_state(begun, AwaitingRetry()))  # what the pages' Retry button does
    up.until(begun, lambda run: run.state is not None and run.state.is_running())
    (batch,) = up.state.glob("batches/again-*")
    until(lambda: past.is_held(Ledger(up.state, batch.name)))
    up.cancel(begun)
    up.ended(begun)
    until(lambda: committed(up, "again", "again") == ["Add greeting"])
    assert len(list(up.state.glob("batches/again-*"))) == 1, "no second batch was begun"
    assert len(list(up.runs.glob("again-*.again.*"))) == 1, "nothing was started twice"


def test_a_killed_flow_is_seen_and_resumed_with_the_same_button(up: Served) -> None:
    begun = up.single(SLOW, name="crash")
    until(lambda: has_committed(up, "crash"))
    batch_id = next(up.runs.glob("crash-*")).name.rpartition(".")[0].rpartition(".")[0]
    flow_process(begun).kill()
    assert words(up.ended(begun)).startswith("Crashed")
    assert living(up), "the agent on the host outlives the flow"
    again = up.single(SLOW, name="crash", resume=batch_id)
    up.until(again, lambda run: run.state is not None and run.state.is_running())

    until(lambda: past.is_held(Ledger(up.state, batch_id)))
    up.cancel(again)
    up.ended(again)
    until(lambda: committed(up, "crash", "crash") == ["Add greeting"])
    assert len(list(up.runs.glob(f"{batch_id}.crash.*"))) == 1, "nothing was started twice"

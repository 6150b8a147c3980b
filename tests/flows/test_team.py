"""A team's night: PostgreSQL, Redis, two API processes, three workers, three hosts; and a machine of each kind dies."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from overnight.rehearsal.model import Shell, Step, Tape, Wait
from tests.flows.teamed import Program, Team, team
from tests.flows.test_single import until, words
from tests.overnight.nights import COMMIT, MODEL

pytestmark = pytest.mark.full

HOSTS, SLOTS, TASKS, LIMIT = ("ant", "bee", "cat"), 3, {"east": 40, "west": 20}, 4
MARK = "echo $OVERNIGHT_RUN_ID >> {}"
QUICK, TWICE, SLOW, SLOWER = "Add a greeting", "Add it twice", "Take your time over it", "Take more time over it"
IDLE, UNTESTED = "Only talk about it", "Add what does not work"
STEPS: dict[str, tuple[Step, ...]] = {
    QUICK: (Shell(COMMIT),),
    TWICE: (Shell(COMMIT), Shell("echo more > more.txt && git add -A && git commit -qm 'Add more'")),
    SLOW: (Wait(5), Shell(COMMIT), Wait(3)),
    SLOWER: (Shell(COMMIT), Wait(14)),
    IDLE: (),
    UNTESTED: (Shell(COMMIT),),
}
COMMITS = {QUICK: ["Add greeting"], TWICE: ["Add more", "Add greeting"], IDLE: []}
CAUSES = {IDLE: "no-commit", UNTESTED: "verify-failed"}
LIMITS = {"first_event_s": None, "quiet_s": None, "total_s": 300, "grace_s": 1, "attempts": 1}
NIGHT_S = 600


def asked(number: int) -> str:
    return list(STEPS)[number % len(STEPS)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    directory = tmp_path_factory.mktemp("team")
    begun = Shell(MARK.format(directory / "begun"))
    tapes = tuple(Tape(match, (begun, *steps)) for match, steps in STEPS.items())
    with team(directory, tapes, HOSTS, SLOTS) as up:
        yield up


def start(here: Team, name: str, count: int) -> UUID:
    """Hand in a batch: the tasks of each kind on every host."""
    route = {"harness": "scripted", "provider": "rehearsal", "model": MODEL}
    tasks = [
        {
            "id": f"t{i:02}",
            "instruction": asked(i),
            "route": {"host": HOSTS[(i + i // len(STEPS)) % len(HOSTS)], **route},
            "verify": "test -e nowhere" if asked(i) == UNTESTED else None,
        }
        for i in range(count)
    ]
    defaults = {"repo": str(here.repo), "base": "main", "limits": LIMITS, "ask_for_commit": False}
    whole = {"schema": 1, "name": name, "spread": True, "hosts": here.hosts, "defaults": defaults, "tasks": tasks}
    path = here.directory / f"{name}.yaml"
    path.write_text(json.dumps(whole))
    return here.start("batch/batch", files=[str(path)])


def carried(worker: Program) -> set[str]:
    """The flow runs whose processes are this worker's."""
    found = set()
    for process in worker.tree():
        try:
            found.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found - {""}


def victim(here: Team, batches: list[UUID]) -> Program:
    """A worker without a batch; best one whose tasks are all at work: on one that it only took a batch waits 300 s."""
    without = [worker for worker in here.workers if not carried(worker) & set(map(str, batches))]
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        for worker in without:
            states = [here.run(UUID(each)).state for each in carried(worker)]
            if len(states) == LIMIT and all(state is not None and state.is_running() for state in states):
                return worker
        time.sleep(0.3)
    return without[0]


def spans(here: Team, host: str) -> list[tuple[float, float]]:
    """When each agent on a host began and ended, by the clock of its supervisor."""
    found = []
    for run in (Path(here.hosts[host]["directory"]) / "runs").glob("*.t??.*"):  # with the checks of what came home
        began = json.loads((run / "started.json").read_text())["boot_s"]
        found.append((began, began + json.loads((run / "exit.json").read_text())["seconds"]))
    return found


def most_at_once(spans: list[tuple[float, float]]) -> int:
    # an end before a start at the same moment
    moments = sorted([(end, -1) for _, end in spans] + [(began, 1) for began, _ in spans])
    return max(itertools.accumulate(step for _, step in moments))


def report(here: Team, batch_id: str) -> dict[str, Any]:
    (place,) = here.directory.glob(f"w*/state/overnight/batches/{batch_id}/report.json")
    found: dict[str, Any] = json.loads(place.read_text())
    return found


def check_outcomes(here: Team, batch_id: str, count: int) -> None:
    runs = report(here, batch_id)["runs"]
    assert [run["task_id"] for run in runs] == [f"t{i:02}" for i in range(count)], "one outcome each"
    for i, run in enumerate(runs):
        cause = run["failure"] and run["failure"]["kind"]
        assert cause == CAUSES.get(asked(i)), f"{run['task_id']}: {run['failure']}"
        assert run["state"] == ("failed" if cause else "succeeded")
        branch = f"overnight/{batch_id}/{run['task_id']}"
        home = COMMITS.get(asked(i), ["Add greeting"])
        heads = here.git("for-each-ref", "--format=%(refname:short)", f"refs/heads/{branch}")
        assert heads == (branch if home else "")
        if home:
            assert here.git("log", "--format=%s", f"main..{branch}").splitlines() == home


def check_hosts(here: Team, batch_ids: list[str]) -> None:
    expected = sorted(
        f"{b}.t{i:02}.1" for b, count in zip(batch_ids, TASKS.values(), strict=True) for i in range(count)
    )
    places = [run for host in here.hosts.values() for run in (Path(host["directory"]) / "runs").glob("*.t??.?")]
    assert sorted(place.name for place in places) == expected, "one run directory for each task"
    begun = Counter((here.directory / "begun").read_text().split())
    assert begun == Counter(expected), "one agent ever"
    assert {host: most_at_once(spans(here, host)) <= SLOTS for host in HOSTS} == dict.fromkeys(HOSTS, True)
    places_of_hosts = tuple(host["directory"] for host in here.hosts.values())
    assert not [p for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(places_of_hosts)]


def held(here: Team) -> dict[str, int]:
    """Slots that somebody still has."""
    limits = here.call(lambda client: client.read_global_concurrency_limits(limit=50, offset=0))
    return {each.name: each.active_slots for each in limits if each.active_slots}


def test_a_worker_and_an_api_die_and_nothing_is_lost_or_doubled(here: Team) -> None:
    for number in range(3):
        here.add_worker(number % 2, LIMIT)
    batches = [start(here, name, count) for name, count in TASKS.items()]

    until(lambda: begun(here) >= 8, 240)
    chosen = victim(here, batches)
    its = [UUID(each) for each in carried(chosen)]
    chosen.die()
    lost = [run_id for run_id in its if (state := here.run(run_id).state) is not None and not state.is_final()]
    assert lost

    until(lambda: begun(here) >= 20, 240)
    # the one that the batch itself talks to
    api = next(i for i, worker in enumerate(here.workers) if str(batches[0]) in carried(worker)) % 2
    here.env["PREFECT_API_URL"] = here.url(1 - api)
    here.apis[api].die()
    time.sleep(8)
    here.apis[api].start()
    chosen.start()

    ended = [here.ended(run_id, NIGHT_S) for run_id in batches]
    assert [words(run).split(":")[0] for run in ended] == ["Failed", "Failed"]
    assert [words(here.run(run_id)).split(":")[0] for run_id in lost] == ["Crashed"] * len(lost)
    batch_ids = [next(here.directory.glob(f"w*/state/overnight/batches/{name}-*")).name for name in TASKS]
    for batch_id, count in zip(batch_ids, TASKS.values(), strict=True):
        check_outcomes(here, batch_id, count)
    check_hosts(here, batch_ids)
    until(lambda: not any(map(carried, here.workers)))
    until(lambda: not held(here), 150)


def begun(here: Team) -> int:
    place = here.directory / "begun"
    return len(place.read_text().split()) if place.exists() else 0

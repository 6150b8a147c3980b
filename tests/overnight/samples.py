"""A batch, its plans and a night's report, made of the real lock and the real harnesses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from overnight import lockfile
from overnight.collected import Collected, Commit, Leftovers
from overnight.cost import Cost
from overnight.failures import RULES, Evidence, Failure, FailureKind, fail
from overnight.handover import Finding, Handed
from overnight.harnesses import HARNESSES
from overnight.kinds import ORDER
from overnight.lockfile import ProviderLock
from overnight.plan import Planner, RunPlan
from overnight.report import BatchReport, Check, PassedOver, Phases, RouteReport, RunReport, Verify, count, exit_code
from overnight.route import Route
from overnight.session import Resumed
from overnight.spec import BatchSpec, HostSpec, Limits, TaskSpec
from overnight.stop import Audit
from overnight.usage import Usage

LOCK = lockfile.load()
BATCH_ID = "night-20261122-210000-ab12"
BOX = HostSpec(address="10.0.0.5", user="dev", key_file=Path("/k"), path=("/opt/bin",))
ROUTE = Route(host="box", harness="claude-code", provider="zai", model="glm-5.2")
OLD = ROUTE.model_copy(update={"host": "old-box"})
AT = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)


def task(**changes: Any) -> TaskSpec:
    fields = {"id": "shout", "repo": "/srv/app", "base": "main", "instruction": "Add --shout", "field": "tasks[0]"}
    return TaskSpec.model_validate({**fields, "route": ROUTE, "limits": Limits(), **changes})


def batch(*tasks: TaskSpec, **changes: Any) -> BatchSpec:
    fields = {"name": "night", "source": "night.yaml", "author": "Ann <ann@x>", "hosts": {"box": BOX}}
    return BatchSpec.model_validate({**fields, "tasks": tasks or (task(),), **changes})


def planner(spec: BatchSpec | None = None, lock: ProviderLock = LOCK, batch_id: str = BATCH_ID) -> Planner:
    return Planner(lock, "providers.lock.json", HARNESSES, spec or batch(), batch_id)


def plan(**changes: Any) -> RunPlan:
    spec = batch(task(**changes))
    return planner(spec).resolve(spec.tasks[0], 1, "a" * 40)


def commit(subject: str = "Add --shout") -> Commit:
    return Commit(sha="c" * 40, subject=subject, author_date=AT)


def collected(*commits: Commit, left: int = 0) -> Collected:
    files = tuple(f"file{i}" for i in range(left))
    return Collected(
        repo="/srv/app",
        base_sha="a" * 40,
        tip=commits[-1].sha if commits else None,
        branch=f"overnight/{BATCH_ID}/shout" if commits else None,
        commits=commits,
        leftovers=Leftovers(ref="refs/overnight/x/wip", sha="d" * 40, count=left, files=files) if left else None,
    )


def run(**changes: Any) -> RunReport:
    fields = {"task_id": "shout", "run_id": f"{BATCH_ID}.shout.1", "attempt": 1, "state": "succeeded"}
    return RunReport.model_validate({**ROUTE.model_dump(), **fields, **changes})


def full_run(**changes: Any) -> RunReport:
    """An attempt about which there is something to say in every field."""
    found = collected(commit(), left=2)
    seen = (Evidence(source="exit", seen="`make test` ended with 2", at_s=61.5, where="verify"),)
    return run(
        harness_version="2.1.330",
        state="failed",
        failure=fail(FailureKind.VERIFY_FAILED, *seen, retry_after_s=3.0),
        session="6795d3fc-b2b6-4aa0-9cb5-60eb8f97e25c",
        resumed=Resumed(run_id="x.shout.0", after=FailureKind.WENT_QUIET, why="it told no session id"),
        passed_over=(PassedOver(route=OLD, because="tried", failure=proven(FailureKind.DISK_FULL)),),
        commits=found.commits,
        branch=found.branch,
        repo=found.repo,
        base_sha=found.base_sha,
        diffstat="1 file changed",
        other_refs={"refs/overnight/x/other/y": "e" * 40},
        leftovers=found.leftovers,
        verify=Verify(
            command="make test",
            exit_code=2,
            seconds=4.5,
            tail="1 failed",
            again=Check(exit_code=0, seconds=4.0),
            flaky=True,
        ),
        seconds=Phases(queued=0.5, start=1.0, run=60.0, collect=0.2),
        first_event_s=0.8,
        named_at=AT,
        monitor=Audit(rule="quiet_s", at_s=421.5, running=("claude -p x (pid 7)",), progress_after=True, spared=2),
        tokens=1234,
        usage=Usage(fresh=1000, output=234),
        usd=0.5,
        cost=Cost(
            source="rates",
            why="tokens at the rates of 2026-11-22 from a page",
            usd=0.5,
            amount=0.5,
            currency="USD",
            as_of=AT.date(),
        ),
        peak="3 times the quota 14:00-18:00 UTC+08:00",
        claims="it reported success; there is no commit",
        log="/state/runs/x",
        gaps=("10 bytes of out, from 5 on, are missing: the host gave them back when another controller had them",),
        origin="/srv/app",
        started_at=AT,
        credential="5f1c8a90b2e4",
        environment="c0ffee123456",
        approved=True,
        guards=(
            Finding(guard="secrets", policy="hold", seen="1 added line looks like a secret", count=1, places=("a:1",)),
        ),
        handed=Handed(how="push", state="failed", remote="origin", branch="o/x", sha="c" * 40, problem="no", mend="m"),
        **changes,
    )


def proven(kind: FailureKind, seen: str = "what was seen", **changes: Any) -> Failure:
    """A failure of this kind with a sighting that proves it."""
    source = min(RULES[kind].proved_by or ORDER, key=ORDER.index)
    return fail(kind, Evidence(source=source, seen=seen), **changes)


def report(*runs: RunReport) -> BatchReport:
    refused = fail(FailureKind.AUTH_REJECTED, Evidence(source="probe", seen="401", at_s=0.4), names=ROUTE.names)
    names = ROUTE.model_dump()
    return BatchReport(
        batch_id=BATCH_ID,
        name="night",
        started_at=AT,
        ended_at=AT.replace(hour=22),
        exit_code=exit_code(runs, interrupted=False),
        routes=(
            RouteReport(**names, state="open", preflight_s=2.0),
            RouteReport(**{**names, "model": "glm-5.1"}, state="shut", preflight_s=1.0, failure=refused),
        ),
        runs=runs,
        counts=count(runs),
        source="night.yaml",
    )

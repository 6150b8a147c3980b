"""Events for the automations of a user: what finished, and which route was shut, and
which breaker opened.

`emit_event` hands an event to a thread of Prefect's and returns at once; while
the API is away that thread tries each event for 7 s and drops it (3.8.8).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect.events import emit_event

from overnight.breaker import Breaker
from overnight.failures import Failure
from overnight.morning import headline
from overnight.night import Night
from overnight.report import (
    EXIT_INTERRUPTED,
    EXIT_NOTHING_STARTED,
    EXIT_SUCCEEDED,
    BatchReport,
    RunReport,
    last_attempts,
)
from overnight.route import Route

# the server takes 1.5 MB an event, and its reader wants the first of each
SIGHTINGS, LETTERS, TASKS = 5, 500, 100
_ENDS = {EXIT_SUCCEEDED: "succeeded", EXIT_NOTHING_STARTED: "skipped", EXIT_INTERRUPTED: "interrupted"}


def run_finished(night: Night, run: RunReport) -> None:
    """`overnight.run.finished`: an attempt was decided, or a task never started."""
    labels = {
        "overnight.state": run.state,
        "overnight.task": run.task_id,
        "overnight.attempt": str(run.attempt),
        "overnight.run-id": run.run_id,
        **_failure_labels(run.failure),
        **_route_labels(run.route),
    }
    payload = {
        "state": run.state,
        "commits": len(run.commits),
        "subjects": [commit.subject[:LETTERS] for commit in run.commits[:SIGHTINGS]],
        "diffstat": run.diffstat,
        "branch": run.branch,
        "repo": run.repo,
        "base_sha": run.base_sha,
        "check_exit_code": run.verify.exit_code if run.verify else None,
        "seconds": run.seconds.model_dump(),
        "tokens": run.tokens,
        "usd": run.usd,
        "log": run.log,
        **_cause(run.failure),
    }
    resource = _resource(f"task.{night.batch.name}.{run.task_id}", f"{run.task_id} of {night.batch.name}")
    _emit("overnight.run.finished", resource, night, labels, payload, {"route": _route(run.route)})


def route_shut(night: Night, route: Route, failure: Failure) -> None:
    """`overnight.route.shut`: no further task of this batch goes there."""
    labels = {"overnight.state": "shut", **_failure_labels(failure), **_route_labels(route)}
    _emit("overnight.route.shut", _route(route), night, labels, {"route": str(route), **_cause(failure)}, {})


def breaker_opened(night: Night, key: str, route: Route, breaker: Breaker) -> None:
    """`overnight.breaker.opened`: nothing starts on this route, or with this provider, until the moment it names."""
    labels = {"overnight.state": "open", **_failure_labels(breaker.why), **_route_labels(route)}
    until = datetime.fromtimestamp(breaker.until or 0.0, UTC).isoformat(timespec="seconds")
    payload = {"breaker": key, "until": until, "failures": breaker.failures, **_cause(breaker.why)}
    _emit(
        "overnight.breaker.opened", _resource(f"breaker.{key}", key), night, labels, payload, {"route": _route(route)}
    )


def batch_finished(night: Night, report: BatchReport) -> None:
    """`overnight.batch.finished`: the report is written. `failed` in its payload names the first hundred tasks."""
    last = last_attempts(report.runs)
    labels = {
        "overnight.state": _ENDS.get(report.exit_code, "failed"),
        "overnight.exit-code": str(report.exit_code),
    }
    failed = [{"task": run.task_id, "state": run.state, **_cause(run.failure, 0)} for run in last if run.failure]
    payload = {
        "words": headline(report),
        "counts": report.counts,
        "commits": sum(len(run.commits) for run in last),
        "seconds": (report.ended_at - report.started_at).total_seconds(),
        "failed": failed[:TASKS],
        "undelivered": [run.task_id for run in last if run.undelivered][:TASKS],
        "report": str(night.ledger.directory / "report.md"),
    }
    _emit("overnight.batch.finished", _batch(night), night, labels, payload, {})


def _emit(
    event: str,
    resource: dict[str, str],
    night: Night,
    labels: dict[str, str],
    payload: dict[str, Any],
    related: dict[str, dict[str, str]],
) -> None:
    """Send it. `related` is by role; the batch is related to everything but itself."""
    own = {"overnight.batch": night.batch.name, "overnight.batch-id": night.ledger.batch_id}
    roles = {**related, "batch": _batch(night)} if resource != _batch(night) else related
    others = [{**found, "prefect.resource.role": role} for role, found in roles.items()]
    emit_event(event, {**resource, **own, **labels}, related=others, payload=payload)


def _resource(id: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"overnight.{id}", "prefect.resource.name": name}


def _batch(night: Night) -> dict[str, str]:
    return _resource(f"batch.{night.batch.name}", f"batch {night.batch.name}")


def _route(route: Route) -> dict[str, str]:
    return _resource(f"route.{route.host}.{route.harness}.{route.provider}.{route.model}", str(route))


def _route_labels(route: Route) -> dict[str, str]:
    return {f"overnight.{part}": name for part, name in route.names.items()}


def _failure_labels(failure: Failure | None) -> dict[str, str]:
    return {"overnight.kind": failure.kind, "overnight.family": failure.family} if failure else {}


def _cause(failure: Failure | None, sightings: int = SIGHTINGS) -> dict[str, Any]:
    if failure is None:
        return {}
    return {
        "kind": failure.kind,
        "family": failure.family,
        "cause": failure.brief[:LETTERS],
        "evidence": [str(evidence)[:LETTERS] for evidence in failure.evidence[:sightings]],
        "remedy": failure.remedy[:LETTERS],
    }

"""What did not come home, by cause: who must act, what it cost, and the command that mends it or looks closer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from overnight.failures import RULES, WHO, Evidence, FailureKind, Family
from overnight.report import BatchReport, RunReport, last_attempts

_K, _F = FailureKind, Family
_DOCTOR = "overnight doctor{file} --route {host}/{harness}/{provider}/{model}"
_HOST, _KEY = "overnight doctor{file} --host {host}", "overnight credentials check {provider}"
_RESUME = "python -m flows.batch --resume {batch}"
_OF_KIND = {
    _K.AUTH_REJECTED: "overnight credentials add {provider}",
    _K.KEY_MISSING: "overnight credentials add {provider}",
    _K.PERMISSION_DENIED: "overnight lock explain {provider}/{harness}",
    _K.WORKSPACE: "git ls-remote {origin}",
    _K.DISK_FULL: "overnight gc",
    _K.HARNESS_MISSING: _HOST,
    _K.COLLECT_FAILED: "overnight collect {batch}",
    _K.INTERNAL: _RESUME,
}
_OF_FAMILY = {
    _F.SETUP: _DOCTOR,
    _F.AUTH: _KEY,
    _F.QUOTA: _KEY,
    _F.PROVIDER: _KEY,
    _F.NETWORK: _DOCTOR,
    _F.HOST: _HOST,
    _F.HARNESS: "overnight logs {run} --err",
    _F.STALL: "overnight logs {run}",
    _F.WORK: "overnight logs {run}",
    _F.OURS: "",
    _F.UNKNOWN: "overnight logs {run} --out",
}
_SIGHTINGS = 3
_FILES = (".yaml", ".yml", ".md")


@dataclass(frozen=True)
class Cause:
    """Tasks that failed of one thing and need one mend.

    `seen` is what proves it, of the first tasks whose sightings differ: task id, sighting.
    `seconds` and `usd` are what all their attempts took; `usd` is None where no
    figure is known. `command` mends it, or shows more where no command can mend it.
    """

    kind: FailureKind
    family: Family
    who: str
    meaning: str
    seen: tuple[tuple[str, Evidence], ...]
    mend: str
    command: str
    tasks: tuple[RunReport, ...]
    seconds: float
    usd: float | None


def outstanding(report: BatchReport) -> list[Cause]:
    """The causes of what did not come home, most costly first: by tasks, then by seconds that agents ran for them."""
    groups: dict[tuple[FailureKind, str], list[RunReport]] = {}
    for run in last_attempts(report.runs):
        if run.failure is not None and run.state != "succeeded":
            groups.setdefault((run.failure.kind, run.failure.remedy), []).append(run)
    causes = [_cause(kind, mend, tasks, report) for (kind, mend), tasks in groups.items()]
    return sorted(causes, key=lambda cause: (-len(cause.tasks), -cause.seconds))


def again(report: BatchReport) -> list[str]:
    """The tasks to start anew once things are mended; what is left running is gone on with instead."""
    return [run.task_id for run in last_attempts(report.runs) if run.state != "succeeded" and not run.left_running]


def batch_file(report: BatchReport) -> str:
    """The batch file as a shell takes it; empty where the batch came from elsewhere."""
    return shlex.quote(report.source) if report.source and report.source.endswith(_FILES) else ""


def _cause(kind: FailureKind, mend: str, tasks: Sequence[RunReport], report: BatchReport) -> Cause:
    ids = {run.task_id for run in tasks}
    tries = [run for run in report.runs if run.task_id in ids]
    paid = [run.usd for run in tries if run.usd is not None]
    proofs = {run.failure.evidence[0].seen: run for run in tasks[::-1] if run.failure and run.failure.evidence}
    shown = [run for run in tasks if run in proofs.values()][:_SIGHTINGS]
    return Cause(
        kind=kind,
        family=RULES[kind].family,
        who=WHO[RULES[kind].family],
        meaning=RULES[kind].meaning,
        seen=tuple((run.task_id, run.failure.evidence[0]) for run in shown if run.failure),
        mend=mend,
        command=_command(kind, tasks[0], report),
        tasks=tuple(tasks),
        seconds=sum(run.seconds.run or 0.0 for run in tries),
        usd=sum(paid) if paid else None,
    )


def _command(kind: FailureKind, run: RunReport, report: BatchReport) -> str:
    form = _OF_KIND.get(kind, _OF_FAMILY[RULES[kind].family])
    if run.left_running:
        form = _RESUME
    elif not run.run_id and "{run}" in form:
        form = _DOCTOR
    names = {**run.route.names, "run": run.run_id, "batch": report.batch_id, "origin": run.origin or "REPO"}
    quoted = {name: shlex.quote(value) for name, value in names.items()}
    file = batch_file(report)
    return form.format(file=f" {file}" if file else "", **quoted)

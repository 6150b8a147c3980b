"""The report in words: Markdown for pages and files, rows for tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from overnight.failures import Failure
from overnight.firstlines import (
    came_home,
    headline,
    home,
    look_at,
    many,
    next_start,
    slices,
    weighed,
    whereabouts,
    who_must_act,
)
from overnight.outgoing import by_hand, checks, findings, handed, standing
from overnight.printable import fenced, safe
from overnight.report import BatchReport, RouteReport, RunReport, last_attempts
from overnight.totals import cost_lines, cost_of

__all__ = ["headline", "judged", "many", "markdown", "rows", "run_markdown", "summary", "whereabouts"]


def rows(report: BatchReport, pages: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, Any]]:
    """One row an attempt, for a table artifact.

    Args:
        pages: Prefect's page of an attempt by its run id, for those that have one.
    """
    return [
        {
            "task": run.task_id,
            "attempt": run.attempt,
            "state": run.state,
            "cause": run.failure.kind if run.failure else "",
            "commits": len(run.commits),
            "seconds": run.seconds.run,
            "usd": run.usd,
            "cost from": run.cost.source if run.cost else "",
            "branch": run.branch or "",
            "guards": ", ".join(sorted({f"{each.guard} ({each.policy})" for each in run.guards})),
            "delivered": (run.handed.url or run.handed.state) if run.handed else "",
            "tokens": run.tokens,
            "host": run.host,
            "harness": f"{run.harness} {run.harness_version or ''}".strip(),
            "model": f"{run.model} of {run.provider}",
            "log": run.log or "",
            "page": pages.get(run.run_id, ""),
        }
        for run in report.runs
    ]


def markdown(report: BatchReport) -> str:
    """The whole night on a page: what came home, what did not and why, where everything is."""
    lasted = (report.ended_at - report.started_at).total_seconds()
    lines = [
        f"# {headline(report)}",
        "",
        f"Batch `{report.batch_id}`, {report.started_at:%Y-%m-%d %H:%M} UTC, {lasted:.0f} s.",
        "",
        *_first(report),
        *_weighed(report),
        "## Routes",
        "",
        *[_route_line(route) for route in report.routes],
        "",
        *([*judged(report), ""] if report.kills or report.spared else []),
        *_costs(report),
        "## Tasks",
        "",
    ]
    return safe("\n".join(lines) + "\n".join(run_markdown(run) for run in report.runs))


def _first(report: BatchReport) -> list[str]:
    """What came home and where, what did not and who must act."""
    lines = [came_home(report), "", *[f"- {run.task_id}: `{look_at(run)}`" for run in home(report) if run.branch], ""]
    causes = who_must_act(report)
    if causes:
        lines += ["## Who must act", ""]
        for heading, mending in causes:
            lines += [f"- {heading}", *[f"  - {words}" for words in mending]]
        lines += ["", *([f"Then again: `{start}`", ""] if (start := next_start(report)) else [])]
    return lines


def _costs(report: BatchReport) -> list[str]:
    lines = [f"{'  ' * words.startswith('  ')}- {words.strip()}" for words in cost_lines(report)]
    return ["## Cost", "", *lines, ""] if lines else []


def _weighed(report: BatchReport) -> list[str]:
    lines = [f"- {words}" for words in weighed(report)]
    if report.attribution and (found := slices(report.attribution)):
        lines += ["", "| | | succeeded | infrastructure set aside |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in found]
    return [*lines, ""] if lines else []


def run_markdown(run: RunReport) -> str:
    """One attempt: state, commits, what is left over, cause and mend."""
    attempt = f" (attempt {run.attempt})" if run.attempt > 1 else ""
    state = "left running" if run.left_running else run.state
    lines = [f"### {run.task_id}: {state}{attempt}", ""]
    if run.commits:
        lines += [f"{whereabouts(run)}{', ' + run.diffstat if run.diffstat else ''}", ""]
        lines += [f"- `{c.sha[:10]}` {c.subject}" for c in run.commits] + [""]
    if run.guards:
        lines += [*fenced("\n".join([*findings(run, 20), standing(run), by_hand(run)]).strip()), ""]
    if run.handed:
        lines += [*(f"- {words}" for words in handed(run.handed)), ""]
    if run.failure:
        lines += [*_failure_lines(run.failure), ""]
    lines += [line for each in run.passed_over for line in (_sentence(str(each)), "")]
    lines += [f"It {run.resumed}.", ""] if run.resumed else []
    if run.monitor and run.monitor.rule:
        running = "; ".join(f"`{command}`" for command in run.monitor.running) or "nothing that could be seen"
        lines += [f"Ended by the rule {run.monitor.rule} at {run.monitor.at_s:.0f} s, running: {running}.", ""]
    if run.claims:
        lines += [f"The agent's claim does not hold: {run.claims}.", ""]
    lines += [line for gap in run.gaps for line in (f"Of its output {gap}.", "")]
    if run.leftovers:
        lines += [f"Not committed: {many(run.leftovers.count, 'file')}, saved as `{run.leftovers.ref}`.", ""]
        lines += [f"Not saved: {words}" for words in run.leftovers.missed] + [""] * bool(run.leftovers.missed)
    if run.other_refs:
        lines += ["Further tips: " + ", ".join(f"`{ref}` {sha[:10]}" for ref, sha in run.other_refs.items()), ""]
    for words, tail in checks(run.verify):
        lines += [words, "", *([*fenced(tail), ""] if tail else [])]
    return "\n".join([*lines, f"{_figures(run)}", ""])


def summary(report: BatchReport, directory: Path, pages: str | None) -> str:
    """The last words of a batch on a terminal: what came home, what did not and why, where everything is, what next.

    Args:
        directory: The batch's folder in the state directory.
        pages: Command that opens the Prefect pages of this night again; None where they need none.
    """
    lines = [headline(report), came_home(report)]
    for route in report.routes:
        if route.failure is not None:
            lines.append(f"route {route.state}: {route.harness} on {route.host}, {route.model} of {route.provider}")
    for run in last_attempts(report.runs):
        if run.commits or run.leftovers or run.left_running or run.passed_over or run.resumed:
            lines += _task_lines(run)
    for heading, mending in who_must_act(report):
        lines += [heading, *(f"  {words}" for words in mending)]
    if start := next_start(report):
        lines.append(f"again:  {start}, once that is mended")
    lines += [*weighed(report), *judged(report), *cost_lines(report)]
    lines += [f"report: {directory / 'report.html'}, report.md and report.json beside it"]
    lines += [f"logs:   {directory / 'runs'}", *([f"pages:  {pages}"] if pages else [])]
    first, *rest = lines
    return safe("\n".join(["", first, *(f"  {line}" for line in rest), "", ""]))


def judged(report: BatchReport) -> list[str]:
    """What the monitor ended by which rule, and what became of it; empty for a night it did not step into."""
    lines = []
    if report.kills:
        by = ", ".join(f"{many(each.runs, 'run')} by {each.rule}" for each in report.kills)
        after = sum(each.progress_after for each in report.kills)
        lines.append(f"ended early: {by}; {after or 'none'} of them did something of use afterwards")
    if report.spared:
        lines.append(f"let go on: {many(report.spared, 'time')} a clock ran out and the run was found at work")
    return lines


def _task_lines(run: RunReport) -> list[str]:
    """What there is of a task."""
    state = "left running" if run.left_running else run.state
    lines = [f"  {whereabouts(run)}"] if run.commits else []
    if run.commits and run.branch:
        lines.append(f"  {look_at(run)}")
    lines += [f"  {words}" for words in (*findings(run), standing(run), by_hand(run)) if words]
    lines += [f"  {words}" for words in (handed(run.handed) if run.handed else ())]
    if run.leftovers:
        lines.append(f"  {many(run.leftovers.count, 'file')} not committed, saved as {run.leftovers.ref}")
    because = f", {run.failure.kind}" if run.failure and not run.left_running else ""
    lines += [f"  {each}" for each in (*run.passed_over, run.resumed) if each]
    return [f"{run.task_id}: {state}{because}", *lines]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _failure_lines(failure: Failure) -> list[str]:
    seen = [f"  - {evidence}" for evidence in failure.evidence]
    return [
        f"- cause: **{failure.kind}** ({failure.family}; retry: {failure.retry})",
        "- seen:",
        *seen,
        f"- mend: {failure.remedy}",
    ]


def _route_line(route: RouteReport) -> str:
    took = f", preflight {route.preflight_s:.1f} s" if route.preflight_s is not None else ""
    name = f"{route.harness} on {route.host}, {route.model} of {route.provider}"
    why = f": {route.failure}" if route.failure else ""
    return f"- **{route.state}** {name}{took}{why}"


def _figures(run: RunReport) -> str:
    version = f" {run.harness_version}" if run.harness_version else ""
    parts = [f"{run.harness}{version} on {run.host}", f"{run.model} of {run.provider}"]
    if run.seconds.run is not None:
        parts.append(f"{run.seconds.run:.0f} s")
    if run.tokens is not None:
        parts.append(f"{run.tokens} tokens")
    parts.append(cost_of(run))
    if run.peak:
        parts.append(f"began in peak hours: {run.peak}")
    if run.log:
        parts.append(f"log `{run.log}`")
    return "; ".join(parts)

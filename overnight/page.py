"""`report.html`: the morning as one file that needs no network, no script and no server.

Whatever an agent, a model or a tool wrote is text there: everything is escaped,
control characters are written out, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from overnight import firstlines, outgoing
from overnight.causes import outstanding
from overnight.morning import judged
from overnight.printable import safe
from overnight.report import BatchReport, RunReport, last_attempts
from overnight.timeline import Lane, lanes, marks
from overnight.totals import cost_lines, cost_of

_LOGS = (("events.jsonl", "events"), ("out", "output"), ("err", "errors"), ("plan.json", "plan"))


def html(report: BatchReport, directory: Path) -> str:
    """The whole night as HTML.

    Args:
        directory: The batch's folder. Logs of runs inside it are linked and drawn; of others the path is shown.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: safe(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"span": _span, "percent": _percent}
    tries: dict[str, list[RunReport]] = {}
    for run in report.runs:
        tries.setdefault(run.task_id, []).append(run)
    said = {run.run_id: marks(directory / "runs" / run.run_id / "events.jsonl") for run in report.runs if run.run_id}
    template = environment.from_string(files("overnight").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        words=firstlines,
        outgoing=outgoing,
        causes=outstanding(report),
        judged=judged(report),
        lasted_s=(report.ended_at - report.started_at).total_seconds(),
        tasks=[(last, lanes(tries[last.task_id], said)) for last in last_attempts(report.runs)],
        logs=lambda run: _logs(run, directory),
        costs=[line.strip() for line in cost_lines(report)],
        cost_of=cost_of,
        end_of=_end_of,
        caption=_caption,
    )


def _logs(run: RunReport, directory: Path) -> list[tuple[str, str]]:
    """Address and name of each file of a run that lies beside the page."""
    folder = directory / "runs" / run.run_id
    if not run.run_id or not folder.is_dir():
        return []
    return [(f"runs/{quote(run.run_id)}/{name}", shown) for name, shown in _LOGS if (folder / name).is_file()]


def _end_of(found: Sequence[Lane]) -> float:
    """Seconds on the axis of a task; never 0."""
    return max([lane.end_s for lane in found], default=0.0) or 1.0


def _caption(lane: Lane) -> str:
    """The picture in words, for who cannot see it, and for figures."""
    spans = [f"{bar.part} {_span(bar.seconds)}" for bar in lane.bars if bar.part != "quiet"]
    quiet = max((bar.seconds for bar in lane.bars if bar.part == "quiet"), default=0.0)
    spans += [f"quiet for {_span(quiet)} at most"] if quiet else []
    retries = sum(mark.sort == "retry" for mark in lane.marks)
    spans += [firstlines.many(retries, "retry", "retries")] if retries else []
    if lane.run.first_event_s is not None:
        spans.append(f"first event after {_span(lane.run.first_event_s)}")
    return ", ".join(spans) or "never started"


def _span(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _percent(part: float, of: float) -> str:
    return f"{100 * part / of:.2f}%"

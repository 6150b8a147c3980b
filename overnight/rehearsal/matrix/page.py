"""The matrix as one page that needs nothing else: a row a fault, a column an agent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from string import Template

from overnight.rehearsal.matrix.verdict import Result, Totals

_MARKS = {"right": "✓", "unknown": "?", "wrong": "✗", "skipped": "–"}
_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Every agent against every fault</title><style>
:root { color-scheme: light dark; --right: #1a7f37; --unknown: #9a6700; --wrong: #cf222e; --skipped: #6e7781;
  --line: #d0d7de; --back: #fff; --text: #1f2328 }
@media (prefers-color-scheme: dark) { :root { --right: #3fb950; --unknown: #d29922; --wrong: #f85149;
  --skipped: #8b949e; --line: #30363d; --back: #0d1117; --text: #e6edf3 } }
body { font: 14px/1.4 system-ui, sans-serif; background: var(--back); color: var(--text); margin: 1.5rem }
table { border-collapse: collapse }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top }
thead th { position: sticky; top: 0; background: var(--back) }
tbody th { font-weight: normal; max-width: 18rem } tbody th b { display: block }
.right { color: var(--right) } .unknown { color: var(--unknown) } .wrong { color: var(--wrong) }
.skipped { color: var(--skipped) } td.unknown, td.wrong { outline: 2px solid; outline-offset: -2px }
small { color: var(--skipped) } details { max-width: 22rem; overflow-wrap: anywhere }
summary { cursor: pointer; white-space: nowrap } li { color: var(--text) }
</style></head><body>
<h1>Every agent against every fault</h1>
<p><b>$words</b><br><small>$made</small></p>
$missed
<table><thead><tr><th>fault</th>$heads</tr></thead><tbody>
$rows
</tbody></table>
<p><small>✓ the right name or success, ? no cause was found, ✗ a wrong name, – not run here. The seconds are those
from the first sign of the fault to the verdict. Open a cell for its evidence.</small></p>
</body></html>
""")


def page(results: Sequence[Result], sums: Totals, made_at: datetime) -> str:
    """The page. What agents and providers wrote is shown as text, whatever it is."""
    agents = list(dict.fromkeys(r.harness for r in sorted(results, key=lambda r: r.harness)))
    versions = {r.harness: r.version or "" for r in results if r.version}
    heads = [f"<th>{escape(name)}<br><small>{escape(versions.get(name, ''))}</small></th>" for name in agents]
    by_place = {(r.case, r.harness): r for r in results}
    says = {r.case: r.says for r in results}
    rows = [_row(case, says[case], [by_place.get((case, agent)) for agent in agents]) for case in says]
    missed = "".join(f'<p class="wrong">missed: {escape(line)}</p>' for line in sums.missed)
    return _PAGE.substitute(
        words=escape(sums.words),
        made=f"{made_at:%Y-%m-%d %H:%M} UTC",
        missed=missed or '<p class="right">The bar is met.</p>',
        heads="".join(heads),
        rows="\n".join(rows),
    )


def _row(case: str, says: str, cells: Sequence[Result | None]) -> str:
    return f"<tr><th><b>{escape(case)}</b>{escape(says)}</th>{''.join(map(_cell, cells))}</tr>"


def _cell(result: Result | None) -> str:
    if result is None:
        return "<td></td>"
    took = "" if result.to_verdict_s is None else f" <small>{result.to_verdict_s:.1f} s</small>"
    twice = "" if result.first is None else " 2"
    head = f"{_MARKS[result.score]}{twice} {escape(result.verdict or 'not run')}{took}"
    sightings = [f"<li>{escape(seen)}</li>" for seen in result.evidence]
    right = f"<p>right: {escape(' or '.join(result.truth))}</p>"
    lacking = "<p>the sighting that proves it is missing</p>" if result.shown is False else ""
    again = f"<p>in a second run; the first was named {escape(result.first)}</p>" if result.first is not None else ""
    inner = f"<details><summary>{head}</summary>{right}{again}{lacking}<ul>{''.join(sightings)}</ul></details>"
    return f'<td class="{result.score}">{inner}</td>'

"""Findings as text for people, JSON for programs, GitHub annotations and SARIF 2.1.0. Keys are masked in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from overnight.launchers.check import Checked
from overnight.launchers.finding import Finding, corrected, masked

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "note": "note"}
_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def rows(checked: Checked) -> Iterator[dict[str, Any]]:
    """Each finding as plain data; `line` and `column` count from 1, `corrected` is None where no line can be given."""
    for finding in checked.findings:
        place = finding.place
        yield {
            "path": place.text.shown,
            "line": place.line,
            "column": place.text.column_of(place.start),
            "end_line": place.text.line_of(place.end),
            "end_column": place.text.column_of(place.end),
            "rule": finding.rule,
            "weight": finding.weight,
            "what": masked(finding.what, checked.secrets),
            "fact": finding.fact,
            "provenance": finding.provenance,
            "why": finding.why,
            "mend": masked(finding.mend, checked.secrets),
            "corrected": corrected(finding, checked.secrets),
            "certain": finding.certain,
        }


def as_text(checked: Checked) -> str:
    """A block a finding; where, what, the fact and who says so, why, the mend. Then one line of counts."""
    blocks = []
    for row in rows(checked):
        lines = [f"{row['path']}:{row['line']}:{row['column']}: {row['weight']}: {row['what']} [{row['rule']}]"]
        lines.append(f"  lock   {row['fact']} ({row['provenance']})")
        lines += [f"  why    {row['why']}"] if row["why"] else []
        lines += [f"  mend   {row['mend']}"] if row["mend"] else []
        if row["corrected"] is not None:
            lines.append(f"  write  {row['corrected']}" + ("" if row["certain"] else "   (look first)"))
        blocks.append("\n".join(lines))
    blocks.append(_count(checked))
    return "\n".join(blocks)


def _count(checked: Checked) -> str:
    files = f"{checked.files} launcher{'' if checked.files == 1 else 's'} read"
    number, certain = len(checked.findings), sum(each.certain for each in checked.findings)
    if not number:
        return f"{files}, nothing against the lock"
    sure = f"; {certain} can be mended with --fix" if certain else ""
    return f"{files}, {number} finding{'' if number == 1 else 's'}{sure}"


def as_json(checked: Checked) -> str:
    return json.dumps(
        {"schema": 1, "files": checked.files, "findings": list(rows(checked))}, indent=2, ensure_ascii=False
    )


def as_github(checked: Checked) -> str:
    """Workflow commands; GitHub shows them beside the line."""
    return "\n".join(
        f"::{_COMMANDS[row['weight']]} file={_property(row['path'])},line={row['line']},col={row['column']},"
        f"endLine={row['end_line']},title={_property(row['rule'])}::{_data(_message(row))}"
        for row in rows(checked)
    )


def _message(row: Mapping[str, Any]) -> str:
    write = f" Write: {row['corrected']}" if row["corrected"] is not None else ""
    return f"{row['what']}. {row['why']}. {row['mend']}.{write} Lock: {row['fact']} ({row['provenance']})"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(checked: Checked) -> str:
    """One run; each rule is described once, in the words of its first finding."""
    found = list(rows(checked))
    rules: dict[str, Finding] = {}
    for finding in checked.findings:
        rules.setdefault(finding.rule, finding)
    described = [
        {
            "id": name,
            "shortDescription": {"text": name.replace("-", " ")},
            "fullDescription": {"text": finding.why or name.replace("-", " ")},
            "help": {"text": masked(finding.mend, checked.secrets) or "see the message"},
            "defaultConfiguration": {"level": _LEVELS[finding.weight]},
        }
        for name, finding in rules.items()
    ]
    driver = {"name": "overnight-lock-check", "rules": described}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(row, list(rules)) for row in found],
    }
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _result(row: Mapping[str, Any], rules: list[str]) -> dict[str, Any]:
    region = {
        "startLine": row["line"],
        "startColumn": row["column"],
        "endLine": row["end_line"],
        "endColumn": row["end_column"],
    }
    place = {"artifactLocation": {"uri": _uri(row["path"])}, "region": region}
    return {
        "ruleId": row["rule"],
        "ruleIndex": rules.index(row["rule"]),
        "level": _LEVELS[row["weight"]],
        "message": {"text": _message(row)},
        "locations": [{"physicalLocation": place}],
    }


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(path)


FORMATS: Mapping[str, Callable[[Checked], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}

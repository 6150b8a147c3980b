"""What the doctor found, in words: rows for tables, lines for a terminal, Markdown for a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from overnight.doctor.records import Call, Checkup, Diagnosis, Finding, HostLook, Remembered, Shadow
from overnight.firstlines import many
from overnight.report import RouteReport

_BY = {
    "here": "direct, from this machine",
    "host": "direct, from the host",
    "agent": "the agent, as runs start it",
    "login": "the agent, under the user's login",
}


def rows(checkup: Checkup) -> list[dict[str, Any]]:
    """One row per route, shut ones first, for the doctor's table; the evidence is on the page beside it."""
    return [
        {
            "host": route.host,
            "harness": route.harness,
            "provider": route.provider,
            "state": route.state,
            "model": route.model,
            "seconds": route.preflight_s,
            "calls": len(each.calls),
            "cause": route.failure.kind if route.failure else "",
            "layer": each.layer,
            "seen": str(route.failure.evidence[0]) if route.failure and route.failure.evidence else "",
            "mend": route.failure.remedy if route.failure else "",
            "version": route.harness_version or "",
            "notes": "; ".join([*route.notes, *_unverified(each)]),
        }
        for each in _shut_first(checkup.diagnoses)
        for route in [each.route]
    ]


def headline(routes: Sequence[RouteReport]) -> str:
    """`3 open, 1 shut`."""
    counted = Counter(route.state for route in routes)
    return ", ".join(f"{counted[state]} {state}" for state in ("open", "shut") if counted[state]) or "no route"


def details(checkup: Checkup) -> list[str]:
    """What does not fit a table: of each route that is not simply open, and of each host, what was seen."""
    lines: list[str] = []
    for each in _shut_first(checkup.diagnoses):
        said = _route_lines(each)
        if said:
            lines += ["", _named(each.route), *(f"  {line}" for line in said)]
    for look in checkup.hosts:
        said = host_lines(look)
        if said:
            lines += ["", f"host {look.host}", *(f"  {line}" for line in said)]
    if checkup.remembered:
        lines += ["", "remembered from past nights", *(f"  {_again(each)}" for each in checkup.remembered)]
    return lines


def _again(each: Remembered) -> str:
    times = f"{many(each.tasks, 'task')} in {many(each.nights, 'night')}, last {each.last_at:%d %b}"
    return f"{'THERE AGAIN' if each.again else 'not seen now'}: {each.cause}  ({times})"


def markdown(name: str, checkup: Checkup) -> str:
    """The whole visit on a page, with every call that was made."""
    lines = [f"# {name}: {headline(checkup.routes)}", ""]
    for each in _shut_first(checkup.diagnoses):
        took = f", {each.route.preflight_s:.1f} s" if each.route.preflight_s is not None else ""
        lines.append(f"## {each.route.state}: {_named(each.route)}{took}")
        lines += ["", *(f"- {line}" for line in _route_lines(each)), ""]
        lines += ["| call | varied | answer | s |", "| --- | --- | --- | --- |"]
        lines += [f"| {_BY[call.by]} | {call.varied} | {_answer(call)} | {call.seconds:.1f} |" for call in each.calls]
        lines += [f"\nWhat the agent printed: `{each.log}` (SHA-256 `{each.transcript}`)" if each.log else "", ""]
    for look in checkup.hosts:
        lines += [f"## Host {look.host}", "", *(f"- {line}" for line in host_lines(look)), ""]
        lines += [f"- {name}: {value}" for name, value in look.facts.items() if value is not None]
        lines.append("")
    if checkup.remembered:
        lines += ["## Remembered from past nights", "", *(f"- {_again(each)}" for each in checkup.remembered), ""]
    return "\n".join(lines)


def host_lines(look: HostLook) -> list[str]:
    """Findings of a host, worst first, then what it would add to an agent, then what nobody could see."""
    lines = [_finding(each) for each in _worst_first(look.findings)]
    lines += [_shadow(each) for each in look.shadows]
    return lines + [f"not looked at: {each}" for each in look.not_looked_at]


def _route_lines(each: Diagnosis) -> list[str]:
    failure, lines = each.route.failure, []
    if failure is not None:
        lines.append(f"{failure.kind} ({each.layer}: {each.words})" if each.words else str(failure.kind))
        lines += [f"seen: {evidence}" for evidence in failure.evidence]
        lines.append(f"mend: {failure.remedy}")
    if each.mend is not None:
        proof = "the agent got through with it" if each.mend.proven else "the agent was not seen to get through with it"
        lines.append(f"found in {sum(bool(call.varied) for call in each.calls)} calls: {each.mend}; {proof}")
        if each.mend.patch:
            lines.append(f"overlay: {json.dumps(each.mend.patch, ensure_ascii=False)}")
    lines += [_finding(finding) for finding in _worst_first(each.findings)]
    return lines + _unverified(each)


def _unverified(each: Diagnosis) -> list[str]:
    return [f"unverified in the lock: {', '.join(each.unverified)}"] if each.unverified else []


def _finding(each: Finding) -> str:
    place = f" in {each.where}" if each.where else ""
    mend = f". Mend: {each.mend}" if each.mend else ""
    return f"{each.weight}: {each.id}{place}: {each.seen}{mend}"


def _shadow(each: Shadow) -> str:
    place = f"{each.source}:{each.line}" if each.line else each.source
    whose = f", {each.same_as}" if each.same_as else ""
    stopped = f"; not in our runs: {each.ignored}" if each.ignored else "; NOTHING keeps it from our runs"
    return f"shadow: {each.name} in {place}{whose} ({each.wins}){stopped}"


def _answer(call: Call) -> str:
    return f"{call.kind or 'ok'}: {call.seen}".replace("|", "\\|").replace("\n", " ")


def _named(route: RouteReport) -> str:
    return f"{route.harness} on {route.host}, {route.model} of {route.provider}"


def _shut_first(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    return sorted(diagnoses, key=lambda each: each.route.state == "open")


def _worst_first(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda each: ("error", "warning", "note").index(each.weight))

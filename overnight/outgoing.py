"""What is said of commits on their way out: what guards and checks found, and where they went."""

from __future__ import annotations

import shlex

from overnight.handover import Finding, Handed, held
from overnight.printable import one_line
from overnight.report import Check, RunReport, Verify

_SHOWN = 5


def findings(run: RunReport, shown: int = _SHOWN) -> list[str]:
    """A line a guard that found something, and below it the first places, indented; strictest first."""
    order = sorted(run.guards, key=lambda each: ("refuse", "hold", "note").index(each.policy))
    return [line for each in order for line in _finding(each, shown)]


def _finding(found: Finding, shown: int) -> list[str]:
    places = found.places[:shown]
    more = [f"  and {found.count - len(places)} more"] if places and found.count > len(places) else []
    return [f"guard {found.guard} ({found.policy}): {found.seen}", *(f"  {place}" for place in places), *more]


def standing(run: RunReport) -> str:
    """What the guards did to the branch of a run; empty where they let it pass, or a person did."""
    strictest = held(run.guards)
    if not run.commits or strictest == "note":
        return ""
    if strictest == "refuse":
        return "refused: no branch; whoever wants it nonetheless makes it by hand"
    batch = run.run_id.removesuffix(f".{run.task_id}.{run.attempt}")
    word = f"on the page of its flow run or, once that has ended, overnight deliver {batch} {run.task_id} --allow"
    return "" if run.approved else f"held back: no branch before your word, {word}"


def by_hand(run: RunReport) -> str:
    """The command that makes a branch which a guard refused; empty where none did."""
    if not run.commits or held(run.guards) != "refuse":
        return ""
    name = f"overnight-{run.task_id}"
    return f"git -C {shlex.quote(run.repo or '')} branch {shlex.quote(name)} {run.commits[-1].sha[:12]}"


def checks(found: Verify | None) -> list[tuple[str, str]]:
    """A sentence for each run of a task's check, and the tail of its output where it failed."""
    if found is None:
        return []
    place = " on this machine" if found.on == "here" else ""
    lines = [(f"Check `{found.command}`{place} {_ended(found)}.", _tail(found))]
    if found.again is not None:
        verdict = ": it is flaky, and proves nothing either way" if found.flaky else ""
        lines.append((f"Again on the same commit it {_ended(found.again)}{verdict}.", _tail(found.again)))
    return lines


def _ended(check: Check) -> str:
    how = "passed" if check.exit_code == 0 else f"ended with {check.exit_code}"
    return f"{'was ended by its time limit' if check.exit_code is None else how} after {check.seconds:.1f} s"


def _tail(check: Check) -> str:
    return check.tail.strip() if check.exit_code != 0 else ""


def handed(found: Handed) -> list[str]:
    """Where a delivery went, or why it did not, and what to do."""
    what = "pull request" if found.how == "pull_request" else "push"
    to = f"{found.branch} at {found.remote}"
    if found.state == "delivered":
        return [f"pushed: {to}", *([f"pull request: {found.url}"] if found.url else [])]
    lines = [f"{what} {found.state}: {to}: {one_line(found.problem or '')}"]
    lines += [f"pull request: {found.url}"] if found.url else []
    return lines + ([f"mend: {found.mend}"] if found.mend else [])

"""What a morning says first: what came home, what did not and who must act, whose success rate it is."""

from __future__ import annotations

import shlex

from overnight.causes import Cause, again, batch_file, outstanding
from overnight.report import Alarm, Attribution, BatchReport, RunReport, Share, Split, last_attempts

_IDS = 8


def headline(report: BatchReport) -> str:
    """`tonight: 3 succeeded, 1 failed`."""
    return f"{report.name}: " + ", ".join(f"{n} {state}" for state, n in report.counts.items() if n)


def home(report: BatchReport) -> list[RunReport]:
    """The attempts whose commits are here, whatever became of the check."""
    return [run for run in last_attempts(report.runs) if run.commits]


def came_home(report: BatchReport) -> str:
    """`came home: 7 commits of 3 tasks on 3 branches`."""
    found = home(report)
    if not found:
        return "came home: nothing"
    commits, branches = sum(len(run.commits) for run in found), sum(run.branch is not None for run in found)
    on = f" on {many(branches, 'branch', 'branches')}" if branches else ", on refs of ours"
    return f"came home: {many(commits, 'commit')} of {many(len(found), 'task')}{on}"


def whereabouts(run: RunReport) -> str:
    """Where the commits of a run are: on its branch, or, when that name was the user's, on refs of ours."""
    refs = [run.branch] if run.branch else list(run.other_refs)
    return f"{many(len(run.commits), 'commit')} on {' '.join(refs)} in {run.repo}"


def look_at(run: RunReport) -> str:
    """The command that shows what a run committed."""
    return f"git -C {shlex.quote(run.repo or '')} log -p {(run.base_sha or '')[:12]}..{run.branch}"


def who_must_act(report: BatchReport) -> list[tuple[str, list[str]]]:
    """What did not succeed: a line a cause, most costly first, with what was seen, the mend, and a command."""
    return [(_heading(cause), _mending(cause)) for cause in outstanding(report)]


def next_start(report: BatchReport) -> str:
    """How the rest is started anew; empty when there is none."""
    if not (ids := again(report)):
        return ""
    file = batch_file(report)
    how = f"python -m flows.batch {file}" if file else "the same batch with"
    return f"{how} --only {','.join(ids)}"


def many(count: int, noun: str, plural: str = "") -> str:
    """`1 commit`, `2 commits`."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or f'{noun}s'}"


def _heading(cause: Cause) -> str:
    spent = [f"{cause.seconds:.0f} s of runs"] if cause.seconds else []
    spent += [f"{cause.usd:.2f} USD"] if cause.usd is not None else []
    cost = f" ({', '.join(spent)})" if spent else ""
    return f"{many(len(cause.tasks), 'task')}: {cause.kind}, {cause.meaning}{cost}"


def _mending(cause: Cause) -> list[str]:
    ids = [run.task_id for run in cause.tasks]
    named = ", ".join(ids[:_IDS]) + (f" and {len(ids) - _IDS} more" if len(ids) > _IDS else "")
    several = len(cause.seen) > 1
    seen = [f"seen: {f'{task}: ' if several else ''}{evidence}" for task, evidence in cause.seen]
    run = [f"run:  {cause.command}"] if cause.command else []
    return [f"task: {named}", f"acts: {cause.who}", *seen, f"mend: {cause.mend}", *run]


def rates(found: Attribution) -> list[str]:
    """The success rate as it is, and without what was proven not to be the model's doing."""
    lines = [f"{_of(found.raw)} tasks succeeded{_percent(found.raw)}"]
    if found.aside:
        causes = ", ".join(f"{family} {n}" for family, n in found.aside.items())
        aside = sum(found.aside.values())
        lines.append(
            f"{_of(found.judged)} with proven infrastructure failures set aside{_percent(found.judged)}: "
            f"{aside} of {many(found.failures, 'failure')} ({causes}), each with its evidence"
        )
    if found.unknown:
        lines.append(f"cause unknown: {found.unknown} of {many(found.failures, 'failure')}; they count as the model's")
    return lines


def slices(found: Attribution) -> list[tuple[str, str, str, str]]:
    """What of, its name, its rate, its rate without what was set aside; only where there is more than one."""
    several = [by for by in ("provider", "host", "harness", "model") if sum(each.by == by for each in found.slices) > 1]
    return [
        (each.by, each.name, f"{_of(each.raw)}{_percent(each.raw)}", f"{_of(each.judged)}{_percent(each.judged)}")
        for each in found.slices
        if each.by in several
    ]


def sounding(found: Alarm) -> list[str]:
    """Whether a night of mixed success is the model's doing: a heading, then its sentences."""
    n = found.successes + found.failures
    heading = f"It partly works: {found.successes} of {n} {found.attempts} attempts succeeded"
    if found.splits:
        model_too = any(each.startswith("model ") for split in found.splits for each in split.together)
        last = "So it may be the model, too." if model_too else "Look there before you judge the model."
        return [heading, *(_split(each, found) for each in found.splits), last]
    lines = [heading]
    if found.tested:
        p = f"smallest p {found.smallest_p:.2g} after correction" if found.smallest_p is not None else ""
        lines.append(f"No factor explains it ({', '.join(found.tested)} compared; {p}).")
        if not found.can_tell:
            lines.append("But so few ran that no split could have been told from chance: nothing is ruled out.")
    if found.same:
        lines.append(f"There was one {_listed(found.same)} at most, so of these nothing can be said.")
    rest = found.failures - found.explained
    if found.explained:
        of_all = f"{found.explained} of {many(found.failures, 'failure')}"
        lines.append(f"{of_all} have a proven cause of their own, named above.")
    if rest:
        lines.append(
            f"The {'other ' if found.explained else ''}{many(rest, 'failure')}: consistent with model quality."
        )
    return lines


def mixed(report: BatchReport) -> list[str]:
    """What is to be said of a night of mixed success, a heading first; empty for another night, or an older report."""
    if report.alarm is not None:
        return sounding(report.alarm)
    rate = report.attribution.raw if report.attribution else None
    if rate is None or not 0 < rate.successes < rate.n:
        return []
    never = "What did not succeed was never started, or was stopped, for the causes named above."
    return ["Nothing that ran failed", never]


def weighed(report: BatchReport) -> list[str]:
    """Rates and alarm as plain lines; empty for a report of an older version."""
    return [*(rates(report.attribution) if report.attribution else []), *mixed(report)]


def _split(found: Split, of: Alarm) -> str:
    if found.failures_inside == found.failures:
        failed = f"all {many(found.failures, 'failure')}"
    else:
        failed = f"{found.failures_inside} of the {found.failures} failures"
    well = f"{found.successes_inside or 'none'} of the {found.successes} successes"
    only = " that have no proven cause of their own" if found.unexplained_only else ""
    words = f"{failed}{only} and {well} were {_at(found)}"
    words = words[0].upper() + words[1:]
    tests = f"{len(of.tested)} factors" if len(of.tested) > 1 else "1 factor"
    words += f" (exact test, p {found.p:.2g} after correction; {tests} compared)."
    if found.together:
        words += f" No run tells this apart from {_listed(found.together, 'or')}."
    return words


def _at(found: Split) -> str:
    values = _listed(found.values)
    match found.factor:
        case "host" | "route":
            return f"on {found.factor}{'s' if len(found.values) > 1 else ''} {values}"
        case "hour":
            return f"started in the hour{'s' if len(found.values) > 1 else ''} {values}"
        case "repository":
            return f"in {values}"
        case _:
            return f"with {found.factor} {values}"


def _of(share: Share) -> str:
    return f"{share.successes} of {share.n}"


def _percent(share: Share) -> str:
    """` (45 %, 95 % interval 26 to 66 %)`, behind the numbers it is made of."""
    if share.low is None or share.high is None:
        return ""
    rate = 100 * share.successes / share.n
    return f" ({rate:.0f} %, 95 % interval {100 * share.low:.0f} to {100 * share.high:.0f} %)"


def _listed(words: tuple[str, ...], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"

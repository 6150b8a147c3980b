"""What a morning says first, in whatever form: whose success rate it is, and whether something splits it."""

from __future__ import annotations

from overnight.report import Alarm, Attribution, BatchReport, Share, Split


def rates(found: Attribution) -> list[str]:
    """The success rate as it is, and without what was proven not to be the model's doing."""
    lines = [f"{_of(found.raw)} tasks succeeded{_percent(found.raw)}"]
    if found.aside:
        causes = ", ".join(f"{family} {n}" for family, n in found.aside.items())
        aside = sum(found.aside.values())
        lines.append(
            f"{_of(found.judged)} without the failures proven to be others'{_percent(found.judged)}; "
            f"set aside: {aside} of {found.failures} failures ({causes}), each with its evidence"
        )
    if found.unknown:
        lines.append(f"cause unknown: {found.unknown} of {found.failures} failures; they count as the model's")
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
        lines.append(f"All had the same {_listed(found.same)}, so of these nothing can be said.")
    rest = found.failures - found.explained
    if found.explained:
        lines.append(f"{found.explained} of {found.failures} failures have a proven cause of their own, named above.")
    if rest:
        lines.append(f"The {'other ' if found.explained else ''}{_failures(rest)}: consistent with model quality.")
    return lines


def weighed(report: BatchReport) -> list[str]:
    """Rates and alarm as plain lines; empty for a report of an older version."""
    lines = rates(report.attribution) if report.attribution else []
    return lines + (sounding(report.alarm) if report.alarm else [])


def _split(found: Split, of: Alarm) -> str:
    if found.failures_inside == found.failures:
        failed = f"all {_failures(found.failures)}"
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


def _failures(n: int) -> str:
    return f"{n} failure" if n == 1 else f"{n} failures"


def _listed(words: tuple[str, ...], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"

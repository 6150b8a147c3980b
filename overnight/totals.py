"""What a batch cost in all, and the words for it. A sum always says of how many attempts it is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from overnight.report import BatchReport, BatchSpent, RunReport, Spent


def spent(runs: Sequence[RunReport]) -> BatchSpent:
    """What these attempts used; tasks that never started are none."""
    ran = [run for run in runs if run.run_id]
    providers = {name: _sum([run for run in ran if run.provider == name]) for name in sorted({r.provider for r in ran})}
    whole = _sum(ran).model_dump()
    return BatchSpent(**whole, providers=providers, in_peak=sum(run.peak is not None for run in ran))


def _sum(runs: Sequence[RunReport]) -> Spent:
    costs = [run.cost for run in runs if run.cost is not None and run.cost.source != "unknown"]
    other: dict[str, float] = {}
    for cost in costs:
        if cost.usd is None and cost.amount is not None and cost.currency is not None:
            other[cost.currency] = other.get(cost.currency, 0.0) + cost.amount
    return Spent(
        usd=sum(cost.usd or 0.0 for cost in costs),
        other=other,
        tokens=sum(run.tokens or 0 for run in runs),
        attempts=len(runs),
        unknown=len(runs) - len(costs),
        untold=sum(run.tokens is None for run in runs),
        at_most=any(cost.at_most for cost in costs),
    )


def cost_lines(report: BatchReport) -> list[str]:
    """What the night cost, with what is not known of it; empty when nothing ran, or for an older report."""
    found = report.spent
    if found is None or not found.attempts:
        return []
    lines = [f"cost: {_words(found)}"]
    if len(found.providers) > 1:
        lines += [f"  {name}: {_words(each)}" for name, each in found.providers.items()]
    why = Counter(run.cost.why for run in report.runs if run.cost is not None and run.cost.source == "unknown")
    lines += [f"  not known of {_attempts(count)}: {words}" for words, count in why.most_common()]
    if found.in_peak:
        rules = dict.fromkeys(f"{run.provider} takes {run.peak}" for run in report.runs if run.peak)
        lines.append(f"peak hours: {_attempts(found.in_peak)} began in them; {'; '.join(rules)}")
    return lines


def cost_of(run: RunReport) -> str:
    """The cost of one attempt in a few words, its provenance among them."""
    cost = run.cost
    if cost is None or cost.source == "unknown":
        return f"cost not known: {cost.why}" if cost else "cost not known"
    return f"{'at most ' if cost.at_most else ''}{money(cost.amount or 0.0)} {cost.currency}, {cost.why}"


def money(amount: float) -> str:
    """Two places, and more where two would show nothing of it."""
    return f"{amount:.2f}" if amount >= 0.01 or amount == 0 else f"{amount:.2g}"


def _words(found: Spent) -> str:
    known = found.attempts - found.unknown
    charged = ({"USD": found.usd} if found.usd or not found.other else {}) | found.other
    sums = " + ".join(f"{money(amount)} {currency}" for currency, amount in charged.items())
    most = "at most " if found.at_most else ""
    if not known:
        words = f"not known of any of {_attempts(found.attempts)}"
    elif found.unknown:
        words = f"{most}{sums} for {known} of {_attempts(found.attempts)}, not known of {found.unknown}"
    else:
        words = f"{most}{sums} for {_attempts(known)}"
    untold = f" ({found.untold} told none)" if found.untold else ""
    return f"{words}; {found.tokens} tokens{untold}"


def _attempts(count: int) -> str:
    return f"{count} attempt" if count == 1 else f"{count} attempts"

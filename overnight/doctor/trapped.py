"""Named traps of the lock that a plan itself walks into: by what its environment holds, whatever came of it so far."""

from __future__ import annotations

from overnight.doctor.records import Finding
from overnight.doctor.values import Values
from overnight.lockfile import ProviderLock
from overnight.plan import RunPlan


def trapped(plan: RunPlan, lock: ProviderLock, *, shut: bool) -> list[Finding]:
    """Each trap that can be seen in the variables of a plan. It is a warning at most on a route that is open.

    Args:
        shut: Whether the route is.
    """
    route = plan.route
    values = Values(lock, {route.provider: ""}, {}, [route.harness])
    found = []
    env = {**plan.env.values(), **dict.fromkeys(plan.env.secrets(), "a key")}
    for trap, name in values.interest().found(env)["traps"]:
        known = lock.known_bad[trap]
        weight = known.weight if shut or known.weight == "note" else "warning"
        place = f"the lock, for {route.harness} and {route.provider}: {name}"
        found.append(
            Finding(id=trap, weight=weight, seen=f"{known.match.words}; {known.why}", where=place, mend=known.mend)
        )
    return found

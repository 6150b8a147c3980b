"""What nights once died of, looked for again by name: a cause that was mended and comes back is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from overnight.doctor.records import Checkup, Remembered
from overnight.failures import RULES, Family
from overnight.history import Signature
from overnight.route import Route

_SAME_PLACE: Mapping[Family, Callable[[Route, Route], bool]] = {
    **dict.fromkeys((Family.HOST, Family.NETWORK), lambda one, other: one.host == other.host),
    **dict.fromkeys(
        (Family.AUTH, Family.SETUP, Family.QUOTA, Family.PROVIDER),
        lambda one, other: (one.provider, one.harness) == (other.provider, other.harness),
    ),
    Family.HARNESS: lambda one, other: (one.host, one.harness) == (other.host, other.harness),
}
"""By who must act: whether a route of today is the place where a cause was seen. Others no doctor can look for."""


def remembered(checkup: Checkup, signatures: Sequence[Signature]) -> tuple[Remembered, ...]:
    """Every past cause whose place this visit looked at, those that are there again first."""
    found = [check for each in signatures if (check := _looked_for(checkup, each)) is not None]
    return tuple(sorted(found, key=lambda check: (not check.again, -check.last_at.timestamp())))


def _looked_for(checkup: Checkup, past: Signature) -> Remembered | None:
    same_place = _SAME_PLACE.get(RULES[past.kind].family)
    if same_place is None:
        return None
    routes = [each.route for each in checkup.diagnoses if same_place(past.route, _place(each.route.model_dump()))]
    if not routes:
        return None
    hosts = [look for look in checkup.hosts if look.host in {route.host for route in routes}]
    shut = any(route.failure is not None and route.failure.kind is past.kind for route in routes)
    found = any(finding.id == past.kind for look in hosts for finding in look.findings)
    return Remembered(
        cause=past.words,
        kind=past.kind,
        last_at=past.last_at,
        nights=past.nights,
        tasks=past.tasks,
        again=shut or found,
    )


def _place(route: dict[str, str]) -> Route:
    return Route(**{name: route[name] for name in Route.model_fields})

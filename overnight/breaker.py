"""Whether a route, or a provider as a whole, may be asked just now: closed, open, or half-open with one canary.

Every night on one state directory shares `breakers.json` there, so that what
one of them learned holds for the next.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from overnight.failures import Failure, FailureKind, Family, Retry
from overnight.ledger import write
from overnight.resets import reset_s
from overnight.route import Route

# two in a row one unlucky task makes alone, with its usual two attempts; a third is another task's
OPENS_AFTER = 3
FIRST_S, CAP_S = 60.0, 1800.0
# in one batch: 1 + 2 + 4 + 8 + 16 + 30 minutes, and six canaries without an answer
GIVES_UP_AFTER = 6
TRUSTED_S = 24 * 3600.0
_NOTED_S = 60.0

State = Literal["closed", "open", "half-open"]
Scope = Literal["route", "provider"]

_SCOPES: Mapping[Family, tuple[Scope, ...]] = {
    Family.PROVIDER: ("route", "provider"),
    Family.QUOTA: ("route", "provider"),
    Family.NETWORK: ("route",),
    Family.HOST: ("route",),
    Family.HARNESS: ("route",),
}
"""Of whom a failure speaks. A network and a machine are of one route: the same provider may answer another host."""


class Breaker(BaseModel):
    """One of them. Moments are seconds since 1970, so that they outlive a process.

    `failures` and `opened` count in a row; `until` is None while it is closed.
    `reset`: the provider itself said when it will serve again.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    failures: int = 0
    opened: int = 0
    until: float | None = None
    reset: bool = False
    why: Failure | None = None
    good_at: float | None = None
    at: float = 0.0

    def state(self, now: float) -> State:
        if self.until is None:
            return "closed"
        return "open" if now < self.until else "half-open"

    def trusted(self, now: float) -> bool:
        """Whether something good was heard lately, so that no canary is needed."""
        return self.good_at is not None and now - self.good_at < TRUSTED_S

    def failed(self, failure: Failure, now: float) -> Breaker:
        """After one more failure of this sort; opens on the third in a row, and at once for a window or a canary."""
        count = self.failures + 1
        opens_s = reset_s(failure, now)
        reset = opens_s is not None
        if not (count >= OPENS_AFTER or self.until is not None or failure.family is Family.QUOTA):
            return self.model_copy(update={"failures": count, "why": failure, "at": now})
        if self.state(now) == "open" and not reset:  # a run from before it opened: nothing new
            return self.model_copy(update={"failures": count, "at": now})
        before = self.opened if now - self.at < TRUSTED_S else 0
        opened = before if reset else before + 1
        wait_s = opens_s or failure.retry_after_s or min(FIRST_S * 2 ** (max(opened, 1) - 1), CAP_S)
        until = max(now + wait_s, self.until or 0.0)
        new = {"failures": count, "opened": opened, "until": until, "reset": reset, "why": failure, "at": now}
        return self.model_copy(update=new)

    def spoke(self, now: float) -> Breaker:
        """After a first good event: it closes, and opens again as slowly as the last time until a run ends well."""
        if self.until is None and self.good_at is not None and now - self.good_at < _NOTED_S:
            return self
        count = self.failures if self.until is None else 0
        return self.model_copy(update={"failures": count, "until": None, "reset": False, "good_at": now, "at": now})

    def succeeded(self, now: float) -> Breaker:
        """After a run against which the provider had nothing."""
        if self.spoke(now) is self and not self.failures and not self.opened:
            return self
        return Breaker(good_at=now, at=now)


def key_of(route: Route, scope: Scope) -> str:
    """The name of a route's breaker, or of its provider's."""
    return f"route {route}" if scope == "route" else f"provider {route.provider}"


def keys(route: Route) -> tuple[str, str]:
    return key_of(route, "route"), key_of(route, "provider")


def blamed(failure: Failure, route: Route) -> tuple[str, ...]:
    """The breakers that a failure counts on; none for what speaks of the task, or needs a person."""
    if failure.retry is Retry.NEVER:
        return ()
    scopes = ("route",) if failure.kind is FailureKind.SILENT_START else _SCOPES.get(failure.family, ())
    return tuple(key_of(route, scope) for scope in scopes)


def answers_for(failure: Failure | None) -> bool:
    """Whether an end like this shows that route and provider did their part."""
    return failure is None or failure.family is Family.WORK


class BreakerFile:
    """`breakers.json` of a state directory. What cannot be read counts as nothing: then canaries ask again."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "breakers.json"
        self._seen: tuple[int, int] | None = None

    def read(self) -> dict[str, Breaker]:
        try:
            data = json.loads(self._path.read_bytes())
            return {name: Breaker.model_validate(each) for name, each in data["breakers"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
            return {}

    def news(self) -> dict[str, Breaker]:
        """All of it, when somebody wrote it since it was last asked for; else nothing."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return {}
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._seen:
            return {}
        self._seen = stamp
        return self.read()

    def note(self, changed: Mapping[str, Breaker]) -> None:
        """Write these; of two who wrote about the same breaker the later one is right."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._held():
            known = self.read()
            newer = {name: each for name, each in changed.items() if name not in known or each.at >= known[name].at}
            whole = {name: each.model_dump(mode="json") for name, each in sorted({**known, **newer}.items())}
            write(self._path, json.dumps({"schema": 1, "breakers": whole}, indent=1, ensure_ascii=False))

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._path.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

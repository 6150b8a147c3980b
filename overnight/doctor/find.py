"""Find it: vary one factor at a time, keep what gets further, stop when the model answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from overnight.doctor.asking import Asker, Setting, heard
from overnight.doctor.changes import (
    Change,
    header_changes,
    model_changes,
    start_changes,
    url_changes,
    vendor_changes,
    wiring_changes,
)
from overnight.doctor.disagreement import Said, said
from overnight.doctor.records import Call, Installed, Mend
from overnight.failures import BadInput
from overnight.layers import laid_over
from overnight.lockfile import ProviderLock

MOST_CALLS = 12
MOST_REJECTIONS = 3

# how far a call got: the way there, the path, the key, the model, the account
_RANK = {Said.NETWORK: 0, Said.MUTE: 0, Said.URL: 1, Said.AUTH: 2, Said.MODEL: 3, Said.REFUSED: 3}
_OVER = 4
_DONE = 9


@dataclass
class Budget:
    """At most so many calls; and no more once a key was refused so often in the same way at the same place.

    A provider may lock an account that is refused again and again, so the
    calls that were made before count too.
    """

    calls_left: int = MOST_CALLS
    rejected: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def allows(self, way: tuple[str, ...]) -> bool:
        return self.calls_left > 0 and self.rejected[way] < MOST_REJECTIONS

    def spent(self, way: tuple[str, ...], call: Call) -> None:
        self.calls_left -= 1
        self.met(way, call)

    def met(self, way: tuple[str, ...], call: Call) -> None:
        """A call that is not of the search, but was refused all the same."""
        if said(call.kind) is Said.AUTH:
            self.rejected[way] += 1


@dataclass
class Search:
    """One search. `before` are the direct call and the agent's that began it, both with the setting as it is."""

    asker: Asker
    setting: Setting
    shipped: ProviderLock
    installed: Sequence[Installed]
    budget: Budget
    from_host: bool
    may_go_elsewhere: bool = False
    """Whether the key may be shown to another server than the one it is for by the lock in use."""
    came_and_went: bool = False
    """Whether the agent got through with nothing changed, after it had not."""

    def run(self, direct: Call, agent: Call | None) -> Mend | None:
        """The smallest change that works, or that gets further than before; None when nothing does.

        Raises:
            FailureError: the host went away.
        """
        kept: list[Change] = []
        here, rank, last = self.setting, _rank(direct, self.setting), direct
        here, rank, last = self._climb(here, rank, last, kept)
        proven, can_be_sent = False, here.headers is None
        if rank == _DONE and can_be_sent:
            if kept or agent is None:
                agent = self._agent(here, " and ".join(map(str, kept)))
            if agent is not None and not agent.ok:
                here, agent = self._start(here, agent, kept)
            proven = agent is not None and agent.ok
        if not kept:
            return None
        return self._mend(kept, proven=proven, last=agent if rank == _DONE and can_be_sent and agent else last)

    def _climb(self, here: Setting, rank: int, last: Call, kept: list[Change]) -> tuple[Setting, int, Call]:
        """Direct calls until one is answered; a change that gets further is kept, and what is varied next follows."""
        tried: set[str] = set()
        while rank < _OVER:
            for change in self._direct_changes(here, last):
                if str(change) in tried:
                    continue
                tried.add(str(change))
                call = self._direct(change, here)
                if call is not None and (reached := _rank(call, change.on(here))) > rank:
                    kept.append(change)
                    here, rank, last = change.on(here), reached, call
                    break
            else:
                break
        return here, rank, last

    def _direct_changes(self, here: Setting, last: Call) -> Iterator[Change]:
        harness = self.asker.harnesses[here.task.route.harness]
        answer = heard(last, here.task.route.model)
        if answer is Said.AUTH:
            yield from header_changes(here, harness)
            yield from vendor_changes(here) if self.may_go_elsewhere else ()
        if answer in (Said.URL, Said.NETWORK, Said.AUTH):
            yield from url_changes(here, self.shipped, elsewhere=self.may_go_elsewhere)
        if answer in (Said.URL, Said.MODEL, Said.REFUSED):
            yield from model_changes(here, self.shipped)
            yield from url_changes(here, self.shipped, elsewhere=self.may_go_elsewhere)

    def _start(self, here: Setting, agent: Call, kept: list[Change]) -> tuple[Setting, Call]:
        """The agent's own factors, each alone, until it gets through."""
        harness = self.asker.harnesses[here.task.route.harness]
        answer = said(agent.kind, agent.status)
        changes = [
            *wiring_changes(here, self.shipped, harness, refused=answer is Said.AUTH),
            *start_changes(here, self.shipped, self.installed),
        ]
        if answer in (Said.AGENT, Said.SILENT, Said.OTHER):
            changes.sort(key=lambda change: change.factor == "variable")
        for change in changes:
            call = self._tried(partial(self._agent, varied=str(change)), change, here)
            if call is not None and call.ok:
                again = self._agent(here, "nothing: as it is, once more")
                if again is not None and again.ok:  # so it was not the change
                    self.came_and_went = True
                    return here, again
                kept.append(change)
                return change.on(here), call
        return here, agent

    def _direct(self, change: Change, here: Setting) -> Call | None:
        ask = self.asker.there if self.from_host else self.asker.here
        return self._tried(lambda setting: self._counted(setting, partial(ask, setting, str(change))), change, here)

    def _agent(self, setting: Setting, varied: str) -> Call | None:
        return self._counted(setting, lambda: self.asker.agent(setting, varied).call)

    def _counted(self, setting: Setting, ask: Callable[[], Call]) -> Call | None:
        way = self.way(setting)
        if self.asker.interrupted() or not self.budget.allows(way):
            return None
        call = ask()
        self.budget.spent(way, call)
        return call

    def _tried(self, ask: Callable[[Setting], Call | None], change: Change, here: Setting) -> Call | None:
        """None also for a change that cannot be: the harness knows no such variable, the lock no such shape."""
        try:
            return ask(change.on(here))
        except (BadInput, ValueError):
            return None

    def way(self, setting: Setting) -> tuple[str, ...]:
        """The key's way to the provider: to which address, in which headers."""
        plan = self.asker.planned(setting)[0]
        return (plan.base_url, *sorted(self.asker.headers(setting)))

    def _mend(self, kept: Sequence[Change], *, proven: bool, last: Call) -> Mend:
        patch: dict[str, Any] = {}
        for change in kept:
            patch = laid_over(patch, change.patch, keep_null=True)
        model = next((change.model for change in reversed(kept) if change.model), "")
        further = "" if last.ok else f" (gets further: {last.kind})"
        return Mend(
            factor=" and ".join(dict.fromkeys(change.factor for change in kept)),
            works=" and ".join(change.tried for change in kept) + further,
            fails=" and ".join(change.now for change in kept),
            patch=patch,
            route={"model": model} if model else {},
            proven=proven,
        )


def _rank(call: Call, setting: Setting) -> int:
    return _DONE if call.ok else _RANK.get(heard(call, setting.task.route.model), _OVER)

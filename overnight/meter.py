"""What one run used so far, by the harness's own events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overnight.events import Act, AgentEvent
from overnight.usage import Usage

_GOES_ON = (Act.TOOL_ENDED, Act.WAITING)


@dataclass
class Meter:
    """Counts usage, event by event. The same events read again, after a restart, give the same reading.

    `answers` are those whose usage was told; `asked_on` is whether the agent
    went on after the newest of them. `at_s` is the run's age at that one.
    `recent` are those that came when the run was `recent_from_s` old or older.
    """

    answers: int = 0
    asked_on: bool = False
    at_s: float = 0.0
    recent: int = 0
    recent_from_s: float = 0.0
    _each: dict[str, Usage] = field(default_factory=dict)
    _whole: Mapping[str, Usage] = field(default_factory=dict)
    _sum: int | None = None
    _said_usd: float | None = None

    def take(self, at_s: float, event: AgentEvent) -> None:
        if event.act is Act.RESULT:
            self._verdict(event)
        elif event.usage:
            self.answers, self.asked_on, self.at_s = self.answers + 1, False, at_s
            self.recent += at_s >= self.recent_from_s
            for model, used in event.usage.items():
                self._each[model] = self._each.get(model, Usage()) + used
        elif event.act in _GOES_ON:
            self.asked_on = self.answers > 0

    def _verdict(self, event: AgentEvent) -> None:
        """A verdict is of the whole run; of several the largest counts, since the last may be of a part."""
        if event.usage and _total(event.usage) >= _total(self._whole):
            self._whole = event.usage
        if event.tokens is not None:
            self._sum = max(self._sum or 0, event.tokens)
        if event.usd is not None:
            self._said_usd = max(self._said_usd or 0.0, event.usd)

    @property
    def by_model(self) -> dict[str, Usage]:
        """What is known by sort of token: the verdict's, unless the answers told of more."""
        return dict(self._whole if _total(self._whole) >= _total(self._each) else self._each)

    @property
    def tokens(self) -> int | None:
        """All tokens; None when nothing was told."""
        known = max(_total(self._whole), _total(self._each), self._sum or 0)
        return known if known or self._sum is not None else None

    @property
    def said_usd(self) -> float | None:
        """What the harness says it cost; whether that is a price is another question."""
        return self._said_usd


def _total(usage: Mapping[str, Usage]) -> int:
    return sum(each.total for each in usage.values())

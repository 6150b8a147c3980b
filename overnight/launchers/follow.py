"""Carries a launcher's program out, on paper: which environment would each command get?

Every way through the file is followed on its own, up to a bound; ways past the
bound are dropped, which can lose a finding and never make one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from overnight.launchers.prune import prune
from overnight.launchers.steps import (
    HOLE,
    Choice,
    Clear,
    Condition,
    Define,
    Dropped,
    End,
    Export,
    ExportAll,
    Launch,
    Login,
    Program,
    Ref,
    Scope,
    Script,
    Set,
    Source,
    Step,
    Text,
    Unset,
    Value,
)

MOST_WAYS = 48
MOST_STEPS = 4_000
_DEEPEST = 6
_NAME = re.compile(r"\$\{?(\w+)\}?$")

Load = Callable[[Text, str, str], Script | None]
"""Finds the file that another one sources: from where, the name as written (with holes), the kind of file."""


@dataclass(frozen=True)
class Bound:
    """A variable as it stands. `origin` is where the text was written, which may be the value of another variable."""

    text: str
    step: Set
    origin: Value
    exported: bool

    @property
    def literal(self) -> str | None:
        return None if HOLE in self.text else self.text


@dataclass
class Way:
    """One way through a file, as far as it has been followed."""

    vars: dict[str, Bound] = field(default_factory=dict)
    exported: frozenset[str] = frozenset()
    gone: dict[str, tuple[Unset, Bound | None]] = field(default_factory=dict)
    """What was unset, with the value it had."""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    before: dict[str, Bound] = field(default_factory=dict)
    clear: Clear | None = None
    login: Login | None = None
    facts: dict[str, tuple[bool, frozenset[str]]] = field(default_factory=dict)
    """By subject of a condition: it is the one literal (True), or none of these (False)."""
    functions: dict[str, Program] = field(default_factory=dict)
    export_all: bool = False
    reads_unknown: bool = False
    launched: bool = False
    ended: bool = False

    def copy(self) -> Way:
        return replace(
            self,
            vars=dict(self.vars),
            gone=dict(self.gone),
            dropped=dict(self.dropped),
            before=dict(self.before),
            facts=dict(self.facts),
            functions=dict(self.functions),
        )


@dataclass(frozen=True)
class Situation:
    """A command and the environment it would get; without a launch, what the file leaves to whoever reads it."""

    script: Script
    way: Way
    launch: Launch | None
    words: tuple[str, ...]


class Follower:
    """Follows one file and everything it sources, as far as it touches `names` or starts `agents`. Use once."""

    def __init__(self, script: Script, load: Load, agents: Iterable[str], names: Iterable[str]) -> None:
        self._script, self._load = script, load
        self._agents, self._names = frozenset(agents), frozenset(names)
        self._called: set[str] = set()
        self._depth = 0
        self._left = MOST_STEPS
        self.situations: list[Situation] = []

    def follow(self) -> list[Situation]:
        """Every situation of the file: at each agent's start, and at the end of each way that starts none."""
        ways = self._run(prune(self._script.program, self._names, self._agents), [Way()])
        for way in ways:
            if not way.ended:
                self._leave(way)
        first = next((way for way in ways if not way.ended), Way())
        for name, program in list(first.functions.items()):
            if name not in self._called:  # for whoever sources the file
                for way in self._run(program, [replace(first.copy(), launched=False)]):
                    self._leave(way)
        return self.situations

    def _leave(self, way: Way) -> None:
        if not way.launched:
            self.situations.append(Situation(self._script, way, None, ()))

    def _run(self, program: Program, ways: list[Way]) -> list[Way]:
        for step in program:
            going = [way for way in ways if not way.ended]
            if not going:
                break
            after = [way for way in ways if way.ended]
            self._left -= len(going)
            if self._left < 0:
                return []
            for way in going:
                after.extend(self._step(step, way))
            ways = _merged(after)[:MOST_WAYS] if len(after) > 1 else after
        return ways

    def _step(self, step: Step, way: Way) -> list[Way]:
        if isinstance(step, Choice):
            return self._choose(step, way)
        if isinstance(step, Launch):
            return self._launch(step, way)
        if isinstance(step, Source):
            return self._source(step, way)
        if isinstance(step, Scope):
            inner = self._run(step.program, [replace(way.copy(), launched=False)])
            for end in inner:
                if not end.ended and (end.vars != way.vars or end.gone != way.gone):
                    self._leave(end)
            return [replace(way.copy(), launched=way.launched or any(end.launched for end in inner))]
        self._change(step, way)
        return [way]

    def _change(self, step: Step, way: Way) -> None:
        if isinstance(step, Set):
            _assign(step, way)
        elif isinstance(step, Unset):
            way.gone[step.name] = (step, way.vars.pop(step.name, None))
            way.exported -= {step.name}
            _forget(way, step.name)
        elif isinstance(step, Export):
            way.exported = way.exported | {step.name} if step.on else way.exported - {step.name}
            if bound := way.vars.get(step.name):
                way.vars[step.name] = replace(bound, exported=step.on)
        elif isinstance(step, ExportAll):
            way.export_all = step.on
        elif isinstance(step, Clear):
            way.before, way.vars, way.gone, way.clear, way.login = way.vars, {}, {}, step, None
        elif isinstance(step, Login):
            way.login = step
        elif isinstance(step, Dropped):
            way.dropped[step.name] = step
        elif isinstance(step, Define):
            way.functions[step.name] = step.program
        elif isinstance(step, End):
            way.ended = True

    def _choose(self, choice: Choice, way: Way) -> list[Way]:
        ways: list[Way] = []
        rest: Way | None = way.copy()
        for condition, program in choice.arms:
            if rest is None:
                break
            taken = rest.copy()
            if condition is not None:
                if not _assume(taken, condition, True):
                    continue
                rest = rest if _assume(rest, condition, False) else None
            else:
                rest = None
            ways.extend(self._run(program, [taken]))
        if rest is not None:
            ways.append(rest)
        return ways

    def _source(self, source: Source, way: Way) -> list[Way]:
        script = None
        if self._depth < _DEEPEST:
            script = self._load(source.name.place.text, resolve(source.name, way)[0], source.kind)
        if script is None:
            way.reads_unknown = True
            return [way]
        if not script.whole:
            way.reads_unknown = True
        self._depth += 1
        ways = self._run(script.program, [way])
        self._depth -= 1
        return [replace(each, ended=False) for each in ways]  # return ends the sourced file alone

    def _launch(self, launch: Launch, way: Way) -> list[Way]:
        words = tuple(resolve(word, way)[0] for word in launch.words)
        inner = way.copy()
        for step in launch.own:
            self._own(step, inner, way)
        name = words[0] if words else ""
        if name in way.functions and self._depth < _DEEPEST:
            return self._call(name, inner if launch.own else way)
        agent = any(_is(word, self._agents) for word in words[:1])
        if agent or launch.replaces or any(isinstance(step, Set) for step in launch.own):
            self.situations.append(Situation(self._script, inner, launch, words))
            way.launched = way.launched or agent or launch.replaces
        way.ended = way.ended or launch.replaces
        return [way]

    def _own(self, step: Step, inner: Way, way: Way) -> None:
        """A step of one command's own environment; its values are read in the shell's."""
        if isinstance(step, Set):
            text, origin = resolve(step.value, way)
            inner.vars[step.name] = Bound(text, step, origin, exported=True)
            inner.gone.pop(step.name, None)
        elif isinstance(step, Source):
            self._source(step, inner)
        else:
            self._change(step, inner)

    def _call(self, name: str, way: Way) -> list[Way]:
        self._called.add(name)
        self._depth += 1
        ways = self._run(way.functions[name], [way])
        self._depth -= 1
        return [replace(each, ended=False) for each in ways]


def _merged(ways: list[Way]) -> list[Way]:
    """Ways that came to the same end are one; what they assumed differently is forgotten."""
    kept: dict[tuple[object, ...], Way] = {}
    for way in ways:
        state = (tuple((name, id(bound)) for name, bound in way.vars.items()), tuple(way.gone), way.exported)
        marks = (id(way.clear), id(way.login), way.reads_unknown, way.launched, way.ended, way.export_all)
        same = kept.setdefault((*state, *marks, tuple(way.functions), tuple(way.dropped)), way)
        if same is not way:
            same.facts = {subject: fact for subject, fact in same.facts.items() if way.facts.get(subject) == fact}
    return list(kept.values())


def _is(word: str, agents: frozenset[str]) -> bool:
    return word in agents or word.rpartition("/")[2] in agents


def _assign(step: Set, way: Way) -> None:
    if step.only_default and step.name in way.vars:
        return
    text, origin = resolve(step.value, way)
    before = way.vars.get(step.name)
    kept = step.name in way.exported or way.export_all or (before is not None and before.exported)
    exported = kept if step.exported is None else step.exported
    way.vars[step.name] = Bound(text, step, origin, exported)
    way.gone.pop(step.name, None)
    way.dropped.pop(step.name, None)
    _forget(way, step.name)


def _forget(way: Way, name: str) -> None:
    """What was assumed of a variable no longer holds once it is set anew."""
    for subject in [subject for subject in way.facts if re.search(rf"\b{re.escape(name)}\b", subject)]:
        del way.facts[subject]


def resolve(value: Value, way: Way) -> tuple[str, Value]:
    """The text of a value, with holes, and the value in which that text is written out."""
    if len(value.parts) == 1 and isinstance(value.parts[0], Ref):
        return _look_up(value.parts[0], value, way, 0)
    texts = [part if isinstance(part, str) else _look_up(part, value, way, 0)[0] for part in value.parts]
    return "".join(texts), value


def _look_up(part: Ref | None, value: Value, way: Way, depth: int) -> tuple[str, Value]:
    if part is None or depth > _DEEPEST:
        return HOLE, value
    if (bound := way.vars.get(part.name)) is not None and (bound.text or part.default is None):
        return bound.text, bound.origin
    if part.default is not None:
        return resolve(part.default, way)
    return HOLE, value


def _known(way: Way, subject: str) -> str | None:
    """The value of what a condition compares, when the file itself has just set it; "yes" or "no" for `-n NAME`."""
    asks_length = subject.startswith("-n ")
    match = _NAME.fullmatch(subject.removeprefix("-n "))
    bound = way.vars.get(match.group(1)) if match else None
    if bound is None:
        return None
    if asks_length:
        return "yes" if bound.text.replace(HOLE, "") else ("no" if not bound.text else None)
    return bound.literal


def _assume(way: Way, condition: Condition, taken: bool) -> bool:
    """Takes a condition for true, or false, on this way. False when that contradicts what is known of it."""
    subject, literal, holds = condition.subject, condition.literal, condition.holds is taken
    known = _known(way, subject)
    if known is not None:
        return (known == literal) is holds
    positive, literals = way.facts.get(subject, (False, frozenset()))
    if positive:
        return (literal in literals) is holds
    if holds and literal in literals:
        return False
    way.facts[subject] = (True, frozenset({literal})) if holds else (False, literals | {literal})
    return True

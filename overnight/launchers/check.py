"""Checks launchers against the lock."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from overnight.launchers import addresses, keys, kinds, trapped
from overnight.launchers.case import Case, agent_of, finding, routes
from overnight.launchers.finding import Edit, Finding, allowed
from overnight.launchers.follow import Follower, Situation
from overnight.launchers.locked import COMMANDS, Locked
from overnight.launchers.prune import every
from overnight.launchers.steps import HOLE, Script, Set, Text

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_TELLING_CHARS = 6  # shorter texts are words like `none`, and masking those would eat the messages


@dataclass
class Checked:
    """What was found. `secrets` are the keys written in the files: nothing that is shown may hold one."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    secrets: set[str] = field(default_factory=set)


def check(paths: Sequence[Path], lock: Locked, home: Path) -> Checked:
    """Every finding in the given files and below the given folders, in the order of the files.

    Reads only; nothing is run. A file that is no launcher, is binary, or is
    larger than a megabyte is passed over without a word.

    Args:
        paths: Files and folders.
        lock: What is true.
        home: The folder that shown paths are relative to, and below which sourced files are looked for.

    Raises:
        OSError: a given path cannot be read.
    """
    return _Checker(lock, home).run(paths)


class _Checker:
    def __init__(self, lock: Locked, home: Path) -> None:
        self._lock, self._home = lock, home
        self._texts: dict[Path, Text] = {}
        self._scripts: dict[tuple[Path, str], Script] = {}
        self._active: Counter[tuple[str, int]] = Counter()
        self._hits: Counter[tuple[str, str, int]] = Counter()
        self._found: dict[tuple[str, str, int], Finding] = {}
        self._secrets: set[str] = set()

    def run(self, paths: Sequence[Path]) -> Checked:
        files = 0
        for path in paths:
            path.stat()  # a folder that is not there has no files, and that is no good news
            for each in kinds.files_under(path) if path.is_dir() else [path]:
                files += self._file(each, given=each is path)
        findings = [self._sure(each) for each in self._found.values() if not self._is_allowed(each)]
        findings.sort(key=lambda each: (each.place.text.shown, each.place.start))
        return Checked(findings, files, self._secrets)

    @staticmethod
    def _is_allowed(found: Finding) -> bool:
        return allowed(found.place.text, found.place, found.rule)

    def _sure(self, found: Finding) -> Finding:
        """A mend is certain only if it is right wherever the same line is at work."""
        active = self._active[found.place.text.shown, found.place.start]
        return replace(found, certain=found.certain and self._hits[found.identity] >= active)

    def _file(self, path: Path, given: bool) -> bool:
        kind = kinds.kind_of(path, b"")
        if kind is None and path.suffix:
            return False
        text = self._text(path, given)
        kind = kind or (kinds.kind_of(path, text.data) if text else None)
        if text is None or kind is None:
            return False
        if not self._lock.telling.search(text.data):
            return True
        script = self._script(text, kind)
        for situation in Follower(script, self._load, COMMANDS, self._lock.names).follow():
            self._judge(situation)
        return True

    def _text(self, path: Path, given: bool) -> Text | None:
        place = path.absolute()
        if place not in self._texts:
            try:
                data = place.read_bytes() if place.stat().st_size <= kinds.MOST_BYTES else b"\0"
            except OSError:
                if given:
                    raise
                return None
            if b"\0" in data:
                return None
            shown = place.relative_to(self._home) if place.is_relative_to(self._home) else path
            self._texts[place] = Text(place, shown.as_posix(), data)
        return self._texts[place]

    def _script(self, text: Text, kind: str) -> Script:
        key = (text.path, kind)
        if key not in self._scripts:
            self._scripts[key] = kinds.read(text, kind)
            for step in every(self._scripts[key].program):
                if isinstance(step, Set) and _SECRET.search(step.name):
                    self._remember("".join(part for part in step.value.parts if isinstance(part, str)))
        return self._scripts[key]

    def _load(self, origin: Text, name: str, kind: str) -> Script | None:
        """The file that `origin` sources, when it can be told and lies below our home."""
        rest = name.rpartition(HOLE)[2].lstrip("/") if HOLE in name else name
        if not rest or not kind or rest.startswith("~"):
            return None
        folders = [origin.path.parent, self._home]
        if kind == "environment-file":  # its path is one on the machine that runs the unit
            rest = Path(rest).name
        for folder in folders:
            place = Path(folder, rest).resolve()
            text = self._text(place, given=False) if place.is_relative_to(self._home.resolve()) else None
            if text is not None:
                return self._script(text, kind)
        return None

    def _judge(self, situation: Situation) -> None:
        fitting = routes(self._lock, situation)
        way = situation.way
        for name in self._lock.secret_names & way.vars.keys():  # its text may come from another variable
            self._remember(way.vars[name].text)
        if fitting or agent_of(situation):
            for bound in way.vars.values():
                self._active[bound.step.place.text.shown, bound.step.place.start] += 1
        everywhere = [{each.identity: each for each in _all(Case(self._lock, situation, route))} for route in fitting]
        certain = (
            [each for key, each in everywhere[0].items() if all(key in one for one in everywhere)] if fitting else []
        )
        for each in (*certain, *trapped.check_keys(self._lock, situation), *_dropped(self._lock, situation)):
            if each.identity not in self._found:
                self._found[each.identity] = each
            self._hits[each.identity] += 1

    def _remember(self, text: str) -> None:
        pieces = re.split(rf"{HOLE}|[\"'\s]", text)
        self._secrets.update(piece for piece in pieces if len(piece) >= _TELLING_CHARS and "$" not in piece)


def _all(case: Case) -> Iterator[Finding]:
    """Findings of one case. A trap that only says a name should not be there yields to a rule that says why."""
    taken = set()
    for each in (*keys.check(case), *addresses.check(case)):
        taken.add((each.place.text.shown, each.place.start))
        yield each
    for each in trapped.check(case):
        if (each.place.text.shown, each.place.start) not in taken:
            yield each


def _dropped(lock: Locked, situation: Situation) -> Iterator[Finding]:
    """Lines that set nothing, where the name is one that the lock knows."""
    for name, step in situation.way.dropped.items():
        if lock.telling.fullmatch(name.encode()):
            yield finding(
                ("line-without-effect", {}),
                step.place,
                f"{name} is not set by this line",
                (step.source, {"source": step.source, "date": "2026-11-22", "confidence": "official"}),
                why=step.why,
                mend="leave `export` out",
                edits=(Edit(*step.fix),) if step.fix else (),
                certain=True,
            )

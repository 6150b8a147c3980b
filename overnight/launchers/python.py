"""Python that makes an environment for a program it starts, or changes its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overnight.launchers import shell
from overnight.launchers.steps import (
    Choice,
    Clear,
    Condition,
    Place,
    Program,
    Ref,
    Scope,
    Script,
    Set,
    Step,
    Text,
    Unset,
    Value,
)

_OWN = "os.environ"
_CONSTANT = "python:"
_COPIES = ("os.environ.copy", "dict", "copy.copy", "copy.deepcopy")


@dataclass(frozen=True)
class _Event:
    """A step in one environment. `space` is the expression that names it; "*" is for every environment."""

    space: str
    step: Step


@dataclass(frozen=True)
class _Fork:
    test: str
    body: Sequence[_Event | _Fork]
    other: Sequence[_Event | _Fork]


def read(text: Text) -> Script:
    """Every environment that the file makes, one program each; nothing when the file is not Python."""
    try:
        tree = ast.parse(text.data)
    except (SyntaxError, ValueError):
        return Script(text, (), whole=False)
    reader = _Reader(text)
    programs: list[Step] = []
    constants = [event for event in reader.block(tree.body) if isinstance(event, _Event) and event.space == "*"]
    bodies = [
        tree.body,
        *(node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)),
    ]
    for body in bodies:
        events = [*constants, *reader.block(body)] if body is not tree.body else list(reader.block(body))
        for space in sorted({*_spaces(events)}):
            programs.append(Scope(list(_project(events, space))))
    return Script(text, programs)


def _spaces(events: Sequence[_Event | _Fork]) -> Iterator[str]:
    for event in events:
        if isinstance(event, _Fork):
            yield from _spaces([*event.body, *event.other])
        elif event.space != "*":
            yield event.space


def _project(events: Sequence[_Event | _Fork], space: str) -> Iterator[Step]:
    """What happens to one environment, in order."""
    for event in events:
        if isinstance(event, _Event):
            if event.space in (space, "*"):
                yield event.step
        else:
            body, other = list(_project(event.body, space)), list(_project(event.other, space))
            if body or other:
                yield Choice(((Condition(event.test), body), (None, other)))


class _Reader:
    def __init__(self, text: Text) -> None:
        self._text = text
        self._starts = [0]
        for line in text.data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._lists: dict[str, ast.List | ast.Tuple] = {}

    def _place(self, node: ast.expr | ast.stmt) -> Place:
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        return Place(self._text, start, end)

    def block(self, body: Sequence[ast.stmt]) -> list[_Event | _Fork]:
        return [event for statement in body for event in self._statement(statement)]

    def _statement(self, node: ast.stmt) -> Iterator[_Event | _Fork]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return
        if isinstance(node, ast.If):
            yield _Fork(ast.unparse(node.test), self.block(node.body), self.block(node.orelse))
            return
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            yield from self._assign(node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from self._assign(node.target, node.value)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr):
            yield from self._pairs(ast.unparse(node.target), node.value)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                if (name := _key(target)) is not None and isinstance(target, ast.Subscript):
                    yield _Event(ast.unparse(target.value), Unset(name, self._place(target)))
        for field in ("body", "orelse", "finalbody"):
            yield from self.block(getattr(node, field, []))
        for call in [] if hasattr(node, "body") else [n for n in ast.walk(node) if isinstance(n, ast.Call)]:
            yield from self._call(call)

    def _assign(self, target: ast.expr, value: ast.expr) -> Iterator[_Event]:
        if isinstance(target, ast.Subscript) and (name := _key(target)) is not None:
            yield _Event(ast.unparse(target.value), self._set(target.slice, name, value))
        elif isinstance(target, ast.Name):
            if isinstance(value, ast.List | ast.Tuple):
                self._lists[target.id] = value
            elif isinstance(value, ast.Constant) and isinstance(value.value, str):
                place = self._place(target)
                yield _Event("*", Set(_CONSTANT + target.id, self._value(value), place, exported=False))
            else:
                yield from self._pairs(target.id, value)

    def _pairs(self, space: str, value: ast.expr) -> Iterator[_Event]:
        """What a dict expression puts into `space`."""
        if isinstance(value, ast.Dict):
            if not any(key is None for key in value.keys):
                yield _Event(space, Clear(self._place(value)))
            for key, item in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield _Event(space, self._set(key, key.value, item))
                elif key is None:
                    yield from self._pairs(space, item) if isinstance(item, ast.Dict) else ()
        elif isinstance(value, ast.Call) and ast.unparse(value.func) in _COPIES:
            for keyword in value.keywords:
                if keyword.arg is not None:
                    start = self._starts[keyword.lineno - 1] + keyword.col_offset
                    name = Place(self._text, start, start + len(keyword.arg))
                    yield _Event(space, Set(keyword.arg, self._value(keyword.value), name))
            for argument in value.args:
                yield from self._pairs(space, argument) if isinstance(argument, ast.Dict) else ()
        elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
            yield from self._pairs(space, value.left)
            yield from (event for event in self._pairs(space, value.right) if not isinstance(event.step, Clear))

    def _call(self, call: ast.Call) -> Iterator[_Event]:
        function = call.func
        if isinstance(function, ast.Attribute):
            space = ast.unparse(function.value)
            name = _text(call.args[0]) if call.args else None
            if function.attr == "pop" and name is not None:
                yield _Event(space, Unset(name, self._place(call.args[0])))
            elif function.attr == "setdefault" and name is not None and len(call.args) == 2:
                yield _Event(space, self._set(call.args[0], name, call.args[1]))
            elif function.attr == "update" and call.args and isinstance(call.args[0], ast.Dict):
                yield from (e for e in self._pairs(space, call.args[0]) if not isinstance(e.step, Clear))
        given = next((keyword.value for keyword in call.keywords if keyword.arg == "env"), None)
        if given is None and ast.unparse(function).startswith("subprocess."):
            given = ast.Name(_OWN)
        if given is not None:
            space = _OWN if isinstance(given, ast.Name) and given.id == _OWN else ast.unparse(given)
            if not isinstance(given, ast.Name | ast.Attribute):
                space = f"{space}#{call.lineno}"
                yield from self._pairs(space, given)
            yield from (_Event(space, step) for step in self._launch(call))

    def _launch(self, call: ast.Call) -> Program:
        words = call.args[0] if call.args else None
        if isinstance(words, ast.Name):
            words = self._lists.get(words.id)
        if isinstance(words, ast.List | ast.Tuple):
            return shell.of_words([self._value(word) for word in words.elts], self._place(call))
        if call.args and all(isinstance(word, ast.Constant) for word in call.args):
            return shell.of_words([self._value(word) for word in call.args], self._place(call))
        return ()

    def _set(self, key: ast.expr, name: str, value: ast.expr) -> Set:
        return Set(name, self._value(value), self._place(key))

    def _value(self, node: ast.expr) -> Value:
        return Value(tuple(_parts(node)), self._place(node))


def _parts(node: ast.expr) -> Iterator[str | Ref | None]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _parts(value.value if isinstance(value, ast.FormattedValue) else value)
    elif isinstance(node, ast.Name):
        yield Ref(_CONSTANT + node.id)
    else:
        yield None


def _key(node: ast.expr) -> str | None:
    return _text(node.slice) if isinstance(node, ast.Subscript) else None


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

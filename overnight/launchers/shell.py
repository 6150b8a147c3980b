"""Shell scripts as steps, by a real parser: tree-sitter's grammar of bash."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import tree_sitter
import tree_sitter_bash
from tree_sitter import Node

from overnight.launchers.shellwords import EXPANSION, Reader
from overnight.launchers.steps import (
    Choice,
    Clear,
    Condition,
    Define,
    End,
    Export,
    ExportAll,
    Place,
    Program,
    Scope,
    Script,
    Set,
    Source,
    Step,
    Text,
    Unset,
    Value,
)
from overnight.launchers.words import SHELLS, Unwrapper, assignment, unknown

_REDIRECTS = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})
_EXPORTING = frozenset({"export", "declare", "typeset"})


@functools.cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def read(text: Text) -> Script:
    """A whole script."""
    program, whole = _Reader(text, text.data, range(len(text.data) + 1), nested=False).program()
    return Script(text, program, whole)


def read_part(value: Value) -> Program:
    """A script inside a file: one word of a command line, the body of a here-document, a `run:` of a workflow.

    Escapes inside double quotes are undone first; every place still points
    into the file.
    """
    place = value.place
    data, offsets = _undone(place.text.data, place.start, place.end)
    return _Reader(place.text, data, offsets, nested=True).program()[0]


def of_words(words: Sequence[Value], place: Place) -> Program:
    """What a command given as separate words does."""
    return Unwrapper(read_part, place, []).program(words)


def _undone(data: bytes, start: int, end: int) -> tuple[bytes, Sequence[int]]:
    quote = data[start : start + 1]
    if quote in (b"'", b'"') and end - start >= 2 and data[end - 1 : end] == quote:
        start, end = start + 1, end - 1
    if quote != b'"' or b"\\" not in data[start:end]:
        return data[start:end], range(start, end + 1)
    offsets, at = [], start
    while at < end:
        if data[at : at + 1] == b"\\" and data[at + 1 : at + 2] in (b'"', b"\\", b"$", b"`"):
            at += 1
        offsets.append(at)
        at += 1
    return bytes(data[at] for at in offsets), [*offsets, end]


class _Reader(Reader):
    def program(self) -> tuple[Program, bool]:
        root = _parser().parse(self._data).root_node
        steps = list(self._block(root.children))
        first = self._data.partition(b"\n")[0]
        if first.startswith(b"#!") and re.search(rb"\s-[a-z]*l", first):
            from overnight.launchers.steps import Login

            steps.insert(0, Login(self.place(0, len(first))))
        return steps, not root.has_error

    def _block(self, nodes: Sequence[Node]) -> Iterator[Step]:
        for node in nodes:
            yield from self._statement(node)

    def _statement(self, node: Node) -> Iterator[Step]:
        read = getattr(self, f"_on_{node.type}", None)
        if read is not None:
            yield from read(node)
        elif node.is_named and node.type != "comment":
            yield from self._block(node.children)  # loops, groups, what the parser could not name

    # --- assignments

    def _on_variable_assignment(self, node: Node) -> Iterator[Step]:
        yield from self._assign(node, exported=None)

    def _assign(self, node: Node, exported: bool | None) -> Iterator[Set]:
        name = node.child_by_field_name("name")
        if name is None or name.type != "variable_name":
            return
        value = node.child_by_field_name("value")
        at = self.at(node)
        read = Value(("",), Place(self.text, at.end, at.end)) if value is None else self.value(value)
        if b"+=" in self._data[name.end_byte : name.end_byte + 2]:
            read = Value((None,), read.place)
        yield Set(self.raw(name).decode(), read, self.at(name), exported, "" if self.nested else '""')

    def _on_declaration_command(self, node: Node) -> Iterator[Step]:
        keyword = self.raw(node.children[0]).decode()
        flags = "".join(self.raw(child).decode() for child in node.children if child.type == "word")
        exports = keyword == "export" or (keyword in _EXPORTING and "x" in flags)
        off = keyword == "export" and "n" in flags
        for child in node.children:
            if child.type == "variable_assignment":
                yield from self._assign(child, exported=True if exports else None)
            elif child.type == "variable_name" and exports:
                yield Export(self.raw(child).decode(), on=not off)

    def _on_unset_command(self, node: Node) -> Iterator[Step]:
        words = [child for child in node.children if child.type in ("variable_name", "word")]
        if not any(self.raw(word) == b"-f" for word in words):
            for word in words:
                if not self.raw(word).startswith(b"-"):
                    yield Unset(self.raw(word).decode(), self.at(word))

    # --- commands

    def _on_command(self, node: Node) -> Iterator[Step]:
        own = [
            step for child in node.children if child.type == "variable_assignment" for step in self._assign(child, True)
        ]
        words = [self.value(child) for child in self._words(node)]
        name = words[0].literal if words else ""
        if name in (".", "source") and len(words) > 1:
            yield Source(words[1], "shell")
        elif name in ("exit", "return"):
            yield End()
        elif name == "set":
            yield from self._set(words)
        elif name == ":" and len(words) > 1:
            yield from self._defaults(node)
        elif name == "export":  # inside what the parser could not follow
            yield from (step for word in words[1:] if (step := assignment(word)) is not None)
        elif words:
            yield from Unwrapper(read_part, self.at(node), list(own)).program(words)

    @staticmethod
    def _words(node: Node) -> list[Node]:
        words = []
        for child in node.children:
            if child.type == "command_name":
                words.append(child.children[0] if child.children else child)
            elif child.is_named and child.type != "variable_assignment" and child.type not in _REDIRECTS:
                words.append(child)
        return words

    @staticmethod
    def _set(words: Sequence[Value]) -> Iterator[Step]:
        texts = [word.literal or "" for word in words[1:]]
        if any(re.fullmatch(r"-[a-z]*a[a-z]*", text) for text in texts) or "-o allexport" in " ".join(texts):
            yield ExportAll(on=True)
        elif "+a" in texts or "+o allexport" in " ".join(texts):
            yield ExportAll(on=False)

    def _defaults(self, node: Node) -> Iterator[Step]:
        """`: "${NAME:=value}"`."""
        for child in node.children:
            for part in [child, *child.children]:
                if part.type == "expansion" and (match := EXPANSION.fullmatch(self.raw(part))) and b"=" in match[2]:
                    name = self.place(part.start_byte + match.start(1), part.start_byte + match.end(1))
                    value = self.default(part, match)
                    yield Set(match[1].decode(), value, name, exported=None, empty="", only_default=True)

    def _on_redirected_statement(self, node: Node) -> Iterator[Step]:
        body = next((part for child in node.children for part in child.children if part.type == "heredoc_body"), None)
        command = node.child_by_field_name("body")
        if command is None:
            return
        if body is None or command.type != "command":
            yield from self._statement(command)
            return
        words = [self.value(child).literal or "" for child in self._words(command)]
        inside = Value((None,), self.at(body))
        name = PurePosixPath(words[0]).name if words else ""
        if name in SHELLS or name == "ssh":
            away = (Clear(self.at(command)), unknown(self.at(command))) if name == "ssh" else ()
            yield Scope((*away, *read_part(inside)))
        elif name in ("cat", "tee"):
            target = next((self.raw(c).decode() for c in node.children if c.type == "file_redirect"), " ".join(words))
            if re.search(r"\.(?:sh|bash|env)\b|/\.env\b|\benv\.sh|rc$|profile$", target.rstrip("\"'")):
                yield Scope((Clear(self.at(command)), unknown(self.at(command)), *read_part(inside)))
        else:
            yield from self._statement(command)

    # --- ways

    def _on_pipeline(self, node: Node) -> Iterator[Step]:
        for child in node.named_children:
            steps = list(self._statement(child))
            yield from steps if len(node.named_children) == 1 else [Scope(steps)]

    def _on_subshell(self, node: Node) -> Iterator[Step]:
        yield Scope(list(self._block(node.named_children)))

    def _on_list(self, node: Node) -> Iterator[Step]:
        left, operator, right = node.children[0], self.raw(node.children[1]), node.children[-1]
        first, second = list(self._statement(left)), list(self._statement(right))
        if left.type in ("declaration_command", "variable_assignment", "unset_command"):
            yield from first
            yield from second if operator == b"&&" else ()
            return
        yield from first
        condition = self.condition([left])
        if operator == b"||":
            condition = replace(condition, holds=not condition.holds)
        if second:
            yield Choice(((condition, second),))

    def _on_if_statement(self, node: Node) -> Iterator[Step]:
        arms: list[tuple[Condition | None, Program]] = []
        self._arms(node, arms)
        yield from self._block(self._tested(node))
        yield Choice(tuple(arms))

    def _tested(self, node: Node) -> list[Node]:
        return [child for i, child in enumerate(node.children) if node.field_name_for_child(i) == "condition"]

    def _arms(self, node: Node, arms: list[tuple[Condition | None, Program]]) -> None:
        tested = self._tested(node)
        body = [
            child for child in node.children if child not in tested and child.type not in ("elif_clause", "else_clause")
        ]
        if node.type == "elif_clause":  # its fields are not named
            at = next((i for i, child in enumerate(node.children) if child.type == "then"), 1)
            tested, body = node.children[1:at], node.children[at:]
        condition = None if node.type == "else_clause" else self.condition(tested)
        arms.append((condition, list(self._block(body))))
        for child in node.children:
            if child.type in ("elif_clause", "else_clause"):
                self._arms(child, arms)

    def _on_case_statement(self, node: Node) -> Iterator[Step]:
        subject = node.child_by_field_name("value")
        name = self.raw(subject).decode("utf-8", "replace").strip("\"'") if subject else ""
        arms: list[tuple[Condition | None, Program]] = []
        for item in (child for child in node.named_children if child.type == "case_item"):
            patterns = [child for i, child in enumerate(item.children) if item.field_name_for_child(i) == "value"]
            texts = [self.raw(pattern).decode("utf-8", "replace").strip("\"'") for pattern in patterns]
            steps = list(self._block([child for child in item.children if child not in patterns]))
            if "*" in texts:
                arms.append((None, steps))
            else:
                arms.append((Condition(name, texts[0]) if len(texts) == 1 else Condition(f"{name} in {texts}"), steps))
        yield Choice(tuple(arms))

    def _on_function_definition(self, node: Node) -> Iterator[Step]:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is not None and body is not None:
            yield Define(self.raw(name).decode("utf-8", "replace"), list(self._statement(body)))

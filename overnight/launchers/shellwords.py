"""What a shell's words and conditions say, as far as a file can say it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tree_sitter import Node

from overnight.launchers.steps import Condition, Place, Ref, Text, Value

EXPANSION = re.compile(rb"\$\{(\w+)(:?[-=])(.*)\}", re.DOTALL)
_EXPRESSION = re.compile(rb"\$\{\{.*?\}\}", re.DOTALL)
_PLAIN_EXPANSION = re.compile(rb"\$\{(\w+)(?::?\?.*)?\}", re.DOTALL)


class Reader:
    """A piece of shell inside a file. `offsets` say where in the file each of its bytes is."""

    def __init__(self, text: Text, data: bytes, offsets: Sequence[int], nested: bool) -> None:
        self.text, self._offsets, self.nested = text, offsets, nested
        # an expression of a workflow: no shell sees it, and none could read it
        self._data = _EXPRESSION.sub(lambda match: b"$" + b"x" * (len(match[0]) - 1), data)

    def place(self, start: int, end: int) -> Place:
        return Place(self.text, self._offsets[start], self._offsets[end])

    def at(self, node: Node) -> Place:
        return self.place(node.start_byte, node.end_byte)

    def raw(self, node: Node) -> bytes:
        return self._data[node.start_byte : node.end_byte]

    def value(self, node: Node) -> Value:
        return Value(tuple(self._parts(node)) or ("",), self.at(node))

    def _parts(self, node: Node) -> Iterator[str | Ref | None]:
        kind = node.type
        if kind in ("word", "number", "variable_name", "string_content", "extglob_pattern"):
            yield re.sub(r"\\(.)", r"\1", self.raw(node).decode("utf-8", "replace"), flags=re.DOTALL)
        elif kind == "raw_string":
            yield self.raw(node)[1:-1].decode("utf-8", "replace")
        elif kind == "string":
            yield from self._quoted(node)
        elif kind == "concatenation":
            for child in node.children:
                yield from self._parts(child)
        elif kind == "simple_expansion":
            name = node.named_children[0] if node.named_children else None
            yield Ref(self.raw(name).decode()) if name is not None and name.type == "variable_name" else None
        elif kind == "expansion":
            yield self._expansion(node)
        else:
            yield None

    def _quoted(self, node: Node) -> Iterator[str | Ref | None]:
        at, end = node.start_byte + 1, node.end_byte - 1
        for child in [child for child in node.children if child.is_named and child.type != "string_content"]:
            if child.start_byte > at:
                yield _unescaped(self._data[at : child.start_byte])
            yield from self._parts(child)
            at = child.end_byte
        if end > at:
            yield _unescaped(self._data[at:end])

    def _expansion(self, node: Node) -> Ref | None:
        raw = self.raw(node)
        if match := _PLAIN_EXPANSION.fullmatch(raw):
            return Ref(match[1].decode())
        if match := EXPANSION.fullmatch(raw):
            return Ref(match[1].decode(), self.default(node, match))
        return None

    def default(self, node: Node, match: re.Match[bytes]) -> Value:
        place = self.place(node.start_byte + match.start(3), node.start_byte + match.end(3))
        text = match[3].decode("utf-8", "replace")
        if inner := re.fullmatch(r"\$\{?(\w+)\}?", text):
            return Value((Ref(inner[1]),), place)
        return Value((None if "$" in text or "`" in text else text.strip("\"'"),), place)

    def condition(self, nodes: Sequence[Node]) -> Condition:
        text = " ".join(self.raw(node).decode("utf-8", "replace") for node in nodes if node.type != ";").strip("; ")
        plain = re.sub(r"[\"'{}]", "", text.removeprefix("test ").strip("[] "))
        if match := re.fullmatch(r"(\$\w+)(?::-)?\s*(==?|!=)\s*([\w.:/-]*)", plain):
            return Condition(match[1], match[3], holds=match[2] != "!=")
        if match := re.fullmatch(r"(!\s*)?(-[nz])?\s*(\$\w+)(?::-)?", plain):
            return Condition(f"-n {match[3]}", holds=(match[2] == "-z") is bool(match[1]))
        return Condition(plain.lstrip("! "), holds=not plain.startswith("!"))


def _unescaped(data: bytes) -> str:
    return re.sub(r'\\(["\\$`])', r"\1", data.decode("utf-8", "replace"))

"""Compose files, GitHub workflows and agents' settings, with the place of every value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from overnight.launchers import shell
from overnight.launchers.lines import parts_of
from overnight.launchers.steps import Place, Program, Scope, Script, Set, Source, Step, Text, Value
from overnight.launchers.words import assignment

_EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)


class _Document:
    """One parsed file. ruamel counts characters, places count bytes."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self._string = text.data.decode("utf-8", "replace")
        self._ascii = self._string.isascii()

    def root(self) -> Node | None:
        try:
            node: Node | None = YAML(typ="safe", pure=True).compose(self._string)
        except YAMLError:
            return None
        return node

    def place(self, node: Node) -> Place:
        start, end = node.start_mark.index, node.end_mark.index
        if not self._ascii:
            start, end = (len(self._string[:at].encode()) for at in (start, end))
        return Place(self.text, start, end)

    def value(self, node: Node, references: bool) -> Value:
        """A scalar; `${{ ... }}` is a hole, and so is anything that is no scalar."""
        place = self.place(node)
        if not isinstance(node, ScalarNode):
            return Value((None,), place)
        if references:
            return Value(parts_of(node.value.replace("$$", "\0")), place)
        pieces = _EXPRESSION.split(node.value)
        parts: list[str | None] = [pieces[0]] if pieces[0] or len(pieces) == 1 else []
        for piece in pieces[1:]:
            parts.append(None)
            parts += [piece] if piece else []
        return Value(tuple(parts), place)

    def sets(self, node: Node | None, references: bool) -> Iterator[Step]:
        """The pairs of an environment, written as a mapping or as a list of NAME=value."""
        for key, value in _pairs(node):
            null = isinstance(value, ScalarNode) and str(value.tag).endswith(":null") and not value.value
            held = Value((None,), self.place(value)) if null else self.value(value, references)
            yield Set(key.value, held, self.place(key))
        for item in node.value if isinstance(node, SequenceNode) else ():
            pair = assignment(self.value(item, references))
            if pair is not None:
                yield pair

    def command(self, node: Node | None) -> Program:
        """A command as one string, as a block of lines or as a list of words."""
        if isinstance(node, SequenceNode):
            return shell.of_words([self.value(item, references=False) for item in node.value], self.place(node))
        if isinstance(node, ScalarNode):
            place = self.place(node)
            if node.style in ("|", ">"):
                place = Place(self.text, self.text.line_at(place.start)[1], place.end)
            return shell.read_part(Value((None,), place))
        return ()


def _pairs(node: Node | None) -> Iterator[tuple[Any, Any]]:
    """The pairs of a mapping whose keys are plain; merged ones (<<) are not followed."""
    for key, value in node.value if isinstance(node, MappingNode) else ():
        if isinstance(key, ScalarNode):
            yield key, value


def _get(node: Node | None, name: str) -> Node | None:
    return next((value for key, value in _pairs(node) if key.value == name), None)


def read_compose(text: Text) -> Script:
    """Each service on its own. Its `environment` wins over its `env_file`."""
    document = _Document(text)
    root = document.root()
    services = []
    for _, service in _pairs(_get(root, "services")):
        files = _get(service, "env_file")
        steps: list[Step] = []
        for item in files.value if isinstance(files, SequenceNode) else [files]:
            path = _get(item, "path") if isinstance(item, MappingNode) else item
            if path is not None:
                steps.append(Source(document.value(path, references=True), "dotenv"))
        steps.extend(document.sets(_get(service, "environment"), references=True))
        steps.extend(document.command(_get(service, "entrypoint")) or document.command(_get(service, "command")))
        services.append(Scope(steps))
    return Script(text, services, whole=root is not None)


def read_workflow(text: Text) -> Script:
    """Each step of each job (or of a composite action), under the `env` of workflow, job and step."""
    document = _Document(text)
    root = document.root()
    jobs: list[Step] = []
    listed = [*(job for _, job in _pairs(_get(root, "jobs"))), *([runs] if (runs := _get(root, "runs")) else [])]
    for job in listed:
        inside: list[Step] = list(document.sets(_get(job, "env"), references=False))
        steps = _get(job, "steps")
        for step in steps.value if isinstance(steps, SequenceNode) else ():
            own = document.sets(_get(step, "env"), references=False)
            inside.append(Scope([*own, *document.command(_get(step, "run"))]))
        jobs.append(Scope(inside))
    return Script(text, [*document.sets(_get(root, "env"), references=False), *jobs], root is not None, expands=False)


def read_settings(text: Text) -> Script:
    """An agent's settings.json: its `env` block. JSON is read as the YAML it is."""
    document = _Document(text)
    root = document.root()
    steps = list(document.sets(_get(root, "env"), references=False))
    return Script(text, steps, whole=root is not None, expands=True)

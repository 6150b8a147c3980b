"""Leaves out of a program whatever cannot touch the names that matter, so that following it stays short."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from overnight.launchers.steps import (
    Choice,
    Define,
    Export,
    Launch,
    Program,
    Ref,
    Scope,
    Set,
    Source,
    Step,
    Unset,
    Value,
)


def prune(program: Program, names: Iterable[str], agents: Iterable[str]) -> Program:
    """The same program for anyone who asks only about `names` and about starts of `agents`.

    What those values and conditions refer to stays, too. A program that
    sources files keeps all its assignments: the files may read them.
    """
    sources = any(isinstance(step, Source) and step.kind for step in every(program))
    called = {step.name for step in every(program) if isinstance(step, Define)}
    wanted = set(names)
    while True:
        kept = list(_kept(program, None if sources else wanted, {*agents, *called}))
        more = {name for step in every(kept) for name in _referred(step)} - wanted
        if not more:
            return kept
        wanted |= more


def _kept(program: Program, names: set[str] | None, words: set[str]) -> Iterator[Step]:
    for step in program:
        if isinstance(step, Set | Unset | Export):
            if names is None or step.name in names:
                yield step
        elif isinstance(step, Launch):
            if _matters(step, names, words):
                yield step
        elif isinstance(step, Scope | Define):
            inner = list(_kept(step.program, names, words))
            if inner or isinstance(step, Define):
                yield replace(step, program=inner)
        elif isinstance(step, Choice):
            arms = tuple((condition, list(_kept(arm, names, words))) for condition, arm in step.arms)
            if any(arm for _, arm in arms):
                yield Choice(arms)
        else:
            yield step


def _matters(launch: Launch, names: set[str] | None, words: set[str]) -> bool:
    if launch.replaces or not launch.words:
        return True
    literal = launch.words[0].literal
    own = any(isinstance(step, Set) and (names is None or step.name in names) for step in launch.own)
    return own or literal is None or literal in words or literal.rpartition("/")[2] in words


def every(program: Program) -> Iterator[Step]:
    """All steps, those inside others, too."""
    for step in program:
        yield step
        if isinstance(step, Scope | Define):
            yield from every(step.program)
        elif isinstance(step, Choice):
            for _, arm in step.arms:
                yield from every(arm)
        elif isinstance(step, Launch):
            yield from every(step.own)


def _referred(step: Step) -> Iterator[str]:
    if isinstance(step, Set):
        yield from _names(step.value)
    elif isinstance(step, Launch):
        for word in step.words:
            yield from _names(word)
    elif isinstance(step, Choice):
        for condition, _ in step.arms:
            yield from re.findall(r"\$(\w+)", condition.subject) if condition else ()


def _names(value: Value) -> Iterator[str]:
    for part in value.parts:
        if isinstance(part, Ref):
            yield part.name
            yield from _names(part.default) if part.default else ()

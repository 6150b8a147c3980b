"""The agent's environment, built from nothing.

An `EnvPatch` is the whole environment of a child process: what is not bound
here does not exist there. Nothing is inherited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A plain value, printable anywhere."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Secret:
    """A reference to a provider's key. The key itself is never held by a record."""

    provider: str

    def __str__(self) -> str:
        return f"<provider:{self.provider}>"


@dataclass(frozen=True)
class Absent:
    """A name that must not exist in the child, and why."""

    reason: str

    def __str__(self) -> str:
        return f"absent: {self.reason}"


Binding = Value | Secret | Absent


class EnvPatch:
    """An immutable set of bindings. A name bound twice cannot be constructed.

    Raises:
        ValueError: a name is bound twice, empty, or holds `=` or NUL.
    """

    __slots__ = ("_bindings",)

    def __init__(self, bindings: Iterable[tuple[str, Binding]] = ()) -> None:
        bound: dict[str, Binding] = {}
        for name, binding in bindings:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"not a variable name: {name!r}")
            if name in bound:
                raise ValueError(f"{name} is bound twice: {bound[name]} and {binding}")
            bound[name] = binding
        self._bindings = dict(sorted(bound.items()))

    def joined(self, other: EnvPatch) -> EnvPatch:
        """Both patches as one; a name in both is a ValueError, not an override."""
        return EnvPatch([*self._bindings.items(), *other._bindings.items()])

    def values(self) -> dict[str, str]:
        return {n: b.text for n, b in self._bindings.items() if isinstance(b, Value)}

    def secrets(self) -> dict[str, str]:
        """Variable name -> provider whose key goes there."""
        return {n: b.provider for n, b in self._bindings.items() if isinstance(b, Secret)}

    def absent(self) -> dict[str, str]:
        """Variable name -> reason it must not exist."""
        return {n: b.reason for n, b in self._bindings.items() if isinstance(b, Absent)}

    def __iter__(self) -> Iterator[tuple[str, Binding]]:
        return iter(self._bindings.items())

    def __getitem__(self, name: str) -> Binding:
        return self._bindings[name]

    def __contains__(self, name: str) -> bool:
        return name in self._bindings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvPatch) and self._bindings == other._bindings

    def __hash__(self) -> int:
        return hash(tuple(self._bindings.items()))

    def __repr__(self) -> str:
        return f"EnvPatch({', '.join(f'{n}={b}' for n, b in self)})"

"""The lock as this package asks it: raw, without the models, because a hook runs at every commit.

Whoever wants to know whether a lock is well-formed asks `overnight.lockfile`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.lockplace import OVERLAY

COMMANDS: Mapping[str, str] = {
    "aider": "aider",
    "claude": "claude-code",
    "@anthropic-ai/claude-code": "claude-code",
    "codex": "codex",
    "@openai/codex": "codex",
    "gemini": "gemini-cli",
    "goose": "goose",
    "opencode": "opencode",
    "opencode-ai": "opencode",
    "pi": "pi",
    "@mariozechner/pi-coding-agent": "pi",
    "qwen": "qwen",
    "@qwen-code/qwen-code": "qwen",
    "copilot": "copilot",
    "@github/copilot": "copilot",
}
"""Which harness a command starts. A test holds it against the harness modules."""

_ANYWHERE = "{host}"


@dataclass(frozen=True)
class Route:
    """A provider as one harness reaches it."""

    lock: Locked
    provider: str
    harness: str

    @property
    def wiring(self) -> dict[str, Any]:
        wiring: dict[str, Any] = self.lock.providers[self.provider]["harnesses"][self.harness]
        return wiring

    @property
    def fact(self) -> str:
        """Where in the lock the wiring stands."""
        return f"providers.{self.provider}.harnesses.{self.harness}"

    @property
    def url(self) -> str:
        return self.endpoint["url"]  # type: ignore[no-any-return]  # a string in every lock

    @property
    def endpoint(self) -> dict[str, Any]:
        endpoint: dict[str, Any] = self.lock.providers[self.provider]["endpoints"][self.wiring["endpoint"]]
        return endpoint

    @property
    def models(self) -> dict[str, Any]:
        models: dict[str, Any] = self.lock.providers[self.provider]["models"]
        return models

    @property
    def key_variable(self) -> str:
        return next(self.names("{key}"))

    @property
    def url_variable(self) -> str | None:
        return next(self.names("{base_url}"), None)

    def names(self, what: str) -> Iterator[str]:
        """The variables whose value holds `{key}`, `{base_url}` or `{model}`."""
        return (name for name, value in self.wiring["set"].items() if what in value)

    def accepts(self, variable: str) -> tuple[str, str, dict[str, Any]] | None:
        """The header that `variable` makes, whether the provider takes it, and who says so; None where nobody knows.

        Imports the harness modules, which costs; ask only when it decides something.
        """
        from overnight.harnesses import HARNESSES

        harness = HARNESSES.get(self.harness)
        header = harness.HEADER_OF.get(variable) if harness is not None else None
        entry = self.lock.providers[self.provider]["headers"].get(header.value) if header is not None else None
        return (header.wire, entry["accepted"], entry["provenance"]) if header is not None and entry else None


class Locked:
    """Questions to one lock document, as `json.loads` gives it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.providers: dict[str, Any] = document["providers"]
        self.harnesses: dict[str, Any] = document["harnesses"]
        self.traps: dict[str, Any] = document.get("known_bad", {})

    @functools.cached_property
    def routes(self) -> tuple[Route, ...]:
        pairs = ((provider, harness) for provider, entry in self.providers.items() for harness in entry["harnesses"])
        return tuple(Route(self, *pair) for pair in pairs)

    @functools.cached_property
    def key_variables(self) -> dict[str, frozenset[str]]:
        """By harness: every variable that carries a key of some provider to it."""
        return {name: self._names(name, "{key}") for name in self.harnesses}

    @functools.cached_property
    def url_variables(self) -> dict[str, frozenset[str]]:
        return {name: self._names(name, "{base_url}") for name in self.harnesses}

    def _names(self, harness: str, what: str) -> frozenset[str]:
        return frozenset(name for route in self.routes if route.harness == harness for name in route.names(what))

    @functools.cached_property
    def secret_names(self) -> frozenset[str]:
        return frozenset(name for names in self.key_variables.values() for name in names)

    @functools.cached_property
    def telling(self) -> re.Pattern[bytes]:
        """Matches any file that could say something about an agent; every other file need not be read."""
        return re.compile(b"|".join(re.escape(name.encode()) for name in sorted({*self.names, *COMMANDS})))

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """Every variable that the lock says something of."""
        names = {name for route in self.routes for name in (*route.wiring["set"], *route.wiring.get("empty", {}))}
        names |= {name for trap in self.traps.values() for name in trap["match"].get("variables", ())}
        entries = self.harnesses.values()
        return frozenset(names.union(*(entry.get(part, ()) for entry in entries for part in ("absent", "ranges"))))

    def routes_of(self, harness: str, url: str) -> tuple[Route, ...]:
        """Every provider whose place `url` is, however it is written wrongly; none when it is nobody's.

        An exact endpoint counts before an address of the provider that is no
        endpoint, and that before its host alone. An address the user has to
        fill in belongs to nobody.
        """
        plain = _plain(url)
        if plain is None:
            return ()
        mine = [route for route in self.routes if route.harness == harness and _ANYWHERE not in route.url]
        exact = tuple(route for route in mine if _plain(route.url) == plain)
        if exact:
            return exact
        other = tuple(route for route in mine if any(_plain(u) == plain for u in self.other_urls(route.provider)))
        if other:
            return other
        return tuple(route for route in mine if (_plain(route.url) or "").split("/")[0] == plain.split("/")[0])

    def other_urls(self, provider: str) -> dict[str, dict[str, Any]]:
        entries = self.providers[provider].get("other_urls", {})
        return {entry["url"]: entry for entry in entries.values()}


_APPENDED = re.compile(r"(?:/v1)?(?:/messages|/chat/completions|/responses)?/*$")


def _plain(url: str) -> str | None:
    """Host and path of a URL in lower case, without what harnesses append; None for what is no URL."""
    match = re.fullmatch(r"\s*[\"']?(?:https?://)?([\w.-]+\.\w+|[\w.-]+:\d+)(:\d+)?(/[^?#\s\"']*)?[\"']?\s*", url)
    if match is None:
        return None
    return (match[1] + (match[2] or "")).lower() + _APPENDED.sub("", match[3] or "")


def parse(text: str) -> Locked:
    """The lock in `text`, which must be a lock document."""
    return Locked(json.loads(text))


def may_have_overlay(folder: Path) -> bool:
    """Whether a file in this folder, or above it, could be an overlay; `overnight.layers` knows whether it is."""
    return any((each / OVERLAY).is_file() for each in (folder.absolute(), *folder.absolute().parents))

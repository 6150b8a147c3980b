"""What can be varied, one factor at a time. A change is a patch of the lock, so what helped is what to write."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from overnight.doctor.asking import Setting, routed
from overnight.doctor.records import Installed
from overnight.harnesses.protocol import Harness
from overnight.layers import patched
from overnight.lockfile import Header, Provider, ProviderLock, Wiring

_NEAR = 3
_PLACEHOLDERS = ("{key}", "{base_url}", "{model}")
_TAILS = ("/v1/messages", "/v1/responses", "/v1", "/messages", "/responses", "/chat/completions")


@dataclass(frozen=True)
class Change:
    """One factor, as it is and as it is tried. `patch` is laid over the lock; the rest is not the lock's to say."""

    factor: str
    now: str
    tried: str
    patch: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    executable: str = ""
    headers: tuple[Header, ...] | None = None

    def on(self, setting: Setting) -> Setting:
        """The setting with this one thing changed.

        Raises:
            ValueError: the lock would not be one any more.
        """
        if self.patch:
            mark = {"source": "a change that was tried", "date": str(setting.lock.as_of), "confidence": "unverified"}
            setting = replace(setting, lock=patched(setting.lock, self.patch, mark), headers=None)
        if self.model:
            setting = routed(setting, model=self.model)
        if self.headers is not None:
            setting = replace(setting, headers=self.headers)
        return replace(setting, executable=self.executable or setting.executable)

    def __str__(self) -> str:
        return f"{self.factor}: {self.tried} instead of {self.now}"


def header_changes(setting: Setting, harness: Harness) -> Iterator[Change]:
    """The other header, by the harness's own variable for it; then both, then none, which no harness sends."""
    variable = _wiring(setting).key_variables[0]
    sent = harness.HEADER_OF[variable]
    now = f"{sent.wire}, from {variable}"
    for other in Header:
        if other is sent:
            continue
        names = [name for name, header in harness.HEADER_OF.items() if header is other]
        for name in names:
            yield Change("header", now, f"{other.wire}, from {name}", _renamed(setting, variable, name, "{key}"))
        if not names:
            yield Change("header", now, f"{other.wire}, which {harness.NAME} cannot send", headers=(other,))
    yield Change("header", now, "both headers", headers=tuple(Header))
    yield Change("header", now, "no key at all", headers=())


def url_changes(setting: Setting, shipped: ProviderLock, *, elsewhere: bool) -> Iterator[Change]:
    """Base URLs near the one that is set: what the shipped lock says, without a tail that agents add themselves."""
    wiring = _wiring(setting)
    endpoint = _provider(setting).endpoints[wiring.endpoint]
    now = endpoint.url
    entry = shipped.providers.get(setting.task.route.provider)
    others = entry.endpoints.values() if entry else ()
    known = [each.url for each in others if not each.is_yours and each.speaks == endpoint.speaks]
    bare = next((now.removesuffix(tail) for tail in _TAILS if now.endswith(tail)), now)
    paths = [urlsplit(url).path for url in known]
    root = f"{urlsplit(now).scheme}://{urlsplit(now).netloc}"
    tried = [bare, *(root + path for path in paths), *known]
    tried += [f"{now}/anthropic"] if endpoint.speaks == "anthropic" else []
    for url in dict.fromkeys(url.rstrip("/") for url in tried):
        at_home = urlsplit(url).netloc == urlsplit(now).netloc
        if url != now and urlsplit(url).path.count("/v1") < 2 and (elsewhere or at_home):
            yield Change("base URL", now, url, _url_patch(setting, wiring, url))


def vendor_changes(setting: Setting) -> Iterator[Change]:
    """The same vendor's other regions and plans, where a key that is refused here may be at home."""
    wiring, route = _wiring(setting), setting.task.route
    vendor = _provider(setting).vendor
    for name, other in setting.lock.providers.items():
        if not vendor or name == route.provider or other.vendor != vendor or route.harness not in other.harnesses:
            continue
        url = other.endpoints[other.harnesses[route.harness].endpoint].url
        yield Change("region or plan", route.provider, f"{name} ({url})", _url_patch(setting, wiring, url))


def model_changes(setting: Setting, shipped: ProviderLock) -> Iterator[Change]:
    """Model ids near the one that is asked for: lower case, and the nearest that a lock knows."""
    route, mine = setting.task.route, _provider(setting)
    other = shipped.providers.get(route.provider)
    known = [*mine.models, *(other.models if other else ())]
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(route.model.lower(), lowered, n=_NEAR, cutoff=0.5)
    tried = [route.model.lower(), *(lowered[name] for name in near), *known]
    for model in list(dict.fromkeys(name for name in tried if name != route.model))[: _NEAR + 1]:
        patch: dict[str, Any] = {}
        if model not in mine.models:
            patch = {"providers": {route.provider: {"models": {model: {}}}}}
        yield Change("model", route.model, model, patch, model=model)


def wiring_changes(setting: Setting, shipped: ProviderLock, harness: Harness, *, refused: bool) -> Iterator[Change]:
    """Variable names: what the shipped lock, or most providers there, give this harness for key, URL and model.

    Args:
        refused: The agent was, for its key; then the key is tried in every other variable, too.
    """
    wiring, usual = _wiring(setting), _usual(setting, shipped)
    for placeholder in _PLACEHOLDERS:
        now = [name for name, value in wiring.set.items() if placeholder in value]
        for name, value in usual.set.items() if usual else ():
            if placeholder in value and name not in now:
                patch = _renamed(setting, now[0] if now else "", name, value)
                yield Change("variable", " and ".join(now) or "none", name, patch)
    for name, value in usual.set.items() if usual else ():
        if name in wiring.set and wiring.set[name] != value:
            patch = _wired(setting, {"set": {name: value}})
            yield Change("variable", f"{name}={wiring.set[name]}", f"{name}={value}", patch)
    for name in (name for name in wiring.set if usual and name not in usual.set):
        if not any(placeholder in wiring.set[name] for placeholder in _PLACEHOLDERS):
            stated = {each: getattr(usual, each)[name] for each in ("empty", "absent") if name in getattr(usual, each)}
            patch = {"set": {name: None}, **{each: {name: why} for each, why in stated.items()}}
            yield Change(
                "variable", f"{name}, which the shipped lock does not set", f"no {name}", _wired(setting, patch)
            )
    variable = wiring.key_variables[0]
    for name in harness.HEADER_OF if refused else ():
        if name != variable and not (usual and name in usual.set):
            yield Change("variable", variable, name, _renamed(setting, variable, name, "{key}"))


def start_changes(setting: Setting, shipped: ProviderLock, installed: Sequence[Installed]) -> Iterator[Change]:
    """How the agent is started: flags and variables as shipped, the least start it has, another copy of it."""
    name = setting.task.route.harness
    entry, usual, wiring = setting.lock.harnesses[name], shipped.harnesses.get(name), _wiring(setting)
    if usual and entry.flags != usual.flags:
        patch = {"harnesses": {name: {"flags": list(usual.flags)}}}
        added = [flag for flag in entry.flags if flag not in usual.flags]
        missing = [flag for flag in usual.flags if flag not in entry.flags]
        now = ", ".join([*added, *(f"no {flag}" for flag in missing)])
        yield Change("flags", now, "the flags of the shipped lock", patch)
    if wiring.flags:
        yield Change("flags", " ".join(wiring.flags), "without them", _wired(setting, {"flags": []}))
    if usual and entry.env != usual.env:
        different = {k: usual.env.get(k) for k in {**entry.env, **usual.env} if entry.env.get(k) != usual.env.get(k)}
        now = ", ".join(f"{k}={entry.env.get(k, '')}" for k in different)
        yield Change("variables", now, "those of the shipped lock", {"harnesses": {name: {"env": different}}})
    if usual and entry.probe != usual.probe:
        probe = usual.probe.model_dump(mode="json")
        yield Change(
            "waits", "those of this lock", "those of the shipped lock", {"harnesses": {name: {"probe": probe}}}
        )
    if entry.minimal:
        flags = [*entry.flags, *entry.minimal]
        patch = {"harnesses": {name: {"flags": flags}}}
        yield Change("start", "as it is", f"with {' '.join(entry.minimal)}", patch)
    for copy in installed:
        if copy.harness == name and not copy.chosen:
            here = next((each.version for each in installed if each.harness == name and each.chosen), None)
            yield Change(
                "version", f"{here or 'unknown'}", f"{copy.version or 'unknown'} at {copy.path}", executable=copy.path
            )


def _wiring(setting: Setting) -> Wiring:
    return _provider(setting).harnesses[setting.task.route.harness]


def _provider(setting: Setting) -> Provider:
    return setting.lock.providers[setting.task.route.provider]


def _usual(setting: Setting, shipped: ProviderLock) -> Wiring | None:
    """How this harness reaches this provider in the shipped lock; a provider of one's own: as most others."""
    route = setting.task.route
    entry = shipped.providers.get(route.provider)
    if entry and route.harness in entry.harnesses:
        return entry.harnesses[route.harness]
    wirings = [each.harnesses[route.harness] for each in shipped.providers.values() if route.harness in each.harnesses]
    if not wirings:
        return None
    [(common, _)] = Counter(tuple(sorted(each.set)) for each in wirings).most_common(1)
    return next(each for each in wirings if tuple(sorted(each.set)) == common)


def _renamed(setting: Setting, old: str, new: str, value: str) -> dict[str, Any]:
    """The wiring with a value under another name. What was said of the new name does not hold any more."""
    wiring = _wiring(setting)
    change: dict[str, Any] = {"set": {new: value, **({old: None} if old else {})}}
    for place in ("empty", "absent"):
        if new in getattr(wiring, place):
            change[place] = {new: None}
    return _wired(setting, change)


def _wired(setting: Setting, change: Mapping[str, Any]) -> dict[str, Any]:
    route = setting.task.route
    return {"providers": {route.provider: {"harnesses": {route.harness: change}}}}


def _url_patch(setting: Setting, wiring: Wiring, url: str) -> dict[str, Any]:
    return {"providers": {setting.task.route.provider: {"endpoints": {wiring.endpoint: {"url": url}}}}}

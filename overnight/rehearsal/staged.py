"""A user's batch with emulated providers: their tasks, hosts and agents; other addresses, keys and folders.

Nothing here touches anything: it says what to run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from overnight.handover import Deliver
from overnight.lockfile import Header, Provider, ProviderLock, Timing
from overnight.rehearsal.dialects import Shape
from overnight.rehearsal.site import Site
from overnight.rehearsal.troubles import Trouble
from overnight.spec import BatchSpec, HostSpec, Limits, TaskSpec

BESIDE = "-rehearsal"
"""Ends the name of the folder on a host that a rehearsal works in, beside the one of real nights."""
_SHAPE_OF_VENDOR: Mapping[str, Shape] = {
    "zhipu": "zhipu",
    "moonshot": "moonshot",
    "minimax": "minimax",
    "dashscope": "dashscope",
    "alibaba-coding": "dashscope",
}
_SHAPE_OF: Mapping[str, Shape] = {
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "kimi-coding": "moonshot",
    "alibaba-token-plan": "dashscope",
    "rehearsal": "zhipu",
    "rehearsal-x": "zhipu",
}
_REQUEST_TIMEOUT_S = 10.0  # Claude Code gives a stream no less, whatever it is told
_SLACK_S = 10.0
_FIRST_EVENT_S, _QUIET_S = 30.0, 40.0


@dataclass(frozen=True)
class Staged:
    """What is run instead of what was asked. `shortened` says in words which waits are not the user's own."""

    batch: BatchSpec
    lock: ProviderLock
    shortened: tuple[str, ...]


def shape_of(name: str, provider: Provider) -> Shape:
    """Whose words the emulated one uses; Anthropic's where no others are known."""
    return _SHAPE_OF.get(name) or _SHAPE_OF_VENDOR.get(provider.vendor, "anthropic")


def sites(batch: BatchSpec, lock: ProviderLock, trouble: Trouble) -> dict[str, Site]:
    """One for each provider of the batch, with a new key, taking whatever the lock does not say that it refuses."""
    found = {}
    for name in dict.fromkeys(route.provider for route in batch.routes):
        provider = lock.providers[name]
        found[name] = Site(
            name,
            f"rehearsal-{secrets.token_hex(16)}",
            accepts=frozenset(h for h in Header if h not in provider.headers or provider.headers[h].accepted != "no"),
            models=tuple(provider.models),
            shape=shape_of(name, provider),
            fault=trouble.fault,
            answers_as=trouble.answers_as,
        )
    return found


def staged(batch: BatchSpec, lock: ProviderLock, trouble: Trouble, url_of: Callable[[str], str], mark: str) -> Staged:
    """The batch as it is rehearsed, and its lock, which knows no address of a real provider.

    Nobody is asked for approval, no peak hour is waited for, and nothing is spread over workers. Where the
    trouble is a silence, every wait for it is cut short.

    Args:
        url_of: Base URL of the emulated provider of this name.
        mark: Ends the folder of this very rehearsal on each host.
    """
    used = {route.provider: lock.providers[route.provider] for route in batch.routes}
    hasten = _hastened if trouble.is_silent else _as_it_is
    providers = {name: _emulated(provider, url_of(name), hasten) for name, provider in used.items()}
    harnesses = {name: e.model_copy(update={"timing": hasten(e.timing)}) for name, e in lock.harnesses.items()}
    new = lock.model_copy(update={"providers": providers, "harnesses": harnesses})
    hosts = {name: _beside(host, mark) for name, host in batch.hosts.items()}
    tasks, shortened = [], []
    for task in batch.tasks:
        route = task.route
        timing = providers[route.provider].harnesses[route.harness].timing or harnesses[route.harness].timing
        limits = _shortened(task.limits, timing) if trouble.is_silent else task.limits
        tasks.append(task.model_copy(update={"limits": limits, "approve": False, "deliver": Deliver()}))
        shortened += _told(task, limits)
        if trouble.is_silent and timing is not None:
            shortened.append(f"{route.harness}: gives up on a request after {timing.request_timeout_s:g} s")
    update = {"hosts": hosts, "tasks": tuple(tasks), "spread": False, "peak": "allow", "deadline": None}
    return Staged(batch.model_copy(update=update), new, tuple(dict.fromkeys(shortened)))


def _emulated(provider: Provider, url: str, hasten: Callable[[Timing | None], Timing | None]) -> Provider:
    endpoints = {name: each.model_copy(update={"url": url}) for name, each in provider.endpoints.items()}
    wirings = {n: w.model_copy(update={"timing": hasten(w.timing)}) for n, w in provider.harnesses.items()}
    return provider.model_copy(
        update={"endpoints": endpoints, "harnesses": wirings, "other_urls": {}, "free_probes": ()}
    )


def _beside(host: HostSpec, mark: str) -> HostSpec:
    return host.model_copy(update={"directory": f"{host.directory}{BESIDE}/{mark}"})


def _as_it_is(timing: Timing | None) -> Timing | None:
    return timing


def _hastened(timing: Timing | None) -> Timing | None:
    if timing is None:
        return None
    return timing.model_copy(update={"request_timeout_s": min(_REQUEST_TIMEOUT_S, timing.request_timeout_s)})


def _shortened(limits: Limits, timing: Timing | None) -> Limits:
    """Never longer than the user's own, and never so short that an honest wait of the agent is taken for a silence."""
    quiet_s = max(_QUIET_S, timing.longest_s + _SLACK_S if timing else 0)
    most = {"first_event_s": _FIRST_EVENT_S, "quiet_s": quiet_s, "turn_s": quiet_s + _SLACK_S}
    return limits.model_copy(
        update={name: min(s, getattr(limits, name)) for name, s in most.items() if getattr(limits, name) is not None}
    )


def _told(task: TaskSpec, limits: Limits) -> list[str]:
    changed = [
        name for name in ("first_event_s", "quiet_s", "turn_s") if getattr(limits, name) != getattr(task.limits, name)
    ]
    return [f"{name} {getattr(limits, name):g}, not {getattr(task.limits, name):g}" for name in changed]

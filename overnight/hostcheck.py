"""One host, looked at before a night: the way there, python, git, and which agents it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overnight.failures import FailureError, FailureKind
from overnight.harnesses import HARNESSES, scripted
from overnight.lockfile import ProviderLock
from overnight.station import Station

_NO_AGENT = "no agent found; install one, or add its folder to the host's path"


@dataclass(frozen=True)
class Agent:
    """One agent on a host. `version` is None where it says none that can be read."""

    executable: str
    version: str | None


@dataclass(frozen=True)
class HostCheck:
    """What was found on one host. Only when it cannot carry runs there are `kind`, `evidence` and `mend`.

    `kind` is also None for a host that nobody could ask. `notes` decide nothing.
    """

    name: str
    ok: bool
    kind: FailureKind | None = None
    evidence: tuple[str, ...] = ()
    mend: str = ""
    address: str = ""
    python: str = ""
    platform: str = ""
    disk_free_bytes: int | None = None
    agents: Mapping[str, Agent] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_host(station: Station, lock: ProviderLock) -> HostCheck:
    """Connect with the pinned key, install the supervisor, look for git and the agents. Blocks, some seconds.

    What is wrong with the host is the answer, not an exception. A missing agent
    is a note: only a route can say which one is needed. The caller closes the station.
    """
    spec = station.spec
    address = f"{spec.user}@{spec.address}:{spec.port}"
    try:
        station.fit()
        facts = station.remote.install()
        agents = _agents(station)
    except FailureError as error:
        failure = error.failure
        seen = tuple(str(each) for each in failure.evidence)
        return HostCheck(station.name, False, failure.kind, seen, failure.remedy, address)
    return HostCheck(
        name=station.name,
        ok=True,
        address=address,
        python=facts.python,
        platform=facts.platform,
        disk_free_bytes=facts.disk_free_bytes,
        agents=agents,
        notes=_notes(agents, lock),
    )


def _agents(station: Station) -> dict[str, Agent]:
    """Those found. Our own scripted one needs python alone and says nothing about the host."""
    found: dict[str, Agent] = {}
    for name, harness in HARNESSES.items():
        if name == scripted.NAME:
            continue
        try:
            found[name] = Agent(*station.locate(harness))
        except FailureError as error:
            if error.failure.kind is not FailureKind.HARNESS_MISSING:
                raise
    return found


def _notes(agents: Mapping[str, Agent], lock: ProviderLock) -> tuple[str, ...]:
    if not agents:
        return (_NO_AGENT,)
    notes: list[str] = []
    for name, agent in agents.items():
        known = lock.harnesses[name].versions.get(agent.version or "") if name in lock.harnesses else None
        if known is None:
            notes.append(f"{name} {agent.version or 'of unknown version'} is not in the lock")
        elif known.status == "bad":
            notes.append(f"{name} {agent.version} is known bad: {known.note}")
    return tuple(notes)

"""What a host's own numbers mean for a night; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from overnight.doctor.records import Finding, Weight

CLOCK_S, CLOCK_WRONG_S = 60, 86_400
LOW_BYTES, OUT_BYTES = 2_000_000_000, 500_000_000
LOW_FILES, OUT_FILES = 50_000, 2_000
LOW_MEMORY, OUT_OF_MEMORY = 1_000_000_000, 250_000_000
OPEN_FILES, PROCESSES = 1024, 500
SESSIONS, STARTUPS = 4, 6
ON_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "lustre", "gpfs", "ceph")

Facts = Mapping[str, Any]


def clock_ahead_s(clock: Sequence[float], sent: float, received: float) -> tuple[float, float]:
    """By how much the host's clock is ahead of ours: at least, at most. `clock` is the host's, at start and end."""
    return clock[1] - received, clock[0] - sent


def findings(facts: Facts) -> Iterator[Finding]:
    """What is short. A number that the host did not say is never a finding."""
    if not facts["home_is_there"]:
        mend = "make it, or correct HOME for the account"
        yield Finding(id="home-missing", weight="error", seen=f"{facts['home']} is not there", where="HOME", mend=mend)
    kind = facts["home_file_system"] or ""
    if kind.startswith(ON_NETWORK):
        seen = f"the folder of runs is on {kind}, where locks may not hold"
        yield Finding(
            id="home-on-network", weight="warning", seen=seen, mend="set the host's directory to a local disk"
        )
    if facts["git"] is None:
        yield Finding(
            id="host-unfit", weight="error", seen="no git that answers in the host's path", mend="install git"
        )
    yield from _room(facts, "home", "error")
    yield from _room(facts, "tmp", "warning")  # a run's own temporary folder is below the home
    if not facts["tmp_is_writable"]:
        yield Finding(id="tmp-not-writable", weight="warning", seen="it may not be written", where=facts["tmp"])
    yield from _limits(facts)


def clock_findings(least: float, most: float) -> Iterator[Finding]:
    """Only what is certain, however long the call took."""
    off = least if least > 0 else -most if most < 0 else 0.0
    if off > CLOCK_S:
        weight: Weight = "error" if off > CLOCK_WRONG_S else "warning"
        seen = f"the host's clock is {'ahead' if least > 0 else 'behind'} by {off:.0f} s, or this machine's is wrong"
        yield Finding(id="clock-off", weight=weight, seen=seen, where="clock", mend="let both follow a time server")


def _room(facts: Facts, name: str, worst: Weight) -> Iterator[Finding]:
    for what, low, out in (("bytes", LOW_BYTES, OUT_BYTES), ("files", LOW_FILES, OUT_FILES)):
        free = facts[f"{name}_free_{what}"]
        if free is not None and free < low:
            weight: Weight = worst if free < out else "warning"
            left = f"{free / 1e9:.1f} GB" if what == "bytes" else f"{free} more files"
            seen = f"room for {left} is left; a run takes a clone of the repository and what the agent builds"
            yield Finding(
                id="disk-low", weight=weight, seen=seen, where=facts[name], mend="overnight gc, or a larger disk"
            )


def _limits(facts: Facts) -> Iterator[Finding]:
    free = [facts[name] for name in ("memory_available_bytes", "memory_limit_bytes") if facts[name] is not None]
    if free and min(free) < LOW_MEMORY:
        weight: Weight = "error" if min(free) < OUT_OF_MEMORY else "warning"
        seen = f"{min(free) / 1e6:.0f} MB are free; an agent takes 300 MB to 1.2 GB"
        yield Finding(id="memory-low", weight=weight, seen=seen, where="memory", mend="fewer slots, or more memory")
    for name, least, option in (("open_files", OPEN_FILES, "-n"), ("processes", PROCESSES, "-u")):
        if facts[name] is not None and facts[name] < least:
            seen = f"at most {facts[name]} {name.replace('_', ' ')} for this user"
            where = f"ulimit {option}"
            yield Finding(
                id=f"{name.replace('_', '-')}-low", weight="warning", seen=seen, where=where, mend=f"{least} or more"
            )


def sshd_findings(lines: Sequence[Sequence[Any]]) -> Iterator[Finding]:
    """Of each keyword the first line counts. What stands below a Match may not be meant for us, and says so."""
    seen: set[str] = set()
    for path, number, word, value, matched in lines:
        if word in seen and not matched:
            continue
        seen |= set() if matched else {word}
        where, whom = f"{path}:{number}", " for some connections (Match)" if matched else ""
        first = value.split(":")[0].split(" ")[0]
        if word == "maxsessions" and first.isdigit() and int(first) < SESSIONS:
            said = f"one connection may have {first} commands at a time{whom}: we wait for each other"
            yield Finding(
                id="sshd-max-sessions",
                weight="warning",
                seen=said,
                where=where,
                mend=f"{SESSIONS} or more; 10 is usual",
            )
        elif word in ("maxstartups", "persourcemaxstartups") and first.isdigit() and int(first) < STARTUPS:
            said = f"with {first} logins under way, further connections are dropped{whom}"
            yield Finding(
                id="sshd-max-startups",
                weight="warning",
                seen=said,
                where=where,
                mend=f"{STARTUPS} or more; 10:30:100 is usual",
            )
        elif word == "persourcepenalties" and value.lower() != "no":
            said = f"addresses that fail to log in are locked out for a while{whom}"
            mend = "PerSourcePenaltyExemptList with this machine's address"
            yield Finding(id="sshd-penalties", weight="note", seen=said, where=where, mend=mend)
        elif word == "forcecommand":
            said = f"another command may be run than the one asked for{whom}"
            yield Finding(id="sshd-force-command", weight="note", seen=said, where=where)

"""Hosts from the command line: pinned, saved, listed, looked at, removed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blocks import saved
from blocks.hosts import read_host
from blocks.ssh_host import SLUG, SSHHost
from flows.api import prefect_api
from flows.progress import Progress
from flows.state import state_directory
from overnight import layers
from overnight.failures import BadInput
from overnight.hostcheck import HostCheck, check_host
from overnight.hosts.known import accepted, fingerprint
from overnight.hosts.scan import scan
from overnight.lockfile import suggest
from overnight.spec import HostSpec
from overnight.station import Station

_WHERE = "command line"
_CHECKED_AT_ONCE = 8
_BLOCK_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # what Prefect takes for a block and we for a host
_TARGET = re.compile(r"(?:([^@\s]+)@)?(?:\[([0-9A-Fa-f:.]+)\]|([^@\s:/\[\]]+))(?::(\d{1,5}))?")


@dataclass(frozen=True)
class SavedHost:
    """A saved host. `flaw` is why a run would refuse it, and then `spec` is None."""

    name: str
    saved_at: datetime | None
    spec: HostSpec | None
    flaw: BadInput | None

    @property
    def address(self) -> str | None:
        return None if self.spec is None else f"{self.spec.user}@{self.spec.address}:{self.spec.port}"

    @property
    def fingerprint(self) -> str | None:
        return None if self.spec is None or self.spec.host_key is None else fingerprint(self.spec.host_key)


def wished(target: str, user: str, **more: Any) -> HostSpec:
    """The host that `[USER@]ADDRESS[:PORT]` and the options ask for, still without a host key.

    Args:
        target: An IPv6 address stands in brackets when a port follows it.
        user: Who logs in when the target names nobody.
        more: Further fields of `HostSpec`.

    Raises:
        BadInput: the target is of another form, or an option cannot be used.
    """
    name, _, address = target.rpartition("@")
    bare_six = address.count(":") > 1 and not address.startswith("[")
    found = _TARGET.fullmatch(f"{name or user}@[{address}]" if bare_six else target)
    if found is None:
        raise BadInput(_WHERE, "TARGET", f"{target!r} is no host", "Write [USER@]ADDRESS[:PORT]")
    try:
        return HostSpec(user=found[1] or user, address=found[2] or found[3], port=int(found[4] or 22), **more)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "--path"
        raise BadInput(
            _WHERE, field, first["msg"].removeprefix("Value error, "), "See: overnight hosts add --help"
        ) from None


def add_host(
    name: str,
    wish: HostSpec,
    wanted: str | None,
    *,
    replace: bool,
    agreed: Callable[[], bool],
    tell: Callable[[str], None],
    state: Path | None,
    environ: Mapping[str, str],
) -> HostSpec | None:
    """Read the host's key without logging in, have it pinned, save the block. None when it was not agreed to.

    Args:
        wanted: Fingerprint that the key must have; then nobody is asked.
        replace: Allows another host key than the one saved under this name.
        agreed: Asked whether to pin the key that `tell` showed.

    Raises:
        BadInput: the name cannot be one, there is no such key file, the host
            shows another fingerprint than wanted, or another key than the saved one.
        HostError: nobody speaks SSH there.
    """
    if not _BLOCK_NAME.fullmatch(name):
        raise BadInput(_WHERE, "NAME", f"{name!r} is no name", "Use lower-case letters, digits and single -")
    key_file = Path(str(wish.key_file))
    if not key_file.expanduser().is_file():
        raise BadInput(_WHERE, "--key-file", f"no file {key_file}", "Name a private key without a passphrase")
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        before = _pinned(name)
        shown = scan(name, str(wish.address), wish.port)
        key = _chosen(shown, wish, before, wanted)
        tell(f"{wish.address} port {wish.port} shows {fingerprint(key)}")
        if before is not None and before != key and not replace:
            problem = f"THE HOST KEY CHANGED: {name} is saved with {fingerprint(before)}, shown is {fingerprint(key)}"
            mend = "If the host was rebuilt on purpose, use --replace; otherwise treat it as an attack"
            raise BadInput(f"block {SLUG}/{name}", "host_key", problem, mend)
        if wanted is None and before != key:
            tell(_comparison(key, wish))
            if not agreed():
                return None
        fields = wish.model_dump(include=set(SSHHost.model_fields)) | {"key_file": str(key_file), "host_key": key}
        block = SSHHost(**fields)
        block.save(name, overwrite=True)
        tell(f"Saved as Prefect block {SLUG}/{name}; in a batch file: hosts: {{{name}: {{block: {name}}}}}")
        return block.spec()


def list_hosts(state: Path | None, environ: Mapping[str, str]) -> list[SavedHost]:
    """Every saved host by name, also what a run would refuse."""
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        found: list[SavedHost] = []
        for document in saved.documents(SLUG):
            try:
                found.append(SavedHost(str(document.name), document.updated, read_host(document), None))
            except BadInput as error:
                found.append(SavedHost(str(document.name), document.updated, None, error))
        return found


def saved_host(name: str, state: Path, progress: Progress) -> HostSpec:
    """The host that is saved under a name.

    Raises:
        BadInput: none is, or what is saved cannot be one.
    """
    with prefect_api(state, progress):
        document = saved.document(SLUG, name)
        if document is None:
            raise saved.missing(SLUG, name, _WHERE, "--host")
        return read_host(document)


def check_hosts(
    names: Sequence[str], lock_path: Path | None, state: Path | None, environ: Mapping[str, str]
) -> list[HostCheck]:
    """Look at saved hosts, all of them when none is named, some at a time.

    Raises:
        BadInput: nothing is saved under a name, or no host is saved at all.
    """
    known = {host.name: host for host in list_hosts(state, environ)}
    for name in names:
        if name not in known:
            raise BadInput(_WHERE, "NAME", f"no block {SLUG}/{name} is saved", suggest(name, known))
    if not known:
        raise BadInput(_WHERE, "NAME", "no host is saved", "Save one: overnight hosts add NAME USER@ADDRESS")
    wanted = [known[name] for name in names or known]
    found = look_at({host.name: host.spec for host in wanted if host.spec is not None}, lock_path, environ)
    return [*(_unreadable(host.name, host.flaw) for host in wanted if host.flaw is not None), *found]


def look_at(hosts: Mapping[str, HostSpec], lock_path: Path | None, environ: Mapping[str, str]) -> list[HostCheck]:
    """What was found on each host, in their order. No connection and no process of ours is left there.

    Raises:
        BadInput: the lock cannot be read.
    """
    lock = layers.in_use(lock_path, environ)
    stations = [Station(name, spec, lambda _: None) for name, spec in hosts.items()]
    with ThreadPoolExecutor(_CHECKED_AT_ONCE, "host-check") as pool:
        try:
            return list(pool.map(lambda station: check_host(station, lock), stations))
        finally:  # before the pool waits for its threads: whoever still dials gives up now
            for station in stations:
                station.close()


def remove_host(name: str, agreed: Callable[[], bool], state: Path | None, environ: Mapping[str, str]) -> bool:
    """Forget a saved host if `agreed`, which is asked once it is known to be there. Whether it was removed.

    Raises:
        BadInput: nothing is saved under this name.
    """
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        if saved.document(SLUG, name) is None:
            raise saved.missing(SLUG, name, _WHERE, "NAME")
        return agreed() and saved.remove(SLUG, name)


def _unreadable(name: str, flaw: BadInput) -> HostCheck:
    return HostCheck(name, False, None, (f"{flaw.where}: {flaw.field}: {flaw.problem}",), flaw.mend)


def _pinned(name: str) -> str | None:
    """The host key saved under this name; one that cannot be read is no pin."""
    document = saved.document(SLUG, name)
    try:
        return None if document is None else read_host(document).host_key
    except BadInput:
        return None


def _chosen(shown: Sequence[str], wish: HostSpec, before: str | None, wanted: str | None) -> str:
    """Which of the host's keys to pin: the one asked for, else the one pinned before, else the best."""
    if wanted is None:
        return before if before is not None and before in shown else shown[0]
    asked = next((word for word in wanted.split() if word.startswith("SHA256:")), wanted).rstrip("=")
    prints = {fingerprint(key).split()[1]: key for key in shown}
    if asked in prints:
        return prints[asked]
    problem = f"{wish.address} port {wish.port} shows {', '.join(map(fingerprint, shown))}, not {asked}"
    mend = "Read the fingerprint on the host itself; if it is the one you gave, somebody stands in between"
    raise BadInput(_WHERE, "--fingerprint", problem, mend)


def _comparison(key: str, wish: HostSpec) -> str:
    """How to be sure of a key nobody pinned before."""
    known = accepted(None, Path("~/.ssh/known_hosts").expanduser(), str(wish.address), wish.port)
    if key in known:
        return "Your known_hosts lists this very key for it."
    if listed := [pin for pin in sorted(known) if pin.split()[0] == key.split()[0]]:
        return f"WARNING: your known_hosts lists another key for it: {fingerprint(listed[0])}"
    name = key.split()[0].removeprefix("ssh-").split("-")[0]
    return f"Compare it on the host itself: ssh-keygen -lf /etc/ssh/ssh_host_{name}_key.pub"

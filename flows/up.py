"""`overnight up` and `overnight down`: the keeper of a state directory, started and stopped."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from flows.keeper import FLOWS_S, PROJECT, Orders, bootstrap, keep, noted
from flows.nightly import clock, zone
from flows.prepare import prepare, state_directory
from flows.private_server import FIRST_PORT, LOOPBACK, START_S, Door, put_away, running
from flows.processes import STOP_S, end, living
from overnight.failures import BadInput
from overnight.ledger import Ledger

# measured with prefect 3.8.8 on 2 busy cores (tests/bench): 5 tasks as flow runs at once took 32 s on SQLite and on
# PostgreSQL, 10 took 114 s with `database is locked` in the log, and 61 s without
SQLITE_FLOW_RUNS = 5
_READY_S = START_S + 60.0
_DOWN_S = FLOWS_S + 3 * STOP_S


@dataclass(frozen=True)
class Wish:
    """What a user asked `overnight up` for; a field at its default was not asked for."""

    listen: str = LOOPBACK
    port: int = 0
    login: bool = True
    workers: int = 1
    limit: int = SQLITE_FLOW_RUNS
    nightly: Path | None = None
    at: str | None = None
    timezone: str | None = None
    notify: str | None = None
    lock: Path | None = None
    state: Path | None = None

    def orders(self) -> Orders:
        door = Door(self.listen, self.port, self.login, FIRST_PORT)
        return Orders(door, self.workers, self.limit, self.bootstrap())

    def bootstrap(self) -> tuple[str, ...]:
        """Arguments for `python -m deployments.bootstrap`; paths made absolute, for it runs elsewhere."""
        given: dict[str, Any] = {
            "--nightly": self.nightly and self.nightly.absolute(),
            "--at": self.at,
            "--timezone": self.timezone,
            "--notify": self.notify,
            "--lock": self.lock and self.lock.absolute(),
            "--state": self.state and self.state.absolute(),
        }
        # a batch that spreads its tasks is a flow run itself
        given |= {"--at-once": SQLITE_FLOW_RUNS - 1}
        return tuple(part for name, value in given.items() if value is not None for part in (name, str(value)))


def up(wish: Wish, state: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Start the keeper in the background and return when server, deployments and workers are there.

    Is it up already, what can be changed is changed and the rest is named.

    Raises:
        BadInput: nothing was started, or what was started is gone again.
    """
    record = _checked(wish, state, environ)
    if record is not None and living(record) is not None:
        _already(wish, state, record, environ, say)
        return
    say(f"starting a server and {_count(wish.workers, 'worker')} (about 20 s)")
    directory = state / "prefect"
    words = _launched(wish.orders(), state, environ)
    _tell(words, directory, wish.workers, wish.limit, say)
    if environ.get("PREFECT_API_URL"):
        say("note: PREFECT_API_URL is set here, so batches of this shell use that server instead")


def foreground(wish: Wish, state: Path, environ: Mapping[str, str]) -> None:
    """Be the keeper in this process, for a service manager; returns when told to stop.

    Raises:
        BadInput: it is up already, or could not start.
    """
    record = _checked(wish, state, environ)
    if record is not None and living(record) is not None:
        problem = f"it is up already, as process {record['pid']}"
        raise BadInput(str(state), "--foreground", problem, "Stop it first: overnight down")
    code = keep(state, wish.orders(), environ)
    if code:
        raise _refusal(state / "prefect", noted(state / "prefect"))


def down(state: Path, say: Callable[[str], None]) -> None:
    """Stop keeper, workers and server, also those that a killed keeper left; says which batches can be resumed.

    A batch that runs in a terminal is not touched; it keeps the server until it ends.
    """
    directory = state / "prefect"
    record = noted(directory) if directory.is_dir() else None
    alive = living(record) if record is not None else None
    if record is None and not (directory / "server.json").exists():
        say("nothing is up")
        return
    before = _running_batches(state)
    if alive is not None:
        say("stopping; running batches leave their agents to the hosts (up to a minute)")
        with suppress(psutil.NoSuchProcess):
            alive.terminate()
        psutil.wait_procs([alive], _DOWN_S)
        end([alive])
    if not _swept(directory, record):
        say("the server stays for a batch that runs in a terminal, and stops with it")
    for batch_id in sorted(before - _running_batches(state)):
        say(f"was running: {batch_id}; its agents go on on their hosts")
        say(f"  go on with: python -m flows.batch --resume {batch_id}{_state_option(state)}")
    say("down")


def _checked(wish: Wish, state: Path, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Refuse now what would be refused after 20 s; what the last keeper wrote, its leftovers made fit or removed."""
    _check_door(wish)
    if wish.nightly is None and (wish.at or wish.timezone):
        raise BadInput(
            "command line", "--at, --timezone", "say when a night begins, but not which", "Add --nightly FILE"
        )
    clock(wish.at)
    zone(wish.timezone)
    if wish.nightly is not None:
        prepare([wish.nightly], wish.lock, [], environ)
    directory = state / "prefect"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(str(state), "--state", f"cannot be written: {error.strerror}", "Give another --state") from error
    record = noted(directory)
    if record is not None and living(record) is not None:
        return record
    if record is not None and _differences(wish, record):
        _swept(directory, record)
    server = running(directory)
    if server is not None and (found := _door_differences(wish, server.door, server.url)):
        problem = f"a batch in a terminal uses the server at {server.url}, which has another {', '.join(found)}"
        raise BadInput("command line", ", ".join(found), problem, "Leave it out, or wait until that batch has ended")
    return record


def _check_door(wish: Wish) -> None:
    try:
        local = ipaddress.ip_address(wish.listen).is_loopback
    except ValueError:
        problem = f"{wish.listen} is no IP address"
        mend = f"Write {LOOPBACK}, or an address of this machine"
        raise BadInput("command line", "--listen", problem, mend) from None
    if not wish.login and not local:
        problem = f"whoever reaches {wish.listen} could run commands and read keys"
        raise BadInput("command line", "--no-login", problem, "Leave it out, or listen on loopback")


def _door_differences(wish: Wish, door: Door, url: str) -> list[str]:
    differs = {
        "--listen": wish.listen != door.listen,
        "--port": wish.port not in (0, urlsplit(url).port),
        "--no-login": wish.login != door.login,
    }
    return [name for name, is_so in differs.items() if is_so]


def _differences(wish: Wish, record: Mapping[str, Any]) -> list[str]:
    """Options that only a new start can apply."""
    orders = Orders.from_json(record["orders"])
    found = [] if orders.workers == wish.workers else ["--workers"]
    found += [] if orders.limit == wish.limit else ["--limit"]
    return found


def _already(
    wish: Wish, state: Path, record: Mapping[str, Any], environ: Mapping[str, str], say: Callable[[str], None]
) -> None:
    directory = state / "prefect"
    server = running(directory)
    if server is None:
        problem = "the keeper runs, its server does not answer"
        raise BadInput(str(state), "overnight up", problem, f"See {directory}/keeper.log and server.log")
    say("already up")
    orders = Orders.from_json(record["orders"])
    _tell(bootstrap(server, wish.bootstrap(), environ), directory, orders.workers, orders.limit, say)
    differs = _door_differences(wish, server.door, server.url) + _differences(wish, record)
    if differs:
        say(f"not changed: {', '.join(differs)}; for that: overnight down, then overnight up again")


def _launched(orders: Orders, state: Path, environ: Mapping[str, str]) -> str:
    """Start a keeper and wait until it is ready; what the bootstrap said."""
    directory = state / "prefect"
    argv = [sys.executable, "-m", "flows.keeper", str(state)]
    with (directory / "keeper.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=dict(environ), cwd=PROJECT, start_new_session=True
        )
    assert process.stdin is not None  # noqa: S101 - asked for above; tells mypy
    with process.stdin:
        process.stdin.write(json.dumps(orders.to_json()).encode())
    deadline = time.monotonic() + _READY_S
    try:
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            record = noted(directory)
            if record is not None and record["pid"] == process.pid and record["stage"] == "ready":
                return str(record["words"])
            if ended:
                break
            time.sleep(0.2)
    except BaseException:  # Ctrl-C too: it is in a session of its own and would go on
        end([psutil.Process(process.pid)])
        raise
    if process.poll() is None:
        end([psutil.Process(process.pid)])
    raise _refusal(directory, noted(directory))


def _refusal(directory: Path, record: Mapping[str, Any] | None) -> BadInput:
    if record is None or record["stage"] != "refused":
        return BadInput(str(directory), "keeper", "did not become ready", f"Read {directory / 'keeper.log'}")
    _swept(directory, record)
    return BadInput(*json.loads(record["words"]))


def _swept(directory: Path, record: Mapping[str, Any] | None) -> bool:
    """End what a keeper left behind. False when the server stays, because a batch in a terminal uses it."""
    left = [living(each) for each in record["workers"]] if record is not None else []
    end([process for process in left if process is not None])
    (directory / "keeper.json").unlink(missing_ok=True)
    return put_away(directory)


def _running_batches(state: Path) -> set[str]:
    found: set[str] = set()
    for folder in (state / "batches").glob("*"):
        try:
            with Ledger(state, folder.name).held():
                pass
        except BadInput:
            found.add(folder.name)
    return found


def _tell(words: str, directory: Path, workers: int, limit: int, say: Callable[[str], None]) -> None:
    server = running(directory)
    for line in words.splitlines():
        say(f"  {line}")
    if server is None:
        raise BadInput(str(directory), "private Prefect server", "does not answer", f"Read {directory / 'server.log'}")
    say(f"up: {server.url}")
    say(f"  log in with the line in {server.login_file}" if server.door.login else "  no login: anyone on this machine")
    if not ipaddress.ip_address(server.door.listen).is_loopback:
        say(f"  {server.door.listen} is reached from other machines over plain HTTP: password and pages can be read")
        say("  on the way; use it behind a TLS proxy or a VPN, or on loopback through ssh -L")
    say(f"  batches, pages and logs: {directory.parent} ({directory.name}/*.log)")
    say(f"  {_count(workers, 'worker')}, {_count(workers * limit, 'flow run')} at a time")
    if workers * limit > SQLITE_FLOW_RUNS:
        say(f"  more than {SQLITE_FLOW_RUNS} flow runs at a time are too many for SQLite (measured): use PostgreSQL,")
        say('  see "A server for a team" in README.md')
    else:
        say(f'  SQLite is good for {SQLITE_FLOW_RUNS}; for more see PostgreSQL, "A server for a team" in README.md')
    say(f"stop it with: overnight down{_state_option(directory.parent)}")


def _state_option(state: Path) -> str:
    return "" if state == state_directory(None, os.environ) else f" --state {state}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""Makes a Prefect API ready for overnight. Run it after every upgrade, as often as you like.

    python -m deployments.bootstrap [--nightly FILE] [--notify TYPE/NAME [--notify-from ask]] [--server]

Block types, work pool, provider limits of the lock, deployments, automations;
one line for each. What a user changed on the pages stays: limits, parameters,
schedules, and whether an automation is switched on. `overnight up` runs it by
itself; a server of your own needs PREFECT_API_URL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, VariableCreate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

from blocks.register import register
from deployments.automations import automate, crashed_runs, notifications
from deployments.deploy import Nightly, deploy, night
from deployments.notifying import VARIABLE, Source, notification_block
from flows.keeper import POOL
from flows.limits import provider_limit
from flows.nightly import clock, zone
from flows.prepare import prepare, state_directory
from flows.spread import AT_ONCE
from flows.terminal import plainly
from flows.up import Wish, up
from overnight import layers, lockfile
from overnight.failures import BadInput


class From(StrEnum):
    """Where the address of a notification block is read."""

    ENV = "env"
    STDIN = "stdin"
    ASK = "ask"


_WHERE = "environment or Prefect profile"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    nightly: Annotated[Path | None, typer.Option(metavar="FILE", help="Run this batch every night.")] = None,
    at: Annotated[str | None, typer.Option(metavar="HH:MM", help="When the night begins; default 01:00.")] = None,
    timezone: Annotated[str | None, typer.Option(metavar="ZONE", help="Default this machine's.")] = None,
    notify: Annotated[
        str | None, typer.Option(metavar="BLOCK", help="Notification block, TYPE/NAME; apprise/NAME takes any address.")
    ] = None,
    notify_from: Annotated[
        From | None,
        typer.Option(help=f"Where the block's address is read, to make or renew it; default {VARIABLE}, if set."),
    ] = None,
    lock: Annotated[Path | None, typer.Option(help="Provider lock of the deployments.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="State directory of the deployments.")] = None,
    pool: Annotated[str, typer.Option(help="Work pool that runs them; made as a process pool if missing.")] = POOL,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Tasks that one spread batch may run at once; default its hosts' slots.")
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="Start a server and a worker here if none is set.")] = False,
) -> None:
    """Make a Prefect API ready for overnight: blocks, work pool, limits, deployments, automations."""
    with plainly():
        if server and get_current_settings().api.url is None:
            wish = Wish(nightly=nightly, at=at, timezone=timezone, notify=notify, lock=lock, state=state)
            up(wish, state_directory(state, os.environ), os.environ, typer.echo)
            return
        clock(at), zone(timezone)
        if lock is not None:
            os.environ[lockfile.LOCK_VARIABLE] = str(lock.absolute())  # the form of `single` offers its routes
        if nightly is not None:
            prepare([nightly], lock, [], os.environ)
        night_of = Nightly(nightly and nightly.absolute(), at, timezone)
        with _client() as client:
            _check(client)
            limits = layers.in_use(None, os.environ).concurrency()  # first all that may be refused
            source: Source | None = notify_from.value if notify_from else None
            block = notification_block(client, notify, source, os.environ) if notify else None
            for line in _everything(client, pool, state and state.absolute(), night_of, block, at_once, limits):
                typer.echo(line)


def _everything(
    client: SyncPrefectClient,
    pool: str,
    state: Path | None,
    nightly: Nightly,
    block: tuple[UUID, str] | None,
    at_once: int | None,
    limits: Mapping[str, int],
) -> Iterator[str]:
    yield from register()
    yield _work_pool(client, pool)
    for provider, allowed in sorted(limits.items()):
        yield _limit(client, provider_limit(provider), allowed)
    if at_once is not None:
        yield _variable(client, AT_ONCE, at_once)
    env = {name: os.environ[name] for name in (lockfile.LOCK_VARIABLE, "XDG_STATE_HOME") if os.environ.get(name)}
    yield from deploy(client, pool, env, state, nightly)
    yield automate(client, crashed_runs())
    if block is not None:
        told, line = block
        yield line
        yield from (automate(client, wanted) for wanted in notifications(told))
    yield night(client)


def _client() -> SyncPrefectClient:
    """For the configured API.

    Raises:
        BadInput: none is configured; Prefect would write to a database that nobody reads.
    """
    if get_current_settings().api.url is None:
        mend = "Set it to your server; or start one here: overnight up"
        raise BadInput(_WHERE, "PREFECT_API_URL", "is not set", mend)
    return get_client(sync_client=True)


def _check(client: SyncPrefectClient) -> None:
    """Raises BadInput when the API does not answer, or does not let us in."""
    url = client.api_url
    error = client.api_healthcheck()
    if error is not None:
        raise BadInput(_WHERE, "PREFECT_API_URL", f"{url}: {error}", "Start that server, or name another")
    try:
        client.read_work_pools(limit=1)
    except PrefectHTTPStatusError as refused:
        problem = f"{url} answers {refused.response.status_code} {refused.response.reason_phrase}"
        mend = "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY as that server wants it"
        raise BadInput(_WHERE, "PREFECT_API_URL", problem, mend) from None


def _work_pool(client: SyncPrefectClient, name: str) -> str:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        except ObjectAlreadyExists:  # a worker that started meanwhile was faster
            return f"work pool {name}: unchanged"
        return f"work pool {name}: created"
    return f"work pool {name}: unchanged"


def _limit(client: SyncPrefectClient, name: str, allowed: int) -> str:
    """A limit that exists is never touched: somebody may have lowered it for a reason we do not know."""
    try:
        found = client.read_global_concurrency_limit_by_name(name).limit
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=allowed, active=True))
        return f"limit {name}: created, {allowed}"
    return f"limit {name}: unchanged" + ("" if found == allowed else f", {found} on the server, {allowed} in the lock")


def _variable(client: SyncPrefectClient, name: str, value: int) -> str:
    """As a limit: one that exists is somebody's choice."""
    found = client.read_variable_by_name(name)
    if found is None:
        client.create_variable(VariableCreate(name=name, value=value))
        return f"variable {name}: created, {value}"
    return f"variable {name}: unchanged" + ("" if found.value == value else f", {found.value} on the server")


if __name__ == "__main__":
    app(prog_name="python -m deployments.bootstrap")

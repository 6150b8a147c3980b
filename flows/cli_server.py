"""`overnight up` and `overnight down`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.state import state_directory
from flows.terminal import plainly


def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Default: 4200 or the last one, else any free.")] = 0,
    listen: Annotated[str, typer.Option(metavar="ADDR", help="Address the server listens on.")] = "127.0.0.1",
    login: Annotated[bool, typer.Option("--login/--no-login", help="Whether the pages ask for the password.")] = True,
    workers: Annotated[int, typer.Option(min=1, max=50, help="Worker processes.")] = 1,
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at a time on each worker.")] = 5,
    nightly: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run this batch every night, its routes checked before.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="HH:MM", help="When the night begins; default 01:00.")] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="E.g. Europe/Berlin; default this machine's.")
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(metavar="BLOCK", help="Notification block told of batches, routes and crashes, TYPE/NAME."),
    ] = None,
    lock: Annotated[Path | None, typer.Option(help="Provider lock of the deployments.")] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State directory; default $XDG_STATE_HOME/overnight.")
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this process, for systemd; Ctrl-C stops all.")
    ] = False,
) -> None:
    """Start Prefect's pages, a worker and our deployments on this machine; `overnight down` stops them.

    \b
    Examples:
      overnight up
      overnight up --nightly tonight.yaml --at 01:00 --timezone Europe/Berlin
      overnight up --notify slack-webhook/oncall     the block is made on the pages, Blocks
      overnight up --port 4300 --workers 2 --limit 2

    \b
    Run it again to change the night, the notification or the lock, and after an upgrade.
    """
    with plainly():
        from flows import up as server  # imports prefect, which takes a second

        wish = server.Wish(listen, port, login, workers, limit, nightly, at, timezone, notify, lock, state)
        directory = state_directory(state, os.environ)
        if foreground:
            server.foreground(wish, directory, os.environ)
        else:
            server.up(wish, directory, os.environ, typer.echo)


def down(state: Annotated[Path | None, typer.Option(metavar="DIR", help="State directory.")] = None) -> None:
    """Stop what `overnight up` started. Running batches leave their agents to the hosts and can be resumed.

    \b
    Example:
      overnight down
    """
    with plainly():
        from flows import up as server

        server.down(state_directory(state, os.environ), typer.echo)

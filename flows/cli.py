"""Console script `overnight`, and the command line behind `python -m flows.batch`."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import suppress
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_doctor, cli_history, cli_rehearse, cli_runs, cli_server
from flows.cli_forges import forges
from flows.cli_lock import lock as lock_commands
from flows.cli_saved import credentials, hosts
from flows.state import state_directory
from flows.terminal import plainly
from overnight.failures import BadInput
from overnight.harnesses import take_up
from overnight.report import EXIT_BAD_INPUT

# plain help: the rich one breaks the examples' lines
_PLAIN: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
app = typer.Typer(
    help="Runs AI coding agents on your own machines overnight; commits and a truthful report in the morning.",
    no_args_is_help=True,
    **_PLAIN,
)
app.add_typer(credentials, name="credentials")
app.add_typer(hosts, name="hosts")
app.add_typer(forges, name="forges")
app.add_typer(lock_commands, name="lock")


class OnInterrupt(StrEnum):
    """What becomes of running agents when the batch is interrupted."""

    CANCEL = "cancel"
    DETACH = "detach"


_BATCH_HELP = """Run a batch of coding tasks to commits and a report.

FILE is one YAML file, or Markdown files with front matter, one task each.

\b
Examples:
  python -m flows.batch tonight.yaml
  python -m flows.batch tonight.yaml --dry-run          show every run before it happens
  python -m flows.batch specs/*.md --json report.json   tasks as Markdown, report for machines
  python -m flows.batch tonight.yaml --only fix-parser  one task of the batch
  python -m flows.batch --resume tonight-20261122-2200-ab12

\b
Exit codes: 0 every task succeeded; 1 some did not; 2 bad input, nothing started;
3 nothing could start, every route is shut; 130 interrupted.

\b
Keys are read from the Prefect block named as the provider (overnight credentials
add PROVIDER), then from OVERNIGHT_KEY_<PROVIDER>.
"""


@app.command(help=_BATCH_HELP)
def batch(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", show_default=False)] = None,
    lock: Annotated[Path | None, typer.Option(help="Provider lock; default is the project's own.")] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State directory; default $XDG_STATE_HOME/overnight.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Print every run's plan as JSON and stop.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Write the report there.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="BATCH_ID", help="Go on with an earlier batch.")] = None,
    only: Annotated[str | None, typer.Option(metavar="ID,...", help="Only these tasks.")] = None,
    on_interrupt: Annotated[
        OnInterrupt | None,
        typer.Option(help="Ctrl-C: end the runs, or leave them. Default asks on a terminal, else detach."),
    ] = None,
) -> None:
    from flows.run_batch import dry_run, run_batch  # imports prefect, which takes a second

    ids = [part.strip() for part in (only or "").split(",") if part.strip()]
    try:
        if only is not None and not ids:
            raise BadInput("command line", "--only", "names no task", "Write task ids with commas between them")
        if resume and (files or ids or dry):
            problem = "goes without FILE, --only and --dry-run"
            raise BadInput("command line", "--resume", problem, "Give the batch id alone")
        if dry:
            typer.echo(json.dumps(dry_run(files or [], lock, ids), indent=2, ensure_ascii=False))
            return
        wish = None if on_interrupt is None else on_interrupt.value
        raise typer.Exit(run_batch(files or [], lock, state, ids, resume, json_path, wish))
    except BadInput as error:
        refuse(error)


@app.command()
def pages(state: Annotated[Path | None, typer.Option(metavar="DIR", help="State directory.")] = None) -> None:
    """Open the private Prefect server of a state directory, to look at past nights or a running one; Ctrl-C leaves it.

    \b
    Example:
      overnight pages
    """
    from flows.private_server import private_server

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # a closed terminal must not leave the server behind
    try:
        with private_server(state_directory(state, os.environ), os.environ) as server:
            typer.echo(f"{server.url}  (log in with the line in {server.login_file})  Ctrl-C leaves it")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    except BadInput as error:
        refuse(error)


cli_rehearse.add_to(app)
cli_doctor.add_to(app)
cli_runs.add_to(app)
cli_history.add_to(app)
app.command()(cli_server.up)
app.command()(cli_server.down)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"overnight {metadata.version('overnight')}")
        raise typer.Exit


@app.callback()
def overnight(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Runs AI coding agents on your own machines overnight; commits and a truthful report in the morning."""
    with plainly():
        take_up(os.environ)


def refuse(error: BadInput) -> None:
    """Say what cannot be used and how to mend it; exit code 2."""
    typer.echo(f"{error.where}: {error.field}: {error.problem}", err=True)
    typer.echo(f"  mend: {error.mend}", err=True)
    raise typer.Exit(EXIT_BAD_INPUT)


def batch_main() -> None:
    """`python -m flows.batch`: the command `batch` as a program of its own."""
    alone = typer.Typer(**_PLAIN)
    alone.command(help=_BATCH_HELP)(batch)
    alone(prog_name="python -m flows.batch")

"""Commands about runs that were: status, logs, attach, cancel, collect, deliver, gc."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows.state import state_directory
from flows.terminal import plainly, print_json
from overnight.failures import BadInput

State = Annotated[Path | None, typer.Option(metavar="DIR", help="State directory; default $XDG_STATE_HOME/overnight.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Batch = Annotated[str, typer.Argument(metavar="BATCH_ID", show_default=False, help="Id, or the beginning of one.")]


def collect(batch_id: Batch = "", state: State = None, as_json: Json = False) -> None:
    """Bring home what ended on hosts while nobody watched, and name what still runs there. Starts no agent.

    Runs that have ended are collected, checked and decided; their batch's report
    is written anew. Without BATCH_ID: every batch with such runs.

    \b
    Examples:
      overnight collect
      overnight collect tonight-20261122-2200-ab12
    """
    from flows.collect import bring_home

    with plainly():
        raise typer.Exit(bring_home(batch_id, state, as_json=as_json))


def deliver(
    batch_id: Batch = "",
    task: Annotated[str, typer.Argument(metavar="[TASK]", show_default=False, help="That one alone.")] = "",
    allow: Annotated[bool, typer.Option("--allow", help="Your word for what is held; see its diff first.")] = False,
    state: State = None,
) -> None:
    """Push again what could not be pushed, and with --allow make the branches that wait for your word.

    Commits are never lost to a failed delivery: they are in the repository here,
    where the report says. What a guard refused stays refused. What is delivered
    already is not delivered twice.

    \b
    Examples:
      overnight deliver                                      the newest batch
      overnight deliver tonight-20261122-2200-ab12 fix-parser --allow

    \b
    Exit codes: 0 all is where it was to go; 1 something is not; 2 bad input.
    """
    from flows.deliver import deliver_by_hand

    with plainly():
        raise typer.Exit(deliver_by_hand(batch_id, task, state, allow=allow))


def attach(
    host: Annotated[str, typer.Option("--host", metavar="NAME|[USER@]ADDRESS[:PORT]", help="A saved host, or where.")],
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID]...", show_default=False)] = None,
    repo: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Repository that takes the commits; repeat.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End what lives, instead of waiting for it.")] = False,
    key_file: Annotated[Path, typer.Option(metavar="PATH", help="Private key, when --host is an address.")] = Path(
        "~/.ssh/id_ed25519"
    ),
    host_key: Annotated[
        str | None, typer.Option(metavar="'TYPE BASE64'", help="Pinned host key; default is in ~/.ssh/known_hosts.")
    ] = None,
    python: Annotated[str, typer.Option(help="Python 3.8 or newer on the host.")] = "python3",
    directory: Annotated[str, typer.Option(help="Folder on the host, relative to the user's home.")] = ".overnight",
    state: State = None,
    as_json: Json = False,
) -> None:
    """List what lies on a host, without the state directory it was started from; with --repo adopt it.

    What ended comes home: output, commits and uncommitted work, these under
    refs/overnight/adopted/RUN_ID/ of the repository that holds its base; no
    branch is touched. What lives is followed to its end first, its output
    copied to adopted/RUN_ID of the state directory, its key masked; where the
    key is not to be had the output is left out. Ctrl-C leaves what lives.
    Runs that a batch of this state directory knows are left to that batch.

    \b
    Examples:
      overnight attach --host box                           what is there
      overnight attach --host box --repo ~/app              adopt all of it
      overnight attach --host dev@10.0.0.5 --repo ~/app tonight-20261122-2200-ab12.fix-parser.1

    \b
    Exit codes: 0 nothing of it was left there alone; 1 something was, or the host
    cannot be reached; 2 bad input; 130 interrupted.
    """
    from flows.attach import attach as attach_to
    from flows.hosts import wished

    with plainly():
        spec = None
        if any(sign in host for sign in "@.:"):
            file = key_file if str(key_file).startswith("~") else key_file.absolute()
            more = {"key_file": file.expanduser(), "host_key": host_key, "python": python, "directory": directory}
            spec = wished(host, getpass.getuser(), **more)
        raise typer.Exit(attach_to(host, spec, run_ids or [], repo or [], state, end=end, as_json=as_json))


def cancel(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH_ID", help="As `overnight status` shows it, or its start.")],
    which: Annotated[str, typer.Argument(metavar="[TASK|RUN_ID]", show_default=False, help="That one alone.")] = "",
    state: State = None,
) -> None:
    """End a batch, or one run of it: the agents are stopped on their hosts, and what they committed comes home.

    Whoever carries the batch out is asked, by a file in the state directory;
    this waits until it is done (Ctrl-C does not take it back). Where nobody
    does it is done here. The rest of a batch goes on when one task is named.

    \b
    Examples:
      overnight cancel tonight-20261122-2200-ab12
      overnight cancel tonight-20261122 fix-parser
    """
    from flows.cancel import cancel_by_hand

    with plainly():
        raise typer.Exit(cancel_by_hand(batch_id, which, state_directory(state, os.environ)))


def gc(
    keep_days: Annotated[float, typer.Option(min=0, help="Keep what was decided later than so many days ago.")] = 14,
    yes: Annotated[bool, typer.Option("--yes/--dry-run", help="Remove, or only say what would be removed.")] = False,
    records: Annotated[
        bool, typer.Option("--records", help="Also the folders of batches of which no host holds anything any more.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Free room: on hosts runs that are decided and at home; here refs of ours whose commits are in a branch.

    From hosts go also mirrors that no run needs and supervisors of older
    versions, both after a day at least. Never removed: a living run, one that
    is not decided, one with work that is on its host alone, one that no batch of
    this state directory knows, a commit or uncommitted work that no branch holds.

    \b
    Examples:
      overnight gc                        what would go, and why the rest stays
      overnight gc --keep-days 3 --yes
      overnight gc --keep-days 90 --records --yes
    """
    from flows.gc import sweep_by_hand

    with plainly():
        raise typer.Exit(sweep_by_hand(keep_days, state, dry_run=not yes, records=records, as_json=as_json))


def logs(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="Run id, a beginning of one, a batch, or: last.")],
    task: Annotated[str, typer.Argument(metavar="TASK", show_default=False, help="Its task, after a batch.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    events: Annotated[bool, typer.Option("--events", help="What happened to it, in words; the default.")] = False,
    out: Annotated[bool, typer.Option("--out", help="What the agent printed.")] = False,
    err: Annotated[bool, typer.Option("--err", help="What the agent printed on standard error.")] = False,
    state: State = None,
) -> None:
    """Show what a run did, from our own copy on this machine.

    \b
    Examples:
      overnight logs last -f
      overnight logs tonight-20261122-2200-ab12 fix-parser
      overnight logs tonight-20261122-2200-ab12.fix-parser.1 --out
    """
    from flows.logs import logs as show
    from overnight import past

    with plainly():
        if events + out + err > 1:
            problem = "only one of --events, --out and --err can be shown"
            raise BadInput("command line", "--out", problem, "Leave the others out")
        entry = past.run(state_directory(state, os.environ), run_id, task)
        show(entry, "out" if out else "err" if err else "events", _say, follow=follow)


def status(batch_id: Batch = "", state: State = None, as_json: Json = False) -> None:
    """Show how a batch stands, the newest when none is named; from the state directory alone.

    \b
    Examples:
      overnight status
      overnight status tonight-20261122-2200-ab12 --json
    """
    from flows.logs import status as look
    from flows.logs import tell

    with plainly():
        found = look(state_directory(state, os.environ), batch_id)
        (print_json if as_json else tell)(found)


def add_to(app: typer.Typer) -> None:
    """Make these commands part of a console script."""
    for command in (status, logs, attach, cancel, collect, deliver, gc):
        app.command()(command)


def collect_main() -> None:
    """`python -m flows.collect`."""
    alone(collect)


def deliver_main() -> None:
    """`python -m flows.deliver`."""
    alone(deliver)


def gc_main() -> None:
    """`python -m flows.gc`."""
    alone(gc)


def alone(command: Callable[..., None]) -> None:
    """A command as a program of its own, `python -m flows.NAME`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    app(prog_name=f"python -m flows.{command.__name__}")


def _say(text: str) -> None:
    typer.echo(text, nl=False)

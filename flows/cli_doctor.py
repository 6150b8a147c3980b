"""The command `overnight doctor`, which is also `python -m flows.doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_runs import State, alone
from flows.terminal import plainly
from overnight.failures import BadInput

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE...]", show_default=False, help="Batch files; without one: all that is saved."),
]
Routes = Annotated[
    list[str] | None,
    typer.Option("--route", metavar="HOST/HARNESS/PROVIDER/MODEL", help="Only this one; give it again for more."),
]
Hosts = Annotated[list[str] | None, typer.Option("--host", metavar="NAME", help="Only this host.")]
Providers = Annotated[list[str] | None, typer.Option("--provider", metavar="NAME", help="Only this provider.")]
Find = Annotated[bool, typer.Option("--find", help="Search for what works also where direct calls and agent agree.")]
Record = Annotated[bool, typer.Option("--record", help="Write what was measured as a proposed overlay, here.")]
Fix = Annotated[bool, typer.Option("--fix", help="Offer to mend on the hosts what is safe to mend.")]
Yes = Annotated[bool, typer.Option("--yes", help="With --fix: mend without asking.")]
Lock = Annotated[Path | None, typer.Option(help="Provider lock; default is the project's own.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Write all that was found there.")]


def doctor(
    files: Files = None,
    routes: Routes = None,
    hosts: Hosts = None,
    providers: Providers = None,
    find: Find = False,
    record: Record = False,
    fix: Fix = False,
    yes: Yes = False,
    lock: Lock = None,
    state: State = None,
    json_path: Json = None,
) -> None:
    """Look at every host and ask every model one short question, directly and through the agent, as a night does.

    Says of every route whether it is open, and else which layer is at fault.
    Where the answers disagree it searches, one factor at a time and in at most
    12 calls, for the variable, header, URL, model or flag that works, and stops
    after a key was refused three times in the same way.

    \b
    Examples:
      overnight doctor tonight.yaml
      overnight doctor                                       all saved hosts and keys
      overnight doctor --route box/claude-code/zai/glm-5.1
      overnight doctor tonight.yaml --find --record          and write the mend as an overlay

    \b
    Exit codes: 0 every route is open; 1 some are shut; 2 bad input, nothing was asked; 3 all are shut.
    """
    from flows.doctor import visit  # imports prefect, which takes a second

    with plainly():
        if yes and not fix:
            raise BadInput("command line", "--yes", "says yes to nothing", "Give --fix, too")
        code = visit(
            files or [],
            routes or [],
            hosts or [],
            providers or [],
            lock,
            state,
            json_path,
            find=find,
            proposing=record,
            fixing=fix,
            yes=yes,
        )
        raise typer.Exit(code)


def add_to(app: typer.Typer) -> None:
    """Make it part of a console script."""
    app.command()(doctor)


def main() -> None:
    """`python -m flows.doctor`."""
    alone(doctor)

"""The command `overnight rehearse`: the incident replayed, or a batch of the user's own."""

from __future__ import annotations

import os
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_runs import State
from flows.state import state_directory
from flows.terminal import plainly
from overnight.failures import BadInput
from overnight.rehearsal.troubles import NAMES, trouble


class Stand(StrEnum):
    """Agents the replay can use."""

    CLAUDE_CODE = "claude-code"
    SCRIPTED = "scripted"


Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE...]", show_default=False, help="Your batch; without one the incident is replayed."),
]
Asked = Annotated[
    str | None,
    typer.Option(
        "--fault", metavar="NAME", help="What goes wrong: a failure of the README's table, or KIND[,SETTING=VALUE...]."
    ),
]
Only = Annotated[str | None, typer.Option("--only", metavar="ID,...", help="Only these tasks.")]
Tapes = Annotated[
    Path | None, typer.Option(metavar="YAML", help="What the model does; else it commits one small file.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave on the hosts what the rehearsal put there.")]
Lock = Annotated[Path | None, typer.Option(help="Provider lock; default is the project's own.")]
Night = Annotated[
    bool,
    typer.Option("--night", help="Without FILE: a whole night with planted troubles in two minutes, by a fast clock."),
]
Harness = Annotated[
    Stand | None,
    typer.Option(help="Without FILE: the real Claude Code (default), or our own small agent that needs no download."),
]


_HELP = f"""Rehearse a night: your batch on your hosts with every provider emulated, or, without FILE, the incident.

With FILE: your hosts, your agents, your tasks, the command you would start
at night; the provider is an emulated one on this machine, which hosts reach
through their SSH connection. No key of yours is read, no repository of yours
is written to, nothing stays on the hosts. Without --fault all goes well.

\b
Examples:
  overnight rehearse                                       the incident, on this machine alone
  overnight rehearse --night                               eight hours in two minutes, and what the morning says
  overnight rehearse tonight.yaml                          would it run at all?
  overnight rehearse tonight.yaml --fault went-quiet       the model falls silent in the middle
  overnight rehearse tonight.yaml --fault quota-window --only fix-parser
  overnight rehearse tonight.yaml --fault rate-limited,times=2,retry_after_s=1

\b
Failures to ask for:
{textwrap.fill(", ".join(NAMES), 76, initial_indent="  ", subsequent_indent="  ")}
Any other fault as `python -m overnight.rehearsal --help` lists them.

\b
Exit codes: with FILE those of the batch; else 0 when all that was planted was told.
"""


def rehearse(
    files: Files = None,
    fault: Asked = None,
    only: Only = None,
    tapes: Tapes = None,
    keep: Keep = False,
    lock: Lock = None,
    harness: Harness = None,
    night: Night = False,
    state: State = None,
) -> None:
    with plainly():
        if night and (files or harness):
            raise BadInput("command line", "--night", "brings its own tasks and agent", "Leave FILE and --harness out")
        if files:
            raise typer.Exit(_own(files, fault, only, tapes, lock, harness, state, keep=keep))
        given = {"--fault": fault, "--only": only, "--tapes": tapes, "--keep": keep or None, "--lock": lock}
        for option in (name for name, value in given.items() if value is not None):
            raise BadInput("command line", option, "goes with a batch", "Give FILE, too")
        if night:
            from flows.rehearse_night import rehearse_night

            raise typer.Exit(rehearse_night(state_directory(state, os.environ), os.environ, typer.echo))
        from flows.rehearse import rehearse as replay

        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "overnight"
        place = state_directory(state, os.environ)
        raise typer.Exit(replay(place, cache, harness or Stand.CLAUDE_CODE, os.environ, typer.echo))


def _own(
    files: list[Path],
    fault: str | None,
    only: str | None,
    tapes: Path | None,
    lock: Path | None,
    harness: Stand | None,
    state: Path | None,
    *,
    keep: bool,
) -> int:
    from flows.rehearse_own import Wish, rehearse_own  # imports prefect, which takes a second
    from overnight.rehearsal.tapes import load_tapes

    ids = [part.strip() for part in (only or "").split(",") if part.strip()]
    if only is not None and not ids:
        raise BadInput("command line", "--only", "names no task", "Write task ids with commas between them")
    if harness is not None:
        raise BadInput("command line", "--harness", "goes without FILE", "The batch says which agent a task has")
    played = load_tapes(tapes) if tapes else ()
    wish = Wish(files, trouble(fault or ""), only=ids, tapes=played, keep=keep, lock=lock)
    return rehearse_own(wish, state_directory(state, os.environ), os.environ, typer.echo)


def add_to(app: typer.Typer) -> None:
    """Make it part of a console script."""
    app.command(help=_HELP)(rehearse)

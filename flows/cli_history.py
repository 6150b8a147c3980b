"""The command `history`: nights in a row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.state import state_directory
from flows.terminal import plainly, print_json
from overnight.failures import Family
from overnight.report import Share

if TYPE_CHECKING:
    from overnight.history import History

_SIGNATURES = 10


def history(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Batches of this name only.")] = "",
    nights: Annotated[int, typer.Option("-n", "--nights", min=1, help="The newest so many.")] = 14,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State directory; default $XDG_STATE_HOME/overnight.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show how night after night ended, by who must act, and which failures are new; from the state directory alone.

    A failure is known again by its kind, its place and what was seen of it, less all
    that differs every time. It is new when no earlier night here had it; the first
    night of all has nothing to compare with.

    \b
    Examples:
      overnight history
      overnight history tonight -n 30
      overnight history --json
    """
    from overnight.history import history as look

    with plainly():
        found = look(state_directory(state, os.environ), nights, name)
        if as_json:
            print_json(_plain(found.to_json()))
        else:
            _tell(found)


def _tell(found: History) -> None:
    from flows.tables import show
    from overnight.firstlines import many
    from overnight.printable import safe

    if not found.nights:
        typer.echo("no night has ended here yet")
        return
    families = [family for family in Family if any(family in night.families for night in found.nights)]
    rows = [
        {
            "night": f"{night.started_at:%d %b %H:%M}",
            "batch": night.name,
            "succeeded": _rate(night.raw),
            "without infrastructure": _rate(night.judged),
            **{family: night.families.get(family) for family in families},
        }
        for night in found.nights
    ]
    show(rows, ("night", "batch", "succeeded", "without infrastructure", *families))
    new = [each for each in found.signatures if each.new]
    for each in new[:_SIGNATURES]:
        times = f"{many(each.tasks, 'task')} in {many(each.nights, 'night')}, last {each.last_at:%d %b}"
        typer.echo(safe(f"new since {each.first_at:%d %b}: {each.words}  ({times})"))
    if len(new) > _SIGNATURES:
        typer.echo(f"and {len(new) - _SIGNATURES} more that are new: --json")


def _rate(share: Share) -> str:
    """`9 of 20  45 %`."""
    return f"{share.successes} of {share.n}" + (f"  {100 * share.successes / share.n:.0f} %" if share.n else "")


def _plain(data: Any) -> Any:
    """As JSON has it: moments as text."""
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data.isoformat() if hasattr(data, "isoformat") else data


def add_to(app: typer.Typer) -> None:
    """Make this command part of a console script."""
    app.command()(history)

"""What commands share: how they ask, show, refuse and end."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.private_server import OutOfReach
from overnight.failures import BadInput, FailureError
from overnight.hostcheck import HostCheck
from overnight.keycheck import KeyCheck
from overnight.report import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED

_WHERE = "command line"
_PIPE_WIDTH = 1000  # a table that nobody looks at on a terminal is never folded


@contextmanager
def plainly() -> Iterator[None]:
    """Every way a command ends early, in words: 2 bad input, 1 a host or Prefect out of reach, 130 interrupted.

    A closed terminal and a request to end count as Ctrl-C, so that no private server is left behind.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP for us
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except BadInput as error:
        _say(Text(f"{error.where}: {error.field}: {error.problem}", "red"), error.mend)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except OutOfReach as error:
        _say(Text(f"the Prefect API went away: {error or type(error).__name__}", "red"), "Try again")
        raise typer.Exit(EXIT_FAILED) from None
    except FailureError as error:
        _say(Text(error.failure.brief, "red"), error.failure.remedy)
        raise typer.Exit(EXIT_FAILED) from None
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("\ninterrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(good: bool) -> None:
    """Exit code 0 or 1."""
    if not good:
        raise typer.Exit(EXIT_FAILED)


def asked_key(provider: str, from_stdin: bool) -> str:
    """The key, from standard input or from whoever sits there; never from the command line.

    Raises:
        BadInput: nobody can be asked.
    """
    return asked_secret(f"Key for {provider}", "PROVIDER", from_stdin)


def asked_secret(question: str, field: str, from_stdin: bool) -> str:
    """A secret, as `asked_key`."""
    if from_stdin:
        return sys.stdin.read().strip()
    if not sys.stdin.isatty():
        raise BadInput(_WHERE, field, "there is no terminal to ask for the key", "Use --from-stdin")
    return str(typer.prompt(question, hide_input=True))


def agreeing(question: str, yes: bool, otherwise: str) -> Callable[[], bool]:
    """A question to ask when it comes to it.

    Args:
        yes: Answered already.
        otherwise: What to give where nobody can be asked.
    """

    def ask() -> bool:
        if not yes and not sys.stdin.isatty():
            raise BadInput(_WHERE, "input", f"there is no terminal to ask: {question}", f"Give {otherwise}")
        return yes or typer.confirm(question)

    return ask


def day(text: str | None) -> date | None:
    """A date as an option gives it.

    Raises:
        BadInput: it is none.
    """
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise BadInput(_WHERE, "--expires-on", f"{text!r} is no date", "Write YYYY-MM-DD") from None


def moment(at: datetime | None) -> str | None:
    """UTC, to the second."""
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, none: str) -> None:
    """A table of saved things: `columns` as they are, then what is refused or noted; `none` when there is no row."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo(none)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*columns, "note"):
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        cells = [Text("" if row[name] is None else str(row[name])) for name in columns]
        note = Text("; ".join(row.get("notes", ())), "yellow")
        if row["refused"]:
            note = Text(f"REFUSED {row['refused']}. {row['mend']}", "red")
        table.add_row(*cells, note)
    console = _console()
    console.print(table, crop=False)


def tell_key(answer: KeyCheck) -> None:
    """One provider's answer: one line when it is well, else the evidence and the mend below it."""
    _tell(answer.provider, answer, f"{answer.model} by {answer.sent_as}, {answer.seconds:.1f} s")


def tell_hosts(found: Sequence[HostCheck], as_json: bool) -> bool:
    """What was found on hosts; whether all can carry runs."""
    if as_json:
        print_json([asdict(each) for each in found])
        return all(each.ok for each in found)
    for each in found:
        free = "" if each.disk_free_bytes is None else f", {each.disk_free_bytes / 1e9:.0f} GB free"
        _tell(each.name, each, f"{each.address}, python {each.python}, git{free}")
        for harness, agent in each.agents.items():
            _print(Text(f"  {harness} {agent.version or '(version unknown)'}  {agent.executable}"))
        for note in each.notes:
            _print(Text(f"  note: {note}", "yellow"))
    return all(each.ok for each in found)


def _tell(name: str, found: KeyCheck | HostCheck, well: str) -> None:
    if found.ok:
        _print(Text.assemble((f"{name}  ", "bold"), ("ok", "green"), (f"  {well}", "dim")))
        return
    first, *rest = found.evidence
    _print(Text.assemble((f"{name}  ", "bold"), (f"{found.kind}: {first}" if found.kind else first, "red")))
    for line in (*rest, f"mend: {found.mend}"):
        _print(Text(f"  {line}"))


def _say(problem: Text, mend: str) -> None:
    console = _console(stderr=True)
    console.print(problem, soft_wrap=True)
    console.print(Text(f"  mend: {mend}"), soft_wrap=True)


def _print(line: Text) -> None:
    _console().print(line, soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    """Colours on a terminal alone, and none where NO_COLOR is set."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)

"""`overnight lock check`: launchers against the lock, at every commit. Imports what it needs when it needs it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from overnight.launchers.check import Checked
    from overnight.launchers.locked import Locked

CLEAN, FOUND, BAD_INPUT = 0, 1, 2


class Format(StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Files and folders; default is this folder.", show_default=False),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Write the corrections that are certain.")] = False,
    form: Annotated[Format, typer.Option("--format", help="Text, or for machines.")] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    lock: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Provider lock; default is the project's own.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Your additions; default as for the other lock commands.")
    ] = None,
) -> None:
    """Find launchers that give an agent its key, address or model otherwise than the lock says.

    Reads shell scripts, .env files, systemd units, Dockerfiles, compose files,
    GitHub workflows, agents' settings.json and Python. Runs nothing, asks
    nobody, prints no key. Where a file does not say which provider it means,
    it says nothing. A line that ends in, or follows, a comment `lock: allow
    RULE` is left alone.

    \b
    Examples:
      overnight lock check                         this folder, what git ignores left out
      overnight lock check ops/ .env --fix         mend what is certain, show the rest
      overnight lock check --format sarif > lock.sarif
      overnight lock check --format github         in a workflow: marks the lines

    \b
    As a pre-commit hook, in .pre-commit-config.yaml:
      - repo: <where overnight is>
        rev: <a version>
        hooks: [{id: overnight-lock-check}]

    \b
    Exit codes: 0 nothing wrong (warnings and notes may be shown); 1 findings; 2 bad input.
    """
    from overnight.launchers.formats import FORMATS

    locked = _locked(lock, overlay)
    checked = _checked(paths or [Path()], locked)
    if fix:
        checked = _fixed(checked, paths or [Path()], locked)
    typer.echo(FORMATS[form.value](checked))
    failing = ("error", "warning") if strict else ("error",)
    raise typer.Exit(FOUND if any(each.weight in failing for each in checked.findings) else CLEAN)


def _checked(paths: list[Path], locked: Locked) -> Checked:
    from overnight.launchers.check import check as read

    try:
        return read(paths, locked, Path.cwd())
    except OSError as error:
        _refuse(str(error.filename), error.strerror or "cannot be read", "Give files and folders that are there")


def _fixed(checked: Checked, paths: list[Path], locked: Locked) -> Checked:
    """What is left after the certain corrections are written."""
    from overnight.launchers.mend import mend

    try:
        changed = mend(checked.findings)
    except OSError as error:
        _refuse(str(error.filename), error.strerror or "cannot be written", "Make it writable, or leave --fix out")
    for path in changed:
        typer.echo(f"mended {path}", err=True)
    return _checked(paths, locked)


def _locked(lock: Path | None, overlay: Path | None) -> Locked:
    """The lock, raw; only an overlay needs the models, which take a third of the time of a whole check."""
    from overnight import lockplace
    from overnight.launchers import locked

    named = os.environ.get(lockplace.LOCK_VARIABLE)
    path = lock or (Path(named).expanduser() if named else lockplace.DEFAULT_LOCK)
    if overlay is None and not lockplace.is_overlay(path) and not locked.may_have_overlay(Path.cwd()):
        try:
            return locked.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # the models say it in words
    from overnight import layers
    from overnight.failures import BadInput

    try:
        over = overlay or layers.find(Path.cwd())
        whole = layers.whole(path) if lockplace.is_overlay(path) else layers.load(path, over).lock
    except BadInput as error:
        _refuse(error.where, f"{error.field}: {error.problem}", error.mend)
    return locked.Locked(whole.model_dump(mode="json", by_alias=True))


def _refuse(where: str, problem: str, mend: str) -> NoReturn:
    typer.echo(f"{where}: {problem}\n{mend}", err=True)
    raise typer.Exit(BAD_INPUT)


def main(arguments: list[str]) -> None:
    """The command alone, for the short way in."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(check)
    app(arguments, prog_name="overnight lock check")

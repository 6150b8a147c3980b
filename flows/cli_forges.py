"""`overnight forges ...`: tokens for GitHub and GitLab, saved from a terminal."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.state import state_directory
from flows.terminal import asked_secret, plainly, show_rows

forges = typer.Typer(help="Tokens for GitHub and GitLab, saved as Prefect blocks.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The block's name, as deliver.forge has it.")]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="State directory, when no Prefect API is set.")]


class Kind(StrEnum):
    """Whose API it is."""

    GITHUB = "github"
    GITLAB = "gitlab"


@forges.command("add")
def forges_add(
    name: Name,
    kind: Annotated[Kind, typer.Option(help="Whose API it is.")] = Kind.GITHUB,
    api_url: Annotated[
        str, typer.Option(metavar="URL", help="https://HOST/api/v3 or /api/v4 of your own; default the public one.")
    ] = "",
    from_stdin: Annotated[bool, typer.Option("--from-stdin", help="Read the token from standard input.")] = False,
    state: State = None,
) -> None:
    """Save a token that may push branches and open pull requests. An older one of that name is replaced.

    \b
    Examples:
      overnight forges add work                              asks for the token, shows nothing
      pass show gitlab | overnight forges add lab --kind gitlab --api-url https://git.example/api/v4 --from-stdin
    """
    with plainly():
        from pydantic import SecretStr

        from blocks.forge_credentials import SLUG, made
        from flows.api import prefect_api
        from flows.progress import Progress

        token = SecretStr(asked_secret(f"Token for {kind.value}", "NAME", from_stdin))
        block: Any = made(kind.value, token, api_url)
        with prefect_api(state_directory(state, os.environ), Progress(sys.stderr)):
            block.save(name, overwrite=True)
        typer.echo(f"saved {SLUG}/{name}")


@forges.command("list")
def forges_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False, state: State = None
) -> None:
    """List saved forges; no part of any token.

    \b
    Example:
      overnight forges list
    """
    with plainly():
        from blocks import saved
        from blocks.forge_credentials import SLUG
        from flows.api import prefect_api
        from flows.progress import Progress

        with prefect_api(state_directory(state, os.environ), Progress(sys.stderr)):
            found = saved.documents(SLUG)
        rows = [
            {"name": each.name, "kind": each.data.get("kind"), "api_url": each.data.get("api_url")} for each in found
        ]
        show_rows(rows, ("name", "kind", "api_url"), as_json, "No forge is saved: overnight forges add")


@forges.command("remove")
def forges_remove(name: Name, state: State = None) -> None:
    """Forget a token here; at the forge itself it stays valid until you revoke it there.

    \b
    Example:
      overnight forges remove work
    """
    with plainly():
        from blocks import saved
        from blocks.forge_credentials import SLUG
        from flows.api import prefect_api
        from flows.progress import Progress

        with prefect_api(state_directory(state, os.environ), Progress(sys.stderr)):
            if not saved.remove(SLUG, name):
                raise saved.missing(SLUG, name, "command line", "NAME")
        typer.echo(f"removed {SLUG}/{name}; revoke the token at the forge, too")

"""`overnight lock ...`: what is known of providers and harnesses, and what is generated from it. Knows no Prefect."""

from __future__ import annotations

import json
import os
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from flows.cli_lock_check import check
from flows.terminal import end, plainly, print_json, show_rows
from overnight import envtext, layers, lockfile
from overnight.envtext import Format
from overnight.explain import explain as sentences
from overnight.facts import Fact
from overnight.failures import BadInput
from overnight.layers import Layered
from overnight.lockdiff import changes
from overnight.lockfile import OVERLAY, Provider, ProviderLock, suggest
from overnight.soundness import flaws

lock = typer.Typer(help="What is known of providers and agents, and what is made from it.", no_args_is_help=True)
lock.command("check")(check)

LockPath = Annotated[
    Path | None, typer.Option("--lock", metavar="PATH", help="Provider lock; default is the project's own.")
]
Overlay = Annotated[
    Path | None, typer.Option(metavar="PATH", help=f"Your additions; default {OVERLAY} of this folder or repository.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
_LISTED = ("provider", "harnesses", "address", "models")


@lock.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A provider, a harness or a trap.")] = None,
    as_json: AsJson = False,
    lock_path: LockPath = None,
    overlay: Overlay = None,
) -> None:
    """List the lock, or one entry of it. With --json and no NAME: the whole lock, your additions merged in.

    \b
    Examples:
      overnight lock show
      overnight lock show zai
      overnight lock show --json > merged.json      for --lock merged.json
    """
    with plainly():
        of = _layered(lock_path, overlay)
        if name is not None:
            entry = _entry(of.lock, name).model_dump(mode="json", by_alias=True, exclude_none=True)
            if as_json:
                print_json(entry)
                return
            for line in _outline(entry):
                typer.echo(line)
            return
        if as_json:
            print_json(of.lock.model_dump(mode="json", by_alias=True, exclude_none=True))
            return
        show_rows([_row(of, each) for each in of.lock.providers], _LISTED, False, "The lock names no provider.")
        typer.echo(f"\nharnesses: {', '.join(of.lock.harnesses)}")
        typer.echo(f"environment-only: {', '.join(of.lock.environment_only) or 'none'}")
        typer.echo(f"traps: {', '.join(of.lock.known_bad) or 'none'}")


@lock.command()
def explain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="PROVIDER, HARNESS, PROVIDER/HARNESS, VARIABLE or trap.")],
    as_json: AsJson = False,
    lock_path: LockPath = None,
    overlay: Overlay = None,
) -> None:
    """Say what is set and why, which header carries the key, where each fact comes from, and which file won.

    \b
    Examples:
      overnight lock explain zai/claude-code
      overnight lock explain API_TIMEOUT_MS
      overnight lock explain both-key-variables
    """
    with plainly():
        of = _layered(lock_path, overlay)
        said = sentences(of, name)
        if as_json:
            rows = [
                {"words": each.words, "place": each.place, "layer": each.layer, "provenance": _plain(each.provenance)}
                for each in said
            ]
            print_json(rows)
            return
        for (source, layer), group in groupby(said, lambda each: (each.provenance, each.layer)):
            for each in group:
                typer.echo(each.words)
            told = [f"{source.source}, {source.date}, {source.confidence}"] if source else []
            told += [f"from {layer}"] if of.overlay is not None else []
            if told:
                typer.echo(typer.style(f"    {'; '.join(told)}", dim=True))


@lock.command()
def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="A lock file, or a name in the lock.")],
    right: Annotated[str, typer.Argument(metavar="B", help="Another one of the same kind.")],
    as_json: AsJson = False,
    lock_path: LockPath = None,
    overlay: Overlay = None,
) -> None:
    """Say which facts differ between two lock files, or between two entries. Exit code 1 when any does.

    \b
    Examples:
      overnight lock diff zai zhipu
      overnight lock diff old.lock.json providers.lock.json
    """
    with plainly():
        files = [Path(each) for each in (left, right) if each.endswith(".json") or os.sep in each]
        if len(files) == 1:
            raise BadInput("command line", "A B", "one is a file and the other is not", "Give two files, or two names")
        if files:
            found = changes(lockfile.load(files[0]), lockfile.load(files[1]))
        else:
            of = _layered(lock_path, overlay).lock
            found = changes(_entry(of, left), _entry(of, right))
        if as_json:
            print_json([{"place": each.place, "left": each.left, "right": each.right} for each in found])
        else:
            for each in found:
                typer.echo(each.words(left, right))
        end(not found)


@lock.command()
def schema() -> None:
    """Print the JSON Schema of a lock file. An overlay has the same shape, in part."""
    print_json(lockfile.schema())


@lock.command()
def validate(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[PATH...]", help="Default: the lock in use.")] = None,
    lock_path: LockPath = None,
    overlay: Overlay = None,
) -> None:
    """Check lock files, and overlays on top of the lock: the shape, and facts that contradict each other.

    \b
    Exit codes: 0 sound; 1 contradictions; 2 a file does not read or does not fit the schema.
    """
    with plainly():
        looked = [_opened(path, lock_path) for path in paths] if paths else [_layered(lock_path, overlay)]
        bad = 0
        for of in looked:
            found = flaws(of.lock)
            bad += len(found)
            where = of.overlay or of.path
            for each in found:
                typer.echo(f"{where}: {each.place}: {each.problem}\n  mend: {each.mend}")
            if not found:
                typer.echo(
                    f"{where}: sound, {len(of.lock.providers)} providers, {_unverified(of.lock)} facts unverified"
                )
        end(not bad)


@lock.command()
def env(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Name in the lock, e.g. zai.")],
    harness: Annotated[str, typer.Argument(metavar="HARNESS", help="E.g. claude-code, codex, goose or aider.")],
    form: Annotated[Format, typer.Option("--format", help="Who will read it.")] = Format.SH,
    model: Annotated[str | None, typer.Option(help="Model id; default the first the lock lists.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where a server of your own is.")] = None,
    lock_path: LockPath = None,
    overlay: Overlay = None,
) -> None:
    """Write the environment that an agent needs for a provider. The key is referred to, never written.

    \b
    Examples:
      overnight lock env zai claude-code > zai.sh
      overnight lock env deepseek claude-code --format systemd
      overnight lock env ollama claude-code --url http://10.0.0.5:11434
    """
    with plainly():
        of = _layered(lock_path, overlay)
        what = envtext.wanted(of.lock, provider, harness, model, url)
        typer.echo(envtext.written(what, form), nl=False)
        notes = envtext.unsaid(what, form)
        if of.overlay is not None and any(of.is_theirs(*place) for place in _about(provider, harness)):
            notes.append(f"in part from {of.overlay}")
        for line in notes:
            typer.echo(f"note: {line}", err=True)


def _layered(lock_path: Path | None, overlay: Path | None) -> Layered:
    return layers.load(lockfile.place(lock_path, os.environ), overlay or layers.find(Path.cwd()))


def _about(provider: str, harness: str) -> tuple[tuple[str, str], ...]:
    """The places in the lock from which an environment is made."""
    return ("providers", provider), ("environment_only", provider), ("harnesses", harness)


def _opened(path: Path, lock_path: Path | None) -> Layered:
    """A file to validate: an overlay by its name, else a whole lock."""
    if path.name == OVERLAY:
        return layers.load(lockfile.place(lock_path, os.environ), path)
    return layers.load(path, None)


def _entry(of: ProviderLock, name: str) -> BaseModel:
    kinds: tuple[dict[str, Any], ...] = (of.providers, of.harnesses, of.environment_only, of.known_bad)
    for entries in kinds:
        if name in entries:
            found: BaseModel = entries[name]
            return found
    known = [each for entries in kinds for each in entries]
    raise BadInput("command line", "NAME", f"the lock has no {name!r}", suggest(name, known))


def _row(of: Layered, name: str) -> dict[str, Any]:
    entry: Provider = of.lock.providers[name]
    endpoint = next(iter(entry.endpoints.values()))
    notes = ["the address is yours to set"] if endpoint.is_yours else []
    if entry.terms.headless in ("restricted", "forbidden"):
        notes.append(f"unattended use is {entry.terms.headless}")
    if count := _unverified(entry):
        notes.append(f"{count} fact{'s' if count > 1 else ''} unverified")
    if of.is_theirs("providers", name):
        notes.append(f"in part from {of.overlay}")
    return {
        "provider": name,
        "harnesses": ", ".join(entry.harnesses),
        "address": endpoint.url,
        "models": ", ".join(list(entry.models)[:2]) + (", ..." if len(entry.models) > 2 else ""),
        "notes": notes,
        "refused": None,
    }


def _unverified(of: object) -> int:
    """How many facts in an entry say of themselves that nobody confirmed them."""
    if isinstance(of, BaseModel):
        own = isinstance(of, Fact) and of.provenance.confidence == "unverified"
        return own + sum(_unverified(getattr(of, name)) for name in type(of).model_fields)
    if isinstance(of, dict):
        return sum(_unverified(each) for each in of.values())
    return sum(_unverified(each) for each in of) if isinstance(of, tuple) else 0


def _outline(entry: dict[str, Any], depth: int = 0) -> list[str]:
    """An entry for reading: one line a value, its source in brackets behind the last."""
    pad: str = "  " * depth
    lines: list[str] = []
    for key, value in entry.items():
        if key == "provenance":
            continue
        if isinstance(value, dict) and value:
            lines += [f"{pad}{key}", *_outline(value, depth + 1)]
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            lines.append(f"{pad}{key}")
            for each in value:
                first, *rest = _outline(each, depth + 2)
                lines += [f"{pad}  - {first.lstrip()}", *rest]
        elif value or value == 0:
            lines.append(f"{pad}{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if source := entry.get("provenance"):
        lines.append(f"{pad}({source['source']}, {source['date']}, {source['confidence']})")
    return lines


def _plain(of: BaseModel | None) -> dict[str, Any]:
    return {} if of is None else json.loads(of.model_dump_json())

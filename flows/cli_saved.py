"""`overnight credentials ...` and `overnight hosts ...`: what an operator saves, from a terminal."""

from __future__ import annotations

import getpass
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import (
    agreeing,
    asked_key,
    day,
    end,
    moment,
    plainly,
    print_json,
    show_rows,
    tell_hosts,
    tell_key,
)
from overnight import layers
from overnight.keycheck import KeyCheck

credentials = typer.Typer(help="Provider keys, saved as Prefect blocks.", no_args_is_help=True)
hosts = typer.Typer(help="Machines that carry runs, saved as Prefect blocks.", no_args_is_help=True)

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="Name in the lock, e.g. zai.")]
HostName = Annotated[str, typer.Argument(metavar="NAME", help="The block's name, e.g. box.")]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="State directory, when no Prefect API is set.")]
Lock = Annotated[Path | None, typer.Option(metavar="PATH", help="Provider lock; default is the project's own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
FromStdin = Annotated[bool, typer.Option("--from-stdin", help="Read the key from standard input.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
ExpiresOn = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day of the key; overnight reminds a week ahead.")
]


@credentials.command("add")
def credentials_add(
    provider: Provider, from_stdin: FromStdin = False, expires_on: ExpiresOn = None, state: State = None
) -> None:
    """Save a provider's key as a Prefect block, checked against the lock.

    \b
    Examples:
      overnight credentials add zai                          asks for the key, shows nothing
      overnight credentials add zai --expires-on 2027-03-01
      pass show zai | overnight credentials add zai --from-stdin
    """
    with plainly():
        from flows.credentials import save_key

        layers.in_use(None, os.environ).provider(provider, where="command line", field="PROVIDER")
        ends = day(expires_on)
        typer.echo(save_key(provider, asked_key(provider, from_stdin), state, os.environ, ends))


@credentials.command("list")
def credentials_list(as_json: AsJson = False, state: State = None) -> None:
    """List saved keys: provider, when saved, when it ends, what is odd. No part of any key.

    \b
    Example:
      overnight credentials list
    """
    with plainly():
        from flows.credentials import list_keys

        rows = [
            {
                "provider": key.provider,
                "saved_at": moment(key.saved_at),
                "expires_on": None if key.expires_on is None else key.expires_on.isoformat(),
                "refused": None if key.flaw is None else f"{key.flaw.field}: {key.flaw.problem}",
                "mend": None if key.flaw is None else key.flaw.mend,
                "notes": list(key.notes),
            }
            for key in list_keys(state, os.environ)
        ]
        show_rows(rows, ("provider", "saved_at", "expires_on"), as_json, "No key is saved: overnight credentials add")


@credentials.command("check")
def credentials_check(
    providers: Annotated[list[str] | None, typer.Argument(metavar="[PROVIDER]...", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask; default the provider's first in the lock.")] = None,
    harness: Annotated[
        str | None, typer.Option(help="Whose header to send; default the provider's first in the lock.")
    ] = None,
    lock: Lock = None,
    as_json: AsJson = False,
    state: State = None,
) -> None:
    """Try keys by one real call each: ok, or why not. Without PROVIDER all that are saved or set.

    Asks from this machine, for one token of an answer. Exit code 0 when every
    provider let its key in, else 1.

    \b
    Examples:
      overnight credentials check
      overnight credentials check zai --model glm-4.7
      OVERNIGHT_KEY_ZAI=... overnight credentials check zai --json
    """
    with plainly():
        from flows.credentials import check_keys

        answers: list[KeyCheck] = []

        def tell(answer: KeyCheck) -> None:
            answers.append(answer)
            if not as_json:
                tell_key(answer)

        good = check_keys(providers or [], lock, model, harness, state, os.environ, tell)
        if as_json:
            print_json([asdict(answer) for answer in answers])
        end(good)


@credentials.command("rotate")
def credentials_rotate(
    provider: Provider,
    from_stdin: FromStdin = False,
    expires_on: ExpiresOn = None,
    force: Annotated[bool, typer.Option("--force", help="Replace also when the new key is not let in.")] = False,
    lock: Lock = None,
    state: State = None,
) -> None:
    """Put a new key in the place of the saved one, once the provider let it in.

    \b
    Examples:
      overnight credentials rotate zai
      pass show zai | overnight credentials rotate zai --from-stdin --expires-on 2027-03-01
    """
    with plainly():
        from flows.credentials import rotate_key

        ends = day(expires_on)
        answer, said = rotate_key(
            provider,
            lambda: asked_key(provider, from_stdin),
            lock,
            state,
            os.environ,
            expires_on=ends,
            force=force,
        )
        tell_key(answer)
        if said:
            typer.echo(said)
            return
        typer.echo("The saved key stays as it was; --force replaces it all the same", err=True)
        end(False)


@credentials.command("remove")
def credentials_remove(provider: Provider, yes: Yes = False, state: State = None) -> None:
    """Forget a saved key.

    \b
    Example:
      overnight credentials remove zai
    """
    with plainly():
        from flows.credentials import remove_key

        asked = agreeing(f"Forget the saved key of {provider}?", yes, "--yes")
        removed = remove_key(provider, asked, state, os.environ)
        typer.echo(f"Removed the key of {provider}" if removed else "Nothing was removed", err=not removed)
        end(removed)


@hosts.command("add")
def hosts_add(
    name: HostName,
    target: Annotated[str, typer.Argument(metavar="[USER@]ADDRESS[:PORT]")],
    key_file: Annotated[Path, typer.Option(metavar="PATH", help="Private key, without a passphrase.")] = Path(
        "~/.ssh/id_ed25519"
    ),
    slots: Annotated[int, typer.Option(help="Runs at the same time.")] = 4,
    path: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Folder searched for agents before the usual ones; repeat.")
    ] = None,
    python: Annotated[str, typer.Option(help="Python 3.8 or newer on the host.")] = "python3",
    directory: Annotated[str, typer.Option(help="Folder on the host, relative to the user's home.")] = ".overnight",
    fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256:...", help="The host key must have it; then nothing is asked.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Pin another host key than the saved one.")] = False,
    check: Annotated[bool, typer.Option(help="Log in and look at the host afterwards.")] = True,
    state: State = None,
) -> None:
    """Save a host, its key pinned after you saw its fingerprint; then look at it.

    Exit code 1 when the host cannot be reached, when you say no, or when it
    was saved and is not fit.

    \b
    Examples:
      overnight hosts add box dev@10.0.0.5
      overnight hosts add box dev@10.0.0.5:2222 --slots 8 --path /opt/agents/bin
      overnight hosts add box dev@10.0.0.5 --fingerprint SHA256:...     asks nothing
    """
    with plainly():
        from flows.hosts import add_host, look_at, wished

        file = key_file if str(key_file).startswith("~") else key_file.absolute()
        more = {"key_file": file, "slots": slots, "path": path or [], "python": python, "directory": directory}
        added = add_host(
            name,
            wished(target, getpass.getuser(), **more),
            fingerprint,
            replace=replace,
            agreed=agreeing("Pin this host key?", False, "--fingerprint SHA256:..., once you compared it"),
            tell=typer.echo,
            state=state,
            environ=os.environ,
        )
        if added is None:
            typer.echo("Nothing was saved", err=True)
        end(added is not None and (not check or tell_hosts(look_at({name: added}, None, os.environ), False)))


@hosts.command("list")
def hosts_list(as_json: AsJson = False, state: State = None) -> None:
    """List saved hosts with their pinned fingerprints.

    \b
    Example:
      overnight hosts list
    """
    with plainly():
        from flows.hosts import list_hosts

        rows = [
            {
                "name": host.name,
                "address": host.address,
                "host_key": host.fingerprint,
                "slots": None if host.spec is None else host.spec.slots,
                "key_file": None if host.spec is None else str(host.spec.key_file),
                "saved_at": moment(host.saved_at),
                "refused": None if host.flaw is None else f"{host.flaw.field}: {host.flaw.problem}",
                "mend": None if host.flaw is None else host.flaw.mend,
            }
            for host in list_hosts(state, os.environ)
        ]
        shown = ("name", "address", "host_key", "slots", "key_file", "saved_at")
        show_rows(rows, shown, as_json, "No host is saved: overnight hosts add")


@hosts.command("check")
def hosts_check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)] = None,
    lock: Lock = None,
    as_json: AsJson = False,
    state: State = None,
) -> None:
    """Log in to saved hosts and tell what is there: python, git, agents with versions. Without NAME all.

    A host without any agent is fit, and says so: which agent is needed is the
    batch's business. Exit code 0 when every host can carry runs, else 1.

    \b
    Examples:
      overnight hosts check
      overnight hosts check box --json
    """
    with plainly():
        from flows.hosts import check_hosts

        end(tell_hosts(check_hosts(names or [], lock, state, os.environ), as_json))


@hosts.command("remove")
def hosts_remove(name: HostName, yes: Yes = False, state: State = None) -> None:
    """Forget a saved host. Nothing on the host is touched.

    \b
    Example:
      overnight hosts remove box
    """
    with plainly():
        from flows.hosts import remove_host

        asked = agreeing(f"Forget the saved host {name}?", yes, "--yes")
        removed = remove_host(name, asked, state, os.environ)
        typer.echo(f"Removed host {name}" if removed else "Nothing was removed", err=not removed)
        end(removed)

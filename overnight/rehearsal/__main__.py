"""Serve emulated providers and a loopback SSH host in the foreground."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from overnight.failures import BadInput
from overnight.rehearsal.faults import FAULT_HELP, Fault, parse_fault
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.sites import SITE_HELP, parse_sites
from overnight.rehearsal.ssh import LoopbackHost, make_key
from overnight.rehearsal.tapes import load_tapes

DEFAULT_SITES = ("rehearsal", "rehearsal-x,accepts=x-api-key")


_EXAMPLES = """\
examples:
  python -m overnight.rehearsal --directory /tmp/r --tapes tonight.tapes.yaml
  python -m overnight.rehearsal --directory /tmp/r --fault rehearsal=rate-limited,times=2,retry_after_s=1
  python -m overnight.rehearsal --directory /tmp/r --site strict,accepts=bearer,shape=anthropic,models=m1+m2
  python -m overnight.rehearsal --directory /tmp/r --site intl,shape=minimax,clients=claude-cli,balance=no \\
    --site cn,shape=minimax,elsewhere=intl
  python -m overnight.rehearsal --directory /tmp/r --fault rehearsal=stream-error,says=window-used-up,at_once=yes
  python -m overnight.rehearsal --directory /tmp/r --fault rehearsal=coded,code=1308,turn=2
  python -m overnight.rehearsal --directory /tmp/r --fault rehearsal=drip,drips=text,every_s=5

Each site speaks Anthropic's Messages (/v1/messages), OpenAI's Responses
(/v1/responses) and chat completions (/v1/chat/completions), streaming and not.

It prints one line of JSON with every URL, port and key file, then serves until
SIGINT, SIGTERM or the end of its standard input. Keys are made once a
directory, are worth nothing anywhere else, and stay for the next start.
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        sites = _sites(options.site or DEFAULT_SITES, options.fault, options.directory)
        tapes = load_tapes(options.tapes) if options.tapes else ()
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 2
    heard = _hear_signals()
    with ExitStack() as running:
        try:
            provider = running.enter_context(EmulatedProvider(sites, tapes, options.port))
            host = running.enter_context(_host(options.directory, options.user, options.ssh_port))
        except OSError as error:
            sys.stderr.write(f"cannot start: {error}\n")
            return 2
        sys.stdout.write(json.dumps(_served(provider, sites, host, options)) + "\n")
        sys.stdout.flush()
        _wait_for_the_end(heard)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m overnight.rehearsal",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--directory", type=_absolute, required=True, help="keys, and the HOME of commands; made if missing")
    add("--tapes", type=Path, metavar="FILE", help="YAML file with what the model does")
    add(
        "--site",
        action="append",
        metavar="NAME[,SETTING=VALUE...]",
        help=f"{SITE_HELP}; default: {' and '.join(DEFAULT_SITES)}",
    )
    add("--fault", action="append", default=[], metavar="SITE=KIND[,SETTING=VALUE...]", help=FAULT_HELP)
    add("--port", type=int, default=0, help="of the providers; default: any free one")
    add("--ssh-port", type=int, default=0, help="of the SSH host; default: any free one")
    add("--user", default="rehearsal", help="the user name the SSH host lets in; default: rehearsal")
    return parser


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _sites(written: Sequence[str], faults: Sequence[str], directory: Path) -> list[Site]:
    return parse_sites(written, dict(_fault(text) for text in faults), partial(_key, directory))


def _fault(text: str) -> tuple[str, Fault]:
    name, _, fault = text.partition("=")
    return name, parse_fault(fault)


def _key_file(directory: Path, site: str) -> Path:
    return directory / "keys" / site


def _key(directory: Path, site: str) -> str:
    path = _key_file(directory, site)
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"rehearsal-{secrets.token_hex(16)}")
    return path.read_text()


def _host(directory: Path, user: str, port: int) -> LoopbackHost:
    home, mine, its = directory / "home", directory / "id_ed25519", directory / "host_ed25519"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for private in (mine, its):
        if not private.exists():
            private.with_suffix(".pub").write_text(make_key(private) + "\n")
    public = mine.with_suffix(".pub").read_text()
    return LoopbackHost(user, [public], home=home, host_key=its, port=port)


def _served(
    provider: EmulatedProvider, sites: Sequence[Site], host: LoopbackHost, options: argparse.Namespace
) -> dict[str, object]:
    described = {
        site.name: {
            "url": provider.url(site.name),
            "key_file": str(_key_file(options.directory, site.name)),
            "accepts": sorted(site.accepts),
            "models": site.models,
            "shape": site.shape,
        }
        for site in sites
    }
    where = {"address": host.address, "port": host.port, "user": options.user, "host_key": host.host_key}
    files = {"key_file": str(options.directory / "id_ed25519"), "home": str(options.directory / "home")}
    return {"schema": 1, "sites": described, "host": {**where, **files}}


def _hear_signals() -> int:
    """From here on SIGINT and SIGTERM do nothing but make the returned descriptor readable."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return heard


def _wait_for_the_end(heard: int) -> None:
    """Return on a signal or the end of standard input; what comes on it before is ignored."""
    while True:
        ready, _, _ = select.select([heard, sys.stdin.fileno()], [], [])
        if heard in ready or not os.read(sys.stdin.fileno(), 4096):
            return


if __name__ == "__main__":
    sys.exit(main())

"""What the doctor may mend on a host, each only with consent: who may read a saved login, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from flows.terminal import agreeing
from overnight.doctor.records import Checkup, Finding, HostLook
from overnight.failures import FailureError
from overnight.spec import HostSpec
from overnight.station import Station

# by finding: what to run there, the place of the finding added
MENDS: Mapping[str, tuple[str, ...]] = {"login-readable": ("chmod", "600", "--")}


def mend(checkup: Checkup, hosts: Mapping[str, HostSpec], *, yes: bool) -> None:
    """Offer each mend that is safe, one question each, and tell how it went.

    Raises:
        BadInput: somebody has to be asked, and nobody can be.
    """
    offered = 0
    for look in checkup.hosts:
        for finding in look.findings:
            if finding.id not in MENDS:
                continue
            offered += 1
            command = " ".join([*MENDS[finding.id], finding.where])
            asked = agreeing(f"On {look.host}, {finding.seen} ({finding.where}). Run `{command}` there?", yes, "--yes")
            if asked():
                _done(look, hosts[look.host], finding)
    if not offered:
        typer.echo("--fix: nothing was found that is safe to mend from here; the mends above are yours to make")


def _done(look: HostLook, spec: HostSpec, finding: Finding) -> None:
    station = Station(look.host, spec, lambda _: None)
    path = finding.where.replace("~", str(look.facts["home"]), 1) if finding.where.startswith("~/") else finding.where
    try:
        done = station.remote.execute([*MENDS[finding.id], path])
    except FailureError as error:
        typer.echo(f"{look.host}: not mended: {error.failure}")
        return
    finally:
        station.close()
    words = "mended" if done.code == 0 else f"not mended: {done.err.decode('utf-8', 'replace').strip()}"
    typer.echo(f"{look.host}: {finding.where}: {words}")

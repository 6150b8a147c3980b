"""Which routes the doctor examines: those of batch files, or every one that saved hosts and keys make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blocks import saved
from blocks.hosts import read_host
from blocks.keys import saved_keys
from blocks.ssh_host import SLUG
from flows.prepare import Prepared, checked_plans, prepare, with_hosts
from overnight import keyshape, layers, lockfile
from overnight.doctor.visit import NO_REPOSITORY
from overnight.failures import BadInput
from overnight.harnesses import HARNESSES, scripted
from overnight.lockfile import ProviderLock, suggest
from overnight.route import Route
from overnight.spec import AUTHOR, BatchSpec, HostSpec, Limits, TaskSpec

_WHERE = "command line"
LOCAL = "local"
_FORM = "Write HOST/HARNESS/PROVIDER/MODEL, e.g. box/claude-code/zai/glm-5.1; what is left out at the end is any"


def from_files(files: Sequence[str], lock: str, environ: Mapping[str, str]) -> list[Prepared]:
    """One batch for each YAML file, and one for all Markdown files together; hosts named by block not yet loaded.

    Raises:
        BadInput: with file, field and mend.
    """
    paths = [Path(file).expanduser() for file in files]
    markdown = [path for path in paths if path.suffix.lower() in (".md", ".markdown")]
    groups = [[path] for path in paths if path not in markdown] + ([markdown] if markdown else [])
    return [prepare(group, Path(lock) if lock else None, [], environ) for group in groups]


def asked(
    files: Sequence[str],
    routes: Sequence[str],
    hosts: Sequence[str],
    providers: Sequence[str],
    lock: str,
    environ: Mapping[str, str],
) -> list[Prepared]:
    """The batches whose routes are examined, narrowed to what was named. Blocks on the network.

    Without files: every saved host with every provider that has a key, by every
    harness that reaches it, with the first model the lock lists; a whole route
    that is named need not be among them.

    Raises:
        BadInput: with field and mend.
    """
    wanted = [_parts(route) for route in routes]
    found = (
        [with_hosts(prepared) for prepared in from_files(files, lock, environ)]
        if files
        else [_from_saved(wanted, lock, environ)]
    )
    narrowed = [_narrowed(prepared, wanted, hosts, providers) for prepared in found]
    left = [prepared for prepared in narrowed if prepared.batch.tasks]
    if not left:
        known = [str(route) for prepared in found for route in prepared.batch.routes]
        raise BadInput(_WHERE, "--route", "no route is left to examine", f"There are: {'; '.join(known) or 'none'}")
    return left


def _parts(text: str) -> list[str]:
    parts = text.split("/", 3)  # a model's own name may hold a slash
    if not all(parts):
        raise BadInput(_WHERE, "--route", f"{text!r} is no route", _FORM)
    return parts


def _narrowed(
    prepared: Prepared, routes: Sequence[Sequence[str]], hosts: Sequence[str], providers: Sequence[str]
) -> Prepared:
    def kept(route: Route) -> bool:
        parts = (route.host, route.harness, route.provider, route.model)
        named = not routes or any(parts[: len(each)] == tuple(each) for each in routes)
        return named and (not hosts or route.host in hosts) and (not providers or route.provider in providers)

    tasks = tuple(task.model_copy(update={"routes": ()}) for task in prepared.batch.placed if kept(task.route))
    return replace(prepared, batch=prepared.batch.model_copy(update={"tasks": tasks}))


def _from_saved(wanted: Sequence[Sequence[str]], lock_path: str, environ: Mapping[str, str]) -> Prepared:
    path = lockfile.place(Path(lock_path) if lock_path else None, environ)
    lock = layers.whole(path)
    hosts = {str(each.name): read_host(each) for each in saved.documents(SLUG)}
    if any(parts[0] == LOCAL for parts in wanted):
        hosts.setdefault(LOCAL, HostSpec(kind="local"))
    if not hosts:
        mend = "Save one with `overnight hosts add`, or give a batch file"
        raise BadInput(_WHERE, "FILE", "no batch file is given and no host is saved", mend)
    keys = [each.provider for each in saved_keys()]
    keys += [name for name in lock.providers if keyshape.variable(name) in environ and name not in keys]
    routes = dict.fromkeys(
        [
            *(_whole(parts, lock, hosts) for parts in wanted if len(parts) == len(Route.model_fields)),
            *(
                Route(host=host, harness=harness, provider=provider, model=next(iter(lock.providers[provider].models)))
                for host in hosts
                for provider in keys
                if provider in lock.providers and lock.providers[provider].models
                for harness in _harnesses(lock, provider)
            ),
        ]
    )
    tasks = tuple(
        TaskSpec(
            id=f"route-{i}",
            repo=NO_REPOSITORY,
            base="HEAD",
            instruction="-",
            route=route,
            limits=Limits(),
            field=str(route),
        )
        for i, route in enumerate(routes)
    )
    batch = BatchSpec(name="saved", source="saved hosts and keys", author=AUTHOR, hosts=hosts, tasks=tasks)
    return checked_plans(batch, lock, path)


def _harnesses(lock: ProviderLock, provider: str) -> list[str]:
    entry = lock.providers[provider]
    return [
        name
        for name, wiring in entry.harnesses.items()
        if name in HARNESSES and name != scripted.NAME and not entry.endpoints[wiring.endpoint].is_yours
    ]


def _whole(parts: Sequence[str], lock: ProviderLock, hosts: Mapping[str, HostSpec]) -> Route:
    host, harness, provider, model = parts
    if host not in hosts:
        raise BadInput(_WHERE, "--route", f"no host {host!r} is saved", suggest(host, [*hosts, LOCAL]))
    lock.wiring(provider, harness, where=_WHERE, field="--route")
    lock.model(provider, model, where=_WHERE, field="--route")
    return Route(host=host, harness=harness, provider=provider, model=model)

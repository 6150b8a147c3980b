"""Reads a batch file: everything a user can write is checked here, before anything starts.

Unknown keys, wrong types, unknown names and missing files are refused with
file, field and mend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from overnight.choice import RouteSpec
from overnight.deadline import deadline_at
from overnight.failures import BadInput
from overnight.handover import Deliver, Guards
from overnight.keyshape import KEY_VARIABLES
from overnight.lockfile import suggest
from overnight.route import Route
from overnight.sequence import check_sequence
from overnight.spec import BatchFile, BatchSpec, HostSpec, Limits, TaskEntry, TaskSpec, is_url
from overnight.yamlfile import fits, parse, read_text

M = TypeVar("M", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
# keys of providers are in the environment too, and what stands in a batch file reaches argv, records and logs
_VERBATIM = ("instruction", "verify")
_SAID_ONCE = ("author", "budget", "providers", "peak", "deadline", "wrap_up_s")
_OF_THE_BATCH = ("schema", "name", "spread", "hosts", *_SAID_ONCE)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$(.*)", re.DOTALL | re.MULTILINE)
# a password in any URL; in http also a user alone, which is how access tokens are written
_CREDENTIALS = re.compile(r"://[^/@]*:[^/]*@|^https?://[^/]*@", re.IGNORECASE)
_MENDS = {
    "missing": "Write it",
    "string_type": "Write a text; put it in quotes if it looks like a number or a date",
    "int_parsing": "Write a whole number",
    "float_parsing": "Write a number",
    "model_type": "Write keys and values below it, or leave it out",
    "dict_type": "Write keys and values below it, or leave it out",
    "tuple_type": "Write a list",
}
# one argument of execve holds 128 KiB on Linux (MAX_ARG_STRLEN), the terminating NUL included
MAX_INSTRUCTION_BYTES = 128 * 1024 - 1024


def load(files: Sequence[Path], variables: Mapping[str, str]) -> BatchSpec:
    """Read one YAML batch file, or Markdown files with front matter, one task each.

    `${NAME}` is replaced from `variables`, except in `instruction` and `verify`.
    Paths are relative to the file they are written in.

    Raises:
        BadInput: with file, field and mend. Nothing is touched.
    """
    if not files:
        raise BadInput("command line", "FILE", "no batch file given", "Give a YAML file or Markdown files")
    markdown = [file for file in files if file.suffix.lower() in (".md", ".markdown")]
    if markdown and len(markdown) != len(files):
        raise BadInput(
            str(files[0]), "FILE", "YAML and Markdown are mixed", "Give one YAML file or Markdown files only"
        )
    if markdown:
        return _merged([_load_markdown(file, variables) for file in files], files)
    if len(files) > 1:
        raise BadInput(str(files[1]), "FILE", "more than one YAML file", "Put the tasks into one file")
    raw = parse(files[0], read_text(files[0]))
    if not isinstance(raw, dict):
        raise BadInput(str(files[0]), "file", "holds no mapping", "Start from deployments/quickstart.yaml")
    return complete(raw, str(files[0]), files[0].parent, variables)


def complete(raw: dict[str, Any], source: str, folder: Path, variables: Mapping[str, str]) -> BatchSpec:
    """The batch that a mapping in the shape of a batch file describes.

    Args:
        source: What messages call the place it comes from.
        folder: Paths in it are relative to this one.

    Raises:
        BadInput: as `load`.
    """
    batch = _completed(raw, source, folder, variables)
    check_sequence(batch.tasks, source)
    return batch


def _completed(raw: dict[str, Any], source: str, folder: Path, variables: Mapping[str, str]) -> BatchSpec:
    """The same, before it is known what its tasks come after: that may stand in another file."""
    try:
        batch = BatchFile.model_validate(_expanded(raw, variables, source))
    except ValidationError as error:
        raise bad_input(error, source, BatchFile) from None
    tasks = tuple(_task(entry, i, batch, source, folder) for i, entry in enumerate(batch.tasks))
    _check_ids(tasks, source)
    if batch.deadline is not None:
        deadline_at(batch.deadline, datetime.now(UTC), source)
    hosts = {name: _with_paths(host, source, f"hosts.{name}", folder) for name, host in batch.hosts.items()}
    same = {name: getattr(batch, name) for name in ("name", "spread", *_SAID_ONCE)}
    return BatchSpec(**same, source=source, hosts=hosts, tasks=tasks)


def _load_markdown(file: Path, variables: Mapping[str, str]) -> BatchSpec:
    """A batch of the one task that a Markdown file holds; its fields are called by the file's name."""
    try:
        batch = _completed(_from_markdown(file), str(file), file.parent, variables)
    except BadInput as error:
        field = error.field.replace("tasks[0]", file.name)
        raise BadInput(error.where, field, error.problem, error.mend) from error
    return batch.model_copy(update={"tasks": (batch.tasks[0].model_copy(update={"field": file.name}),)})


def _from_markdown(file: Path) -> dict[str, Any]:
    """The batch file that would hold the same task. A host that is not described is a saved block."""
    found = _FRONT_MATTER.match(read_text(file))
    if found is None:
        raise BadInput(str(file), "front matter", "is missing", "Start the file with --- and route, repo, base")
    meta = parse(file, "\n" + found[1])  # the line end keeps the line numbers of the file
    if not isinstance(meta, dict):
        raise BadInput(str(file), "front matter", "holds no mapping", "Write route, repo, base between the two ---")
    for key in ("instruction", "instruction_file"):
        if key in meta:
            raise BadInput(str(file), key, "stands beside a body", "Write the instruction below the front matter")
    batch = {key: meta.pop(key) for key in _OF_THE_BATCH if key in meta}
    task = {"id": file.stem.lower(), **meta, "instruction": found[2]}
    hosts = batch.get("hosts", {})
    for host in _hosts_of(task.get("route")):
        if isinstance(hosts, dict) and host not in hosts:
            batch["hosts"] = hosts = {**hosts, host: {"block": host}}
    return {"name": "batch", **batch, "tasks": [task]}


def _hosts_of(route: object) -> list[str]:
    """The hosts that a route as written names, in whatever shape."""
    if isinstance(route, list):
        return [host for part in route for host in _hosts_of(part)]
    if not isinstance(route, dict):
        return []
    return [host for host in [route.get("host")] if isinstance(host, str)] + _hosts_of(route.get("any_of"))


def _merged(parts: Sequence[BatchSpec], files: Sequence[Path]) -> BatchSpec:
    """One batch of several. What only one of them says holds for all; what two say must agree."""
    said: dict[str, Any] = {}
    usual = {"name": "batch", **{field: BatchFile.model_fields[field].default for field in _SAID_ONCE}}
    for file, part in zip(files, parts, strict=True):
        hosts = {f"hosts.{name}": host for name, host in part.hosts.items() if host != HostSpec(block=name)}
        whole = {name: getattr(part, name) for name in usual}
        for field, value in {**whole, **hosts}.items():
            if value != usual.get(field) and said.setdefault(field, value) != value:
                raise BadInput(str(file), field, "differs from an earlier file", "Write it once")
    source = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    tasks = tuple(task for part in parts for task in part.tasks)
    _check_ids(tasks, source)
    check_sequence(tasks, source)
    return BatchSpec(
        **{name: said.get(name, value) for name, value in usual.items()},
        spread=any(part.spread for part in parts),
        source=source,
        hosts={name: said.get(f"hosts.{name}", host) for part in parts for name, host in part.hosts.items()},
        tasks=tasks,
    )


def _check_ids(tasks: Sequence[TaskSpec], source: str) -> None:
    seen: dict[str, str] = {}
    for task in tasks:
        if task.id in seen:
            problem = f"{task.id!r} is also {seen[task.id]}"
            raise BadInput(source, f"{task.field}.id", problem, "Give every task its own id")
        seen[task.id] = task.field


def _expanded(raw: dict[str, Any], variables: Mapping[str, str], source: str) -> dict[str, Any]:
    """Fill `${NAME}` everywhere but in what agents and shells will read."""

    def fill(value: Any, field: str) -> Any:
        if isinstance(value, dict):
            verbatim = () if field == "hosts" else _VERBATIM  # below hosts, keys are names
            return {k: v if k in verbatim else fill(v, f"{field}.{k}".lstrip(".")) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v, f"{field}[{i}]") for i, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        return _VARIABLE.sub(lambda found: _variable(found[1], variables, source, field), value)

    filled: dict[str, Any] = fill(raw, "")
    return filled


def _variable(name: str, variables: Mapping[str, str], source: str, field: str) -> str:
    if name.startswith(KEY_VARIABLES):
        mend = "Leave it out: the run gets the key of its route's provider"
        raise BadInput(source, field, f"${{{name}}} is a key, which must not stand in a batch", mend)
    if name not in variables:
        raise BadInput(source, field, f"${{{name}}} is not set", f"Set {name}, or write the value here")
    if not fits(variables[name]):
        raise BadInput(source, field, f"${{{name}}} is not UTF-8 text", f"Set {name} to plain text")
    return variables[name]


def bad_input(error: ValidationError, source: str, model: type[BaseModel], prefix: str = "") -> BadInput:
    """The first fault of a validation error as file, field and mend. Never shows the input's value."""
    first = error.errors(include_input=False, include_url=False)[0]
    loc = [part for part in first["loc"] if part != "[key]"]  # pydantic's mark for the key of a mapping
    field = prefix + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc)
    field = field.lstrip(".").replace(".in_order[", "[") or "file"
    if first["type"] == "extra_forbidden":
        return BadInput(source, field, "unknown key", suggest(str(loc[-1]), _keys_at(model, loc[:-1])))
    problem = first["msg"].removeprefix("Value error, ")
    return BadInput(source, field, problem, _MENDS.get(first["type"], "See the batch file reference in README.md"))


def _keys_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys allowed at a place of a model, found by walking its annotations."""
    here: Any = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {(f.alias or n): f.annotation for n, f in here.model_fields.items()}
            here = fields.get(str(part))
        else:
            here = next((a for a in reversed(get_args(here)) if a not in (None, type(None), ...)), None)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [f.alias or n for n, f in here.model_fields.items()]
    return []


def _task(entry: TaskEntry, index: int, batch: BatchFile, source: str, folder: Path) -> TaskSpec:
    field, below = f"tasks[{index}]", batch.defaults
    repo = entry.repo or below.repo
    if not repo:
        raise BadInput(source, f"{field}.repo", "is missing", "Write a path or URL here or in defaults.repo")
    if _CREDENTIALS.search(repo):
        mend = "Keep them in a credential helper or an SSH key on the host"
        raise BadInput(source, f"{field}.repo", "holds credentials, which would reach argv and logs", mend)
    return TaskSpec(
        id=entry.id,
        repo=repo if is_url(repo) else str(_resolved(repo, source, f"{field}.repo", folder)),
        base=entry.base or below.base or "HEAD",
        instruction=_instruction(entry, field, source, folder),
        **_routes(entry, field, batch, source),
        limits=_merged_below(Limits, "limits", entry, field, batch, source),
        verify=(below.verify if entry.verify is None else entry.verify) or None,
        ask_for_commit=_first(entry.ask_for_commit, below.ask_for_commit, True),
        approve=_first(entry.approve, below.approve, False),
        verify_on=entry.verify_on or below.verify_on or "host",
        verify_twice=_first(entry.verify_twice, below.verify_twice, False),
        guards=_merged_below(Guards, "guards", entry, field, batch, source),
        deliver=_merged_below(Deliver, "deliver", entry, field, batch, source),
        feed_back=_first(entry.feed_back, below.feed_back, False),
        resume_session=_first(entry.resume_session, below.resume_session, False),
        priority=next(n for n in (entry.priority, below.priority, 0) if n is not None),
        after=entry.after,
        stacked=entry.stacked,
        field=field,
    )


def _first(*answers: bool | None) -> bool:
    return next(answer for answer in answers if answer is not None)


def _routes(entry: TaskEntry, field: str, batch: BatchFile, source: str) -> dict[str, Any]:
    """Where a task may go, as `TaskSpec` holds it."""
    mine, below = entry.route, batch.defaults.route
    if mine.parts:
        parts, weighted = [part.over(below.alone) for part in mine.parts], mine.any_of
    elif below.parts:
        parts, weighted = [mine.alone.over(part) for part in below.parts], below.any_of
    else:
        return {"route": _route(mine.alone.over(below.alone), f"{field}.route", batch, source)}
    place = f"{field}.route{'.any_of' if weighted else ''}"
    found = tuple(_route(part, f"{place}[{i}]", batch, source) for i, part in enumerate(parts))
    for i, route in enumerate(found):
        if route in found[:i]:
            raise BadInput(source, f"{place}[{i}]", f"is {route} once more", "Write each route once")
    return {"route": found[0], "routes": found, "weights": tuple(part.weight for part in weighted)}


def _route(route: RouteSpec, field: str, batch: BatchFile, source: str) -> Route:
    for name in Route.model_fields:
        if getattr(route, name) is None:
            mend = f"Write it here or in defaults.route.{name}"
            raise BadInput(source, f"{field}.{name}", "is missing", mend)
    if route.host not in batch.hosts:
        near = suggest(str(route.host), batch.hosts)
        raise BadInput(source, f"{field}.host", f"unknown host {route.host!r}", near)
    return Route(**route.model_dump())


def _merged_below(model: type[M], key: str, entry: TaskEntry, field: str, batch: BatchFile, source: str) -> M:
    """What a task says of `key` over what the defaults say of it."""
    place, below = "defaults", getattr(batch.defaults, key)
    try:
        model.model_validate(below)
        place = field
        return model.model_validate({**below, **getattr(entry, key)})
    except ValidationError as error:
        raise bad_input(error, source, model, f"{place}.{key}") from None


def _instruction(entry: TaskEntry, field: str, source: str, folder: Path) -> str:
    if entry.instruction_file is not None:
        field = f"{field}.instruction_file"
        try:
            text = read_text(_resolved(entry.instruction_file, source, field, folder))
        except BadInput as error:
            raise BadInput(source, field, f"{error.where} {error.problem}", error.mend) from error
    else:
        text, field = entry.instruction or "", f"{field}.instruction"
    if not text.strip():
        raise BadInput(source, field, "is empty", "Say what the agent should do")
    if "\0" in text or len(text.encode()) > MAX_INSTRUCTION_BYTES:
        problem = f"is {len(text.encode())} bytes long, or holds a NUL; {MAX_INSTRUCTION_BYTES} bytes fit"
        raise BadInput(source, field, problem, "Put the details into a file of the repository and refer to it")
    return text.strip()


def _with_paths(host: HostSpec, source: str, field: str, folder: Path) -> HostSpec:
    files = {
        name: _resolved(path, source, f"{field}.{name}", folder)
        for name in ("key_file", "known_hosts")
        if (path := getattr(host, name)) is not None
    }
    return host.model_copy(update=files)


def _resolved(path: str | Path, source: str, field: str, folder: Path) -> Path:
    """Relative to the file it is written in, not to where the command was typed."""
    try:
        return (folder / Path(path).expanduser()).resolve()
    except RuntimeError as error:  # ~nobody, or links that lead in a circle
        raise BadInput(source, field, f"leads nowhere: {error}", "Write the path in full") from None

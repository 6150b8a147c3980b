"""Reads a batch file: everything a user can write is checked here, before anything starts.

Unknown keys, wrong types, unknown names and missing files are refused with
file, field and mend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import frontmatter
from frontmatter.default_handlers import YAMLHandler
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from overnight.failures import BadInput
from overnight.lockfile import suggest
from overnight.route import Route
from overnight.spec import BatchFile, BatchSpec, HostSpec, Limits, TaskEntry, TaskSpec, is_url

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_VERBATIM = ("instruction", "verify")
# one argument of execve holds 128 KiB on Linux (MAX_ARG_STRLEN), the terminating NUL included
MAX_INSTRUCTION_BYTES = 128 * 1024 - 1024


def load(files: Sequence[Path], variables: Mapping[str, str]) -> BatchSpec:
    """Read one YAML batch file, or Markdown files with front matter, one task each.

    `${NAME}` is replaced from `variables`, except in `instruction` and `verify`.

    Raises:
        BadInput: with file, field and mend. Nothing is touched.
    """
    if not files:
        raise BadInput("command line", "FILE", "no batch file given", "Give a YAML file or Markdown files")
    markdown = [f for f in files if f.suffix.lower() in (".md", ".markdown")]
    if markdown and len(markdown) != len(files):
        raise BadInput(
            str(files[0]), "FILE", "YAML and Markdown are mixed", "Give one YAML file or Markdown files only"
        )
    if len(files) > 1 and not markdown:
        raise BadInput(str(files[1]), "FILE", "more than one YAML file", "Put the tasks into one file")
    source = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    raw = _from_markdown(files) if markdown else _mapping(_parse(files[0], _read(files[0])), files[0])
    return _complete(_validate(_expanded(raw, variables, source), source), source, files[0].parent)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise BadInput(str(path), "file", f"cannot be read: {why}", "Check the path") from error


def _parse(path: Path, text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        problem = (error.problem or "is not YAML").split("\n")[0]
        raise BadInput(str(path), place, problem, "Mend the YAML there") from error
    except YAMLError as error:
        raise BadInput(str(path), "file", "is not YAML", "Mend the YAML") from error


def _mapping(raw: Any, path: Path) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BadInput(str(path), "file", "holds no mapping", "Start from deployments/quickstart.yaml")
    return raw


class _FrontMatter(YAMLHandler):
    """Front matter by the same YAML reader as batch files: duplicate keys are errors."""

    path = Path()

    def load(self, fm: str, **_: object) -> Any:
        return _parse(self.path, fm)


def _from_markdown(files: Sequence[Path]) -> dict[str, Any]:
    batch: dict[str, Any] = {"name": files[0].stem.lower() if len(files) == 1 else "batch", "hosts": {}, "tasks": []}
    for path in files:
        handler = _FrontMatter()
        handler.path = path
        post = frontmatter.loads(_read(path), handler=handler)
        meta = dict[str, Any](post.metadata)
        if not meta:
            raise BadInput(str(path), "front matter", "is missing", "Start the file with --- and route, repo, base")
        for key in ("name", "author", "schema"):
            if key in meta:
                batch[key] = meta.pop(key)
        for name, host in (meta.pop("hosts", None) or {}).items():
            if batch["hosts"].setdefault(name, host) != host:
                raise BadInput(str(path), f"hosts.{name}", "differs from an earlier file", "Describe a host once")
        batch["tasks"].append({"id": path.stem.lower(), "instruction": post.content, **meta})
    named = {(t.get("route") or {}).get("host") for t in batch["tasks"] if isinstance(t.get("route"), dict)}
    for host in named - {None} - set(batch["hosts"]):
        batch["hosts"][host] = {"block": host}
    return batch


def _expanded(raw: dict[str, Any], variables: Mapping[str, str], source: str) -> dict[str, Any]:
    """Fill `${NAME}` everywhere but in what agents and shells will read."""

    def fill(value: Any, field: str) -> Any:
        if isinstance(value, dict):
            return {k: v if k in _VERBATIM else fill(v, f"{field}.{k}".lstrip(".")) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v, f"{field}[{i}]") for i, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        for name in _VARIABLE.findall(value):
            if name not in variables:
                raise BadInput(source, field, f"${{{name}}} is not set", f"Set {name}, or write the value here")
        return _VARIABLE.sub(lambda m: variables[m.group(1)], value)

    filled: dict[str, Any] = fill(raw, "")
    return filled


def _validate(raw: dict[str, Any], source: str) -> BatchFile:
    try:
        return BatchFile.model_validate(raw)
    except ValidationError as error:
        raise bad_input(error, source, BatchFile) from None


def bad_input(error: ValidationError, source: str, model: type[BaseModel], prefix: str = "") -> BadInput:
    """The first fault of a validation error as file, field and mend. Never shows the input's value."""
    first = error.errors(include_input=False, include_url=False)[0]
    loc = list(first["loc"])
    field = prefix + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc)
    field = field.lstrip(".") or "file"
    if first["type"] == "extra_forbidden":
        near = suggest(str(loc[-1]), _keys_at(model, loc[:-1]))
        return BadInput(source, field, "unknown key", near)
    return BadInput(
        source, field, first["msg"].removeprefix("Value error, "), "See the batch file reference in README.md"
    )


def _keys_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys allowed at a place of a model, found by walking its annotations."""
    here: Any = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {(f.alias or n): f.annotation for n, f in here.model_fields.items()}
            here = fields.get(str(part))
        else:
            here = next((a for a in reversed(get_args(here)) if a not in (None, type(None), ...)), None)
    for candidate in (here, *get_args(here)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return [f.alias or n for n, f in candidate.model_fields.items()]
    return []


def _complete(batch: BatchFile, source: str, folder: Path) -> BatchSpec:
    tasks = tuple(_task(entry, i, batch, source, folder) for i, entry in enumerate(batch.tasks))
    seen: dict[str, str] = {}
    for task in tasks:
        # branch names and folders on macOS do not tell upper from lower case
        if task.id in seen:
            raise BadInput(
                source, f"{task.field}.id", f"{task.id!r} is also {seen[task.id]}", "Give every task its own id"
            )
        seen[task.id] = task.field
    hosts = {name: _with_paths(host, folder) for name, host in batch.hosts.items()}
    return BatchSpec(name=batch.name, source=source, author=batch.author, hosts=hosts, tasks=tasks)


def _task(entry: TaskEntry, index: int, batch: BatchFile, source: str, folder: Path) -> TaskSpec:
    field, below = f"tasks[{index}]", batch.defaults
    route = entry.route.over(below.route)
    missing = [n for n in Route.model_fields if getattr(route, n) is None]
    if missing:
        raise BadInput(
            source, f"{field}.route.{missing[0]}", "is missing", f"Write it here or in defaults.route.{missing[0]}"
        )
    if route.host not in batch.hosts:
        raise BadInput(
            source, f"{field}.route.host", f"unknown host {route.host!r}", suggest(str(route.host), batch.hosts)
        )
    repo, base = entry.repo or below.repo, entry.base or below.base
    if not repo:
        raise BadInput(source, f"{field}.repo", "is missing", "Write a path or URL here or in defaults.repo")
    if re.search(r"://[^/@:]*:[^/@]*@", repo):
        mend = "Keep the password in a credential helper or an SSH key on the host"
        raise BadInput(source, f"{field}.repo", "holds a password, which would reach argv and logs", mend)
    try:
        limits = Limits.model_validate({**below.limits, **entry.limits})
    except ValidationError as error:
        raise bad_input(error, source, Limits, f"{field}.limits") from None
    asked = [a for a in (entry.ask_for_commit, below.ask_for_commit) if a is not None]
    return TaskSpec(
        id=entry.id,
        repo=repo if is_url(repo) else str(_resolved(Path(repo), folder)),
        base=base or "HEAD",
        instruction=_instruction(entry, field, source, folder),
        route=Route(**route.model_dump()),
        limits=limits,
        verify=entry.verify or below.verify,
        ask_for_commit=asked[0] if asked else True,
        field=field,
    )


def _instruction(entry: TaskEntry, field: str, source: str, folder: Path) -> str:
    if entry.instruction_file is not None:
        text, field = _read(_resolved(entry.instruction_file, folder)), f"{field}.instruction_file"
    else:
        text, field = entry.instruction or "", f"{field}.instruction"
    if not text.strip():
        raise BadInput(source, field, "is empty", "Say what the agent should do")
    if "\0" in text or len(text.encode()) > MAX_INSTRUCTION_BYTES:
        problem = f"is {len(text.encode())} bytes long, or holds a NUL; {MAX_INSTRUCTION_BYTES} bytes fit"
        raise BadInput(source, field, problem, "Put the details into a file of the repository and refer to it")
    return text.strip()


def _with_paths(host: HostSpec, folder: Path) -> HostSpec:
    files = {n: _resolved(p, folder) for n in ("key_file", "known_hosts") if (p := getattr(host, n)) is not None}
    return host.model_copy(update=files)


def _resolved(path: Path, folder: Path) -> Path:
    """Relative to the batch file, not to where the command was typed."""
    return (folder / path.expanduser()).resolve()

"""What a person would otherwise type: the environment of an agent, written for whoever will read it.

A key is never in it. It is referred to by the variable that may hold it, or by
a file that holds nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from overnight.env import EnvPatch
from overnight.failures import BadInput
from overnight.harnesses import HARNESSES, claude_code
from overnight.keyshape import variable as key_variable
from overnight.launch import Launch
from overnight.lockfile import ProviderLock, suggest
from overnight.routeenv import cloud_env, route_env, route_flags

_WHERE = "command line"
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,-]*")


class Format(StrEnum):
    """Who reads it."""

    SH = "sh"
    DOTENV = "dotenv"
    JSON = "json"
    SYSTEMD = "systemd"
    SETTINGS = "settings.json"


@dataclass(frozen=True)
class Wanted:
    """An environment to be written. `yours` are names that only the user can fill, with what belongs there.

    `flags` are those of a harness that is told of its provider on the command line, so no variable says it.
    """

    provider: str
    harness: str
    model: str
    env: EnvPatch
    sent_as: str
    yours: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def wanted(lock: ProviderLock, provider: str, harness: str, model: str | None = None, url: str | None = None) -> Wanted:
    """What the lock says of a pair, for one model: the first it lists, unless another is asked for.

    Args:
        url: Where a server of the user's own is, in place of what the lock says.

    Raises:
        BadInput: the lock has no such pair or model, or nobody said where the server is.
    """
    if provider in lock.environment_only:
        return _cloud(lock, provider, harness, model)
    if url and provider in lock.providers:
        lock = _moved(lock, provider, harness, url)
    wiring = lock.wiring(provider, harness, where=_WHERE, field="HARNESS")
    entry = lock.harness(harness, where=_WHERE, field="HARNESS")
    models = lock.providers[provider].models
    chosen = _model(provider, model, models)
    address = lock.providers[provider].endpoints[wiring.endpoint].url
    timing, flags = wiring.timing or entry.timing, entry.flags + wiring.flags
    told = route_flags(flags, address, chosen, timing) if any("{base_url}" in flag for flag in flags) else ()
    try:
        env = route_env(provider, wiring, entry, address, chosen, timing)
    except ValueError as error:
        place = f"providers.{provider}.harnesses.{harness}"
        raise BadInput("the lock", place, str(error), "State each variable once") from error
    sends = HARNESSES[harness].HEADER_OF if harness in HARNESSES else {}
    carried = [sends[name].wire for name in wiring.key_variables if name in sends]
    return Wanted(provider, harness, chosen, env, " and ".join(carried), flags=told)


def written(what: Wanted, form: Format) -> str:
    """The text, with a line end.

    Raises:
        BadInput: the format is one that the harness does not read, or that cannot say a value.
    """
    if form is Format.SETTINGS and what.harness != claude_code.NAME:
        problem = f"{what.harness} reads no settings.json"
        raise BadInput(_WHERE, "--format", problem, f"Use one of {', '.join(f for f in Format if f is not form)}")
    return _WRITERS[form](what)


def unsaid(what: Wanted, form: Format) -> list[str]:
    """What a person has to know beside the text, since the format has no room for it."""
    lines = _files(what)
    if what.flags:
        lines.append(f"the address is in no variable: {what.harness} has to be started with {shlex.join(what.flags)}")
    if form is not Format.SETTINGS:
        return lines
    lines += [
        f"{name} is not in it: a key has no place in a settings file; give it by the environment"
        for name in what.env.secrets()
    ]
    lines += [f"{name} is not in it: {why}; it is yours to set" for name, why in what.yours.items()]
    if what.env.absent():
        lines.append("what must be absent is set to nothing, which cancels it: a settings file cannot unset")
    return lines


def _files(what: Wanted) -> list[str]:
    if what.harness not in HARNESSES:
        return []
    written_there = HARNESSES[what.harness].home_files(Launch(what.harness, "", what.model))
    return [f"{what.harness} also reads ~/{name}, which stands in `--dry-run` of a batch" for name in written_there]


def _cloud(lock: ProviderLock, provider: str, harness: str, model: str | None) -> Wanted:
    entry = lock.environment_only[provider]
    if harness not in entry.harnesses:
        problem = f"unknown harness for {provider} {harness!r}"
        raise BadInput(_WHERE, "HARNESS", problem, suggest(harness, entry.harnesses))
    wiring = entry.harnesses[harness]
    chosen = _model(provider, model, entry.models)
    env = cloud_env(provider, wiring, lock.harness(harness, where=_WHERE, field="HARNESS"), chosen)
    return Wanted(provider, harness, chosen, env, wiring.wire, wiring.yours)


def _model(provider: str, asked: str | None, known: Mapping[str, object]) -> str:
    if asked is None and not known:
        raise BadInput(_WHERE, "--model", f"the lock knows no model of {provider}", "Give one with --model")
    if asked is not None and known and asked not in known:
        raise BadInput(_WHERE, "--model", f"unknown model of {provider} {asked!r}", suggest(asked, known))
    return asked or next(iter(known))


def _moved(lock: ProviderLock, provider: str, harness: str, url: str) -> ProviderLock:
    entry = lock.providers[provider]
    name = entry.harnesses[harness].endpoint if harness in entry.harnesses else ""
    if name not in entry.endpoints:
        return lock
    if not re.fullmatch(r"https?://[^\s\"'{}]*[^\s\"'/{}]", url):
        raise BadInput(_WHERE, "--url", f"{url!r} is no base URL", "Write http://ADDRESS:PORT, without a / at the end")
    endpoint = entry.endpoints[name].model_copy(update={"url": url})
    moved = entry.model_copy(update={"endpoints": {**entry.endpoints, name: endpoint}})
    return lock.model_copy(update={"providers": {**lock.providers, provider: moved}})


def _head(what: Wanted) -> str:
    return f"# {what.harness} with {what.provider}, {what.model}; the key is sent as {what.sent_as}"


def _line(text: str) -> str:
    """A reason as one line of comment, whatever an overlay wrote."""
    return " ".join(text.split())


def _sh(what: Wanted) -> str:
    lines = [_head(what)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in what.env.values().items()]
    for name, provider in what.env.secrets().items():
        lines.append(f'export {name}="${{{key_variable(provider)}:?the key of {provider} goes there}}"')
    for name, why in what.yours.items():
        lines.append(f'export {name}="${{{name}:?{_plain(why)}}}"')
    lines += [f"unset {name}  # {_line(why)}" for name, why in what.env.absent().items()]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Words that mean nothing to a shell inside double quotes and braces."""
    return re.sub(r"[^A-Za-z0-9 ,.:/-]", "", _line(text))


def _dotenv(what: Wanted) -> str:
    lines = [_head(what)]
    lines += [f"{name}={_dotenv_value(name, value)}" for name, value in what.env.values().items()]
    for name, provider in what.env.secrets().items():
        lines.append(f"{name}=${{{key_variable(provider)}}}")
    lines += [f"# yours to set: {name}, {_line(why)}" for name, why in what.yours.items()]
    lines += [f"# must not be set at all: {name}, {_line(why)}" for name, why in what.env.absent().items()]
    return "\n".join(lines) + "\n"


def _dotenv_value(name: str, value: str) -> str:
    """Readers of .env files agree on bare words and on single quotes; inside double ones some fill in `$`."""
    if _BARE.fullmatch(value):
        return value
    single = not set("'\\\n") & set(value)
    if "${" in value or ("$" in value and not single):
        problem = f"the value of {name} holds a $ that some readers would fill in"
        raise BadInput(_WHERE, "--format", problem, f"Use {Format.SH} or {Format.SYSTEMD}")
    if single:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _json(what: Wanted) -> str:
    secrets = {name: {"provider": each, "from": key_variable(each)} for name, each in what.env.secrets().items()}
    data = {
        "provider": what.provider,
        "harness": what.harness,
        "model": what.model,
        "sent_as": what.sent_as,
        "set": what.env.values(),
        "secret": secrets,
        "yours": dict(what.yours),
        "absent": what.env.absent(),
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _systemd(what: Wanted) -> str:
    lines = [_head(what), "[Service]"]
    lines += [f'Environment="{name}={_systemd_value(value)}"' for name, value in what.env.values().items()]
    for name, provider in what.env.secrets().items():
        lines.append(f"# readable by its owner alone, one line: {name}=KEY, without export and without quotes")
        lines.append(f"EnvironmentFile=%h/.config/overnight/{provider}.env")
    lines += [f"# yours to set: {name}, {_line(why)}" for name, why in what.yours.items()]
    for name, why in what.env.absent().items():
        lines += [f"# {_line(why)}", f"UnsetEnvironment={name}"]
    return "\n".join(lines) + "\n"


def _systemd_value(value: str) -> str:
    """As systemd.syntax(7) reads it: C escapes inside double quotes, and a doubled % for a specifier's."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")


def _settings(what: Wanted) -> str:
    env = {**what.env.values(), **dict.fromkeys(what.env.absent(), "")}
    return json.dumps({"env": dict(sorted(env.items()))}, indent=2, ensure_ascii=False) + "\n"


_WRITERS: Mapping[Format, Callable[[Wanted], str]] = {
    Format.SH: _sh,
    Format.DOTENV: _dotenv,
    Format.JSON: _json,
    Format.SYSTEMD: _systemd,
    Format.SETTINGS: _settings,
}

"""Sites as they are written on a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

from overnight.failures import BadInput
from overnight.lockfile import Header, suggest
from overnight.rehearsal.dialects import Shape
from overnight.rehearsal.faults import Fault
from overnight.rehearsal.site import Site

_ACCEPTS = {
    "both": frozenset(Header),
    "any": frozenset(Header),
    **{header.value: frozenset({header}) for header in Header},
}
_TRUTH = {"yes": True, "no": False}
_NAME = re.compile("[a-z0-9-]+")
_LISTS = ("models", "clients", "outside_plan")
_CLAIMS = ("balance", "refuses_both", "serves_here")
_SETTINGS = ("accepts", "shape", "answers_as", "elsewhere", *_LISTS, *_CLAIMS)

SITE_HELP = (
    "a provider; settings: accepts=bearer|x-api-key|both|any (any: no key is needed), "
    f"shape={'|'.join(get_args(Shape))}, models=A+B, answers_as=A, clients=PREFIX+PREFIX of the User-Agent, "
    "balance=yes|no, outside_plan=A+B (models), elsewhere=SITE+SITE (whose keys belong to another region of it), "
    "refuses_both=yes|no (keys in both headers), serves_here=yes|no"
)


def parse_sites(written: Sequence[str], failing: dict[str, Fault], key_of: Callable[[str], str]) -> list[Site]:
    """Read `NAME[,SETTING=VALUE...]` each. `key_of` gives the key of a site by its name.

    Raises:
        BadInput: names what is wrong; also a site twice, and a fault or `elsewhere` of a site that is not there.
    """
    names = [_name(text) for text in written]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            raise BadInput("--site", name, "is there twice", "Give each site a name of its own")
    for name in failing:
        if name not in names:
            raise BadInput("--fault", name, "no such site", suggest(name, names))
    return [_site(text, names, failing, key_of) for text in written]


def _name(text: str) -> str:
    name = text.partition(",")[0]
    if not _NAME.fullmatch(name):
        raise BadInput("--site", text, f"{name!r} cannot be part of a URL", "Use a-z, 0-9 and -")
    return name


def _site(text: str, names: Sequence[str], failing: dict[str, Fault], key_of: Callable[[str], str]) -> Site:
    name, *settings = text.split(",")
    written = dict(setting.partition("=")[::2] for setting in settings)
    fields: dict[str, Any] = {"needs_key": written.get("accepts") != "any"}
    for setting, value in written.items():
        _known(setting, _SETTINGS, text)
        if setting == "accepts":
            fields[setting] = _ACCEPTS[_known(value, tuple(_ACCEPTS), text)]
        elif setting == "shape":
            fields[setting] = cast(Shape, _known(value, get_args(Shape), text))
        elif setting == "elsewhere":
            fields["keys_elsewhere"] = tuple(key_of(_known(other, names, text)) for other in _several(value, text))
        elif setting in _CLAIMS:
            fields[setting] = _TRUTH[_known(value, tuple(_TRUTH), text)]
        else:
            fields[setting] = _several(value, text) if setting in _LISTS else value
    return Site(name, key_of(name), fault=failing.get(name), **fields)


def _several(value: str, where: str) -> tuple[str, ...]:
    """Parts between `+`. None may be empty: a User-Agent begins with every empty prefix."""
    parts = tuple(value.split("+"))
    if "" in parts:
        raise BadInput("--site", where, f"{value!r} has an empty part", "Write A+B")
    return parts


def _known(value: str, choices: Sequence[str], where: str) -> str:
    if value not in choices:
        raise BadInput("--site", where, f"unknown {value!r}", suggest(value, choices))
    return value

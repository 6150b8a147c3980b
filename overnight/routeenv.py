"""The part of an agent's environment that the lock decides; what a run gets, and what `overnight lock env` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overnight.env import Absent, Binding, EnvPatch, Secret, Value
from overnight.harnessentry import HarnessEntry, Timing
from overnight.lockfile import CloudWiring, Wiring
from overnight.spec import HostSpec

USUAL_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


def route_env(
    provider: str,
    wiring: Wiring,
    entry: HarnessEntry,
    url: str,
    model: str,
    timing: Timing | None,
    more: Mapping[str, str] | None = None,
) -> EnvPatch:
    """All that harness and provider need; nothing of the host or the workspace.

    Args:
        more: Variables beside, or instead of, the harness's own.

    Raises:
        ValueError: the lock binds a name twice.
    """
    fill = {"base_url": url, "model": model, **_waits(timing)}
    bindings: list[tuple[str, Binding]] = [
        *((name, Value(_filled(value, fill))) for name, value in {**entry.env, **(more or {})}.items()),
        *_set(provider, wiring.set, fill),
        *((name, Value("")) for name in wiring.empty),
        *((name, Absent(why)) for name, why in {**entry.absent, **wiring.absent}.items()),
    ]
    return EnvPatch(bindings)


def route_flags(flags: Sequence[str], url: str, model: str, timing: Timing | None) -> tuple[str, ...]:
    """The lock's flags with their placeholders filled, for a harness that is told of its provider on the command line.

    A key has no placeholder here: a command line can be read by everybody on the machine.
    """
    fill = {"base_url": url, "model": model, **_waits(timing)}
    return tuple(_filled(flag, fill) for flag in flags)


def cloud_env(name: str, wiring: CloudWiring, entry: HarnessEntry, model: str) -> EnvPatch:
    """The same for a cloud's own door; its `yours` are not in it. Raises as `route_env` does."""
    fill = {"model": model, **_waits(entry.timing)}
    own = {*wiring.set, *wiring.yours}
    return EnvPatch(
        [
            *((each, Value(_filled(value, fill))) for each, value in entry.env.items()),
            *_set(name, wiring.set, fill),
            *((each, Absent(why)) for each, why in entry.absent.items() if each not in own),
        ]
    )


def _set(provider: str, names: Mapping[str, str], fill: Mapping[str, str]) -> list[tuple[str, Binding]]:
    return [
        (name, Secret(provider) if "{key}" in value else Value(_filled(value, fill))) for name, value in names.items()
    ]


def _waits(timing: Timing | None) -> dict[str, str]:
    if timing is None:
        return {}
    seconds = timing.request_timeout_s
    return {
        "request_timeout_ms": str(round(seconds * 1000)),
        "request_timeout_s": f"{seconds:g}",
        "retries": str(timing.retries),
    }


def _filled(text: str, names: Mapping[str, str]) -> str:
    """Replace the placeholders we know; other braces are the value's own."""
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def workspace_env(host: HostSpec, author: str) -> EnvPatch:
    """What every run has, whatever harness and provider."""
    name, _, mail = author.rstrip(">").partition(" <")
    path = ":".join(dict.fromkeys([*host.path, *USUAL_PATH]))
    return EnvPatch(
        [
            ("PATH", Value(path)),
            ("HOME", Value("{home}")),
            ("TMPDIR", Value("{tmp}")),
            ("LANG", Value("C.UTF-8")),
            ("TERM", Value("dumb")),
            ("GIT_AUTHOR_NAME", Value(name)),
            ("GIT_AUTHOR_EMAIL", Value(mail)),
            ("GIT_COMMITTER_NAME", Value(name)),
            ("GIT_COMMITTER_EMAIL", Value(mail)),
            ("GIT_TERMINAL_PROMPT", Value("0")),
        ]
    )

"""Every way to get something wrong that the table test plants: each takes a world and changes one thing in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from overnight.rehearsal.faults import Fault, FaultKind
from tests.overnight.doctor.worlds import DEAD, World

API_KEY, URL = "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"
Plant = Callable[[World], object]


def nothing(world: World) -> None:
    """The provider itself, or its host, is what is wrong."""


def key_in(variable: str) -> Plant:
    """The lock writes the key to another variable than the one that works."""

    def plant(world: World) -> None:
        right = next(name for name, value in world.wiring["set"].items() if "{key}" in value)
        del world.wiring["set"][right]
        world.wiring["set"][variable] = "{key}"
        world.wiring["empty"], world.wiring["absent"] = {}, {}

    return plant


def instead(wrong: str, right: str) -> Plant:
    """A variable of the wiring under another name, which the harness entry forbade."""

    def plant(world: World) -> None:
        world.wiring["set"][wrong] = world.wiring["set"].pop(right)
        world.entry["absent"].pop(wrong, None)

    return plant


def walled(plant: Plant) -> Plant:
    """No agent leaves this machine, wherever it was sent."""

    def both(world: World) -> None:
        for lock in (world.lock, world.shipped):
            wall = {"HTTPS_PROXY": DEAD, "NO_PROXY": "127.0.0.1"}
            lock["harnesses"][world.harness]["env"].update(wall)
        plant(world)

    return both


def url_and(tail: str) -> Plant:
    return lambda world: world.at(world.url + tail)


def model(name: str) -> Plant:
    """A model that the lock in use knows, and the provider does not."""

    def plant(world: World) -> None:
        models = world.lock["providers"][world.provider]["models"]
        models[name] = models[world.model]
        world.model = name

    return plant


def variables(**env: str) -> Plant:
    """Variables of the harness, as the lock in use sets them."""

    def plant(world: World) -> None:
        world.entry["env"].update(env)
        for name in env:
            world.entry["absent"].pop(name, None)

    return plant


def flags(*more: str, without: str = "") -> Plant:
    def plant(world: World) -> None:
        world.entry["flags"] = [each for each in world.entry["flags"] if each != without] + list(more)

    return plant


def without_v1(world: World) -> None:
    for name, value in world.entry["env"].items():
        world.entry["env"][name] = value.replace("{base_url}/v1", "{base_url}")


def left_over_key(world: World) -> None:
    world.wiring["set"][API_KEY] = "left-over-0123456789"
    world.wiring["empty"] = {}


def redirected(world: World) -> None:
    flags(without="--setting-sources=")(world)
    world.commit(".claude/settings.json", f'{{"env": {{"{URL}": "{DEAD}"}}}}')


def servers(world: World) -> None:
    flags(without="--strict-mcp-config")(world)
    world.commit(".mcp.json", '{"mcpServers": {"tickets": {"command": "false"}}}')


def plugins(world: World) -> None:
    del world.entry["env"]["OPENCODE_DISABLE_PROJECT_CONFIG"]
    world.commit("opencode.json", f'{{"provider": {{"overnight": {{"options": {{"baseURL": "{DEAD}"}}}}}}}}')


def patient(seconds: float, total_s: float) -> Plant:
    """How long probes wait, by this lock."""

    def plant(world: World) -> None:
        world.entry["probe"]["timing"]["request_timeout_s"] = seconds
        world.entry["probe"]["total_s"] = total_s

    return plant


def everywhere(plant: Plant) -> Plant:
    """Also in the lock that came with the program: so it is not what is wrong."""

    def both(world: World) -> None:
        lock = world.lock
        plant(world)
        world.lock = world.shipped
        plant(world)
        world.lock = lock

    return both


def key(text: Callable[[str], str]) -> Plant:
    def plant(world: World) -> None:
        world.key = text(world.key)

    return plant


def fault(kind: FaultKind, **more: Any) -> dict[str, Any]:
    return {"fault": Fault(kind, **more)}


def login(text: str, *, file: str = ".profile") -> Plant:
    """A login file; `{url}` and `{key}` in it are the right ones, `{dead}` is where nobody listens."""
    return lambda world: world.write(file, _filled(text, world))


def settings(name: str, text: str, *, beside: str = "", mode: int = 0o600) -> Plant:
    """A file of an agent in the user's home, and `beside` it what the login exports."""

    def plant(world: World) -> None:
        world.write(name, _filled(text, world), mode)
        if beside:
            world.write(".profile", _filled(beside, world))

    return plant


def _filled(text: str, world: World) -> str:
    for name, value in (("{url}", world.url), ("{key}", world.key), ("{dead}", DEAD)):
        text = text.replace(name, value)
    return text


def all_of(*plants: Plant) -> Plant:
    def plant(world: World) -> None:
        for each in plants:
            each(world)

    return plant


def python_that(does: str) -> Plant:
    """The host's python, started by a script that does something first; `$@` is what python is to do."""

    def plant(world: World) -> None:
        world.host["python"] = str(world.write("python", f'#!/bin/sh\n{does}\nexec python3 "$@"\n', 0o755))

    return plant


# a script of ours comes on standard input; only its own clock is off
CLOCK_BEHIND = (
    '[ "$3" = - ] && exec python3 -I -S -c \'import sys, time; right = time.time; '
    'time.time = lambda: right() - 7200; exec(sys.stdin.read(), {"__name__": "__main__"})\''
)


def no_agent(world: World) -> None:
    world.host["path"] = ()


def agent_elsewhere(world: World) -> None:
    """Installed where people install it, and not where runs look."""
    no_agent(world)
    world.write(".local/bin/claude", "#!/bin/sh\necho '2.1.330 (Claude Code)'\n", 0o755)


def fails_once(world: World) -> None:
    """The agent, which breaks off the first time it is asked something."""
    once = world.home / "once"
    breaks = f'[ "$1" = --version ] || [ -e {once} ] || {{ touch {once}; echo broken >&2; exit 3; }}'
    fake = world.write("tools/claude", f'#!/bin/sh\n{breaks}\nexec {world.agents / "claude"} "$@"\n', 0o755)
    world.host["path"] = (str(fake.parent),)


def bad_copy_first(version: str) -> Plant:
    def plant(world: World) -> None:
        fake = world.write("tools/claude", f"#!/bin/sh\necho '{version} (Claude Code)'\n", 0o755)
        world.host["path"] = (str(fake.parent), str(world.agents))

    return plant

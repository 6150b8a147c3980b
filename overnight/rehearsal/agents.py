"""Gets a real agent CLI into a directory, in the one version the rehearsal is known to work with."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

from overnight.failures import Evidence, FailureError, FailureKind, fail
from overnight.harnesses import HARNESSES

INSTALL_S = 900
VERSION_S = 60
_LOCK = Path(__file__).with_name("agents.lock.json")

How = Literal["already there", "npm", "pip"]


class Agent(NamedTuple):
    """A command that was started and said its version. `path` is in a folder of its own, fit for a host's path."""

    path: Path
    version: str
    how: How


class _Source(BaseModel):
    """One registry's package; `binary` is a pattern below the directory it was installed to."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    requirement: str
    binary: str


class _Pin(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    version: str
    npm: _Source | None
    pip: _Source | None


class _NotThisWay(Exception):
    """This registry did not give a working command; the text says why."""


def obtain(
    harness: str,
    directory: Path,
    *,
    npm: str | None,
    pip: str | None,
    environment: Mapping[str, str],
    progress: Callable[[str], None],
) -> Agent:
    """Install the CLI of `harness` below `directory`; at once when it is there already.

    Downloads some 100 MB the first time. npm comes first, then pip. The command
    is taken straight from the platform's package, so install scripts, which npm
    may skip, are not needed. Safe to run twice at the same time.

    Args:
        harness: `claude-code`, `codex`, `goose` or `opencode`.
        directory: Kept between calls; the command is linked in its `bin`.
        npm: Path of npm, None when there is none.
        pip: Path of pip, None when there is none.
        environment: Added to a fresh PATH and an empty HOME: proxies, certificates, registry settings.
        progress: Told one line a step.

    Raises:
        FailureError: harness-missing, with what was tried and what came of it.
    """
    pin = _pins()[harness]
    link = directory / "bin" / HARNESSES[harness].COMMAND
    if _version(harness, link) == pin.version:
        return Agent(link, pin.version, "already there")
    ways: tuple[tuple[Literal["npm", "pip"], str | None, _Source | None], ...] = (
        ("npm", npm, pin.npm),
        ("pip", pip, pin.pip),
    )
    tried: list[Evidence] = []
    for how, tool, source in ways:
        try:
            binary = _install(how, tool, source, directory / f"{harness}-{pin.version}-{how}", environment, progress)
            _check(harness, binary, pin.version)
        except _NotThisWay as reason:
            progress(f"{harness}: not from {how}: {reason}")
            tried.append(Evidence(source="host", seen=f"{how}: {reason}"))
            continue
        _link(link, binary)
        progress(f"{harness} {pin.version} is in {link}")
        return Agent(link, pin.version, how)
    remedy = f"install node with npm, or put {HARNESSES[harness].COMMAND} {pin.version} into {link.parent}"
    raise FailureError(fail(FailureKind.HARNESS_MISSING, *tried, remedy=remedy))


def _pins() -> dict[str, _Pin]:
    return TypeAdapter(dict[str, _Pin]).validate_json(_LOCK.read_bytes())


def _install(
    how: Literal["npm", "pip"],
    tool: str | None,
    source: _Source | None,
    target: Path,
    environment: Mapping[str, str],
    progress: Callable[[str], None],
) -> Path:
    """The binary in `target`, which appears whole or not at all."""
    if source is None:
        raise _NotThisWay("no package of it there")
    if not target.is_dir():
        if tool is None:
            raise _NotThisWay(f"{how} is not installed")
        progress(f"getting {source.requirement} with {how}")
        _download(how, tool, source.requirement, target, environment)
    found = sorted(target.glob(source.binary))
    if not found:
        raise _NotThisWay(f"the package holds no {source.binary} for this machine")
    return found[0]


def _download(how: str, tool: str, requirement: str, target: Path, environment: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".getting-") as scratch:
        staged, home = Path(scratch, "staged"), Path(scratch, "home")
        home.mkdir()
        staged.mkdir()
        flags = {
            "npm": ["install", "--prefix", str(staged), "--no-audit", "--no-fund", "--ignore-scripts"],
            "pip": ["install", "--target", str(staged), "--no-deps", "--no-compile", "--no-cache-dir"],
        }
        # npm starts node by name and may live in another folder than node
        path = os.pathsep.join([str(Path(tool).parent), os.defpath, "/usr/local/bin"])
        env = {"PATH": path, "HOME": str(home), **environment}
        _run([tool, *flags[how], requirement], env, how)
        try:
            staged.rename(target)
        except OSError as error:
            if not target.is_dir():  # otherwise somebody else was faster, with the same content
                raise _NotThisWay(f"cannot be moved into place: {error.strerror}") from None


def _run(argv: list[str], env: dict[str, str], how: str) -> None:
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_S, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        raise _NotThisWay(f"{how} did not finish within {INSTALL_S} s") from None
    except OSError as error:
        raise _NotThisWay(f"{argv[0]} cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise _NotThisWay(f"{how} ended with {done.returncode}: {' / '.join(said[-3:])[:300]}")


def _check(harness: str, binary: Path, wanted: str) -> None:
    version = _version(harness, binary)
    if version != wanted:
        raise _NotThisWay(f"the command does not run, or is version {version} instead of {wanted}")


def _version(harness: str, binary: Path) -> str | None:
    """What the command says of itself; None when it is not there or does not run."""
    module = HARNESSES[harness]
    with tempfile.TemporaryDirectory() as home:
        try:
            done = subprocess.run(
                module.version_argv(str(binary)),
                env={"PATH": os.defpath, "HOME": home},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=VERSION_S,
                check=False,
                text=True,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
    return module.read_version(done.stdout)


def _link(link: Path, binary: Path) -> None:
    """Point `link` at `binary`, at once and for everybody."""
    link.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=link.parent) as scratch:
        fresh = Path(scratch, link.name)
        fresh.symlink_to(os.path.relpath(binary, link.parent))
        fresh.replace(link)

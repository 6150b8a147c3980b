"""Parts that the rehearsal's tests share: a provider to talk to, and the real agent CLIs when they are here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import httpx
import pytest

from overnight.lockfile import Header
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.model import Say, Shell, Tape, Write
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site

KEY = "fake-key-of-the-tests"

AWKWARD = "héllo 'q' \"d\" $HOME `x` \\n\r\nend\ttab\n\n"
"""Everything a shell, a JSON encoder or an editor could spoil."""

GREETING = Tape(
    "make the greeting",
    (
        Write("sub/greeting.txt", AWKWARD),
        Say("Now the commit."),
        Shell("git add -A && git commit -qm 'Add greeting'"),
        Say("All done."),
    ),
)

SITES = (
    Site("bearer", KEY),
    Site("header", KEY, accepts=frozenset({Header.X_API_KEY}), shape="anthropic"),
    Site("either", KEY, accepts=frozenset(Header), answers_as="another-model"),
)


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider(SITES, [GREETING]) as running:
        yield running


@pytest.fixture
def provider(shared_provider: EmulatedProvider) -> Iterator[EmulatedProvider]:
    """All sites well; `calls` may hold those of earlier tests."""
    yield shared_provider
    for site in SITES:
        shared_provider.set_fault(site.name, None)


@pytest.fixture(scope="session")
def bare() -> Iterator[httpx.Client]:
    """A client that sends no key. One for all, since making one reads the machine's certificates."""
    with httpx.Client(timeout=5, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """A client that sends the right key as a bearer."""
    with httpx.Client(headers=Header.BEARER.carry(KEY), timeout=5, trust_env=False) as client:
        yield client


@pytest.fixture
def program(real_agent: Callable[[str], Agent]) -> Callable[[str], str]:
    """Finds a real program: an agent CLI of ours, or one on the path. Absent: a skip, and a failure in CI."""

    def find(name: str) -> str:
        if name in ("claude", "goose"):
            return str(real_agent("claude-code" if name == "claude" else name).path)
        found = shutil.which(name)
        if found is not None:
            return found
        if os.environ.get("CI") == "true":
            pytest.fail(f"the real {name} is not installed, and CI skips nothing")
        pytest.skip(f"the real {name} is not installed")

    return find

"""What every test stands on: an empty environment, a HOME of its own, loopback only."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.rehearsal.agents import Agent, obtain

_KEPT = ("PATH", "LANG", "TMPDIR", "CI", "VIRTUAL_ENV")
_NETWORK = ("PROXY", "CERT", "CA_BUNDLE", "SSL", "PIP_", "NPM_", "NODE_EXTRA")
INSTALLER = {n: v for n, v in os.environ.items() if n == "PATH" or any(part in n.upper() for part in _NETWORK)}
"""What npm and pip need to reach their registries; not so in a worker, whose parent has cleared it all."""
AGENTS = Path(__file__).resolve().parent.parent / ".overnight" / "agents"


def _clear_environment() -> str:
    """Before anything imports prefect, which reads its settings once."""
    home = tempfile.mkdtemp(prefix="overnight-tests-")
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    os.environ.clear()
    os.environ.update(kept, HOME=home, PREFECT_HOME=f"{home}/prefect", DO_NOT_TRACK="1")
    Path(home, "prefect").mkdir()
    return home


HOME = Path(_clear_environment())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand `INSTALLER` on, where tests run side by side."""
    node.workerinput["installer"] = INSTALLER


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A real Prefect API with an empty database, for the whole session."""
    from prefect.testing.utilities import prefect_test_harness

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # the server would look for the internet
        with prefect_test_harness(server_startup_timeout=120):
            yield


@pytest.fixture(scope="session")
def real_agent(request: pytest.FixtureRequest) -> Callable[[str], Agent]:
    """Gets the real CLI of a harness, kept in `.overnight/agents`. Without it a test fails, it never skips."""

    installer = getattr(request.config, "workerinput", {}).get("installer", INSTALLER)

    def get(harness: str) -> Agent:
        npm, pip = shutil.which("npm"), shutil.which("pip")
        return obtain(harness, AGENTS, npm=npm, pip=pip, environment=installer, progress=lambda _: None)

    return get

"""A batch on this machine whose provider takes one key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.spec import HostSpec
from tests.overnight.nights import KEY, PYTHON, TAPES, Evening, make_lock, make_repo


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider([Site("well", KEY)], TAPES) as running:
        yield running


@pytest.fixture
def evening(provider: EmulatedProvider, tmp_path: Path) -> Evening:
    make_repo(tmp_path / "repo")
    host = HostSpec(kind="local", path=(PYTHON,), directory=str(tmp_path / "host"))
    return Evening(tmp_path, str(tmp_path / "repo"), host, make_lock(tmp_path / "lock.json", provider.url("well")))

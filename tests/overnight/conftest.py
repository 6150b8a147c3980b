"""A supervisor on this machine, and a follower of its runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.follow import Follower
from overnight.hosts.local import LocalHost
from overnight.remote import Remote
from tests.overnight.following import end_all


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(LocalHost(home=tmp_path), python=sys.executable)
    yield remote
    remote.close()
    end_all(tmp_path)


@pytest.fixture
def follower(remote: Remote) -> Iterator[Follower]:
    follower = Follower(remote)
    yield follower
    follower.close()

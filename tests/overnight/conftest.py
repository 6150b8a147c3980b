"""Small worlds that several modules share: a supervisor on this machine, a provider and a host, a desk for git."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.follow import Follower
from overnight.hosts.local import LocalHost
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost
from overnight.remote import Remote
from overnight.spec import HostSpec
from overnight.workspace import Workspaces
from tests.overnight.desks import Desk
from tests.overnight.following import end_all
from tests.overnight.nights import KEY, TAPES, Evening, loopback, make_lock, make_repo


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


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider([Site("well", KEY)], TAPES) as running:
        yield running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoopbackHost, HostSpec]]:
    with loopback(tmp_path_factory.mktemp("host")) as pair:
        yield pair


@pytest.fixture
def evening(host: tuple[LoopbackHost, HostSpec], provider: EmulatedProvider, tmp_path: Path) -> Evening:
    make_repo(tmp_path / "repo")
    lock = make_lock(tmp_path / "lock.json", provider.url("well"))
    return Evening(tmp_path, str(tmp_path / "repo"), host[1], lock)


@pytest.fixture(scope="module")
def desk_remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    remote = Remote(LocalHost("box", home=tmp_path_factory.mktemp("host")), python=sys.executable)
    yield remote
    remote.close()


@pytest.fixture
def desk(desk_remote: Remote, tmp_path: Path) -> Desk:
    runs = tmp_path / "runs"
    runs.mkdir()
    return Desk(make_repo(tmp_path / "my répo"), Workspaces(desk_remote), runs)

"""The embedded SSH host of the rehearsal keeps the same contract as a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.hosts.ssh import SshAddress, SshHost
from overnight.rehearsal.ssh import LoopbackHost, make_key
from tests.contracts.host import FullConnectionContract, HostContract


class TestLoopbackHost(HostContract, FullConnectionContract):
    @pytest.fixture
    def host(self, tmp_path: Path) -> Iterator[SshHost]:
        key_file = tmp_path / "key"
        with LoopbackHost("dev", [make_key(key_file)], home=tmp_path) as server:
            host = SshHost(SshAddress("box", server.address, server.port, "dev", key_file, server.host_key))
            yield host
            host.close()

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.hosts.local import LocalHost
from tests.contracts.host import HostContract, read_all


class TestLocalHost(HostContract):
    @pytest.fixture
    def host(self, tmp_path: Path) -> Iterator[LocalHost]:
        host = LocalHost(home=tmp_path)
        yield host
        host.close()

    def leading_to(self, port: int) -> int:
        return port

    def test_another_port_of_the_same_machine_is_refused(self, host: LocalHost) -> None:
        with pytest.raises(ValueError, match="is this machine"):
            host.forward(1, 2)

    def test_commands_get_nothing_of_our_environment(
        self, host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "inherited")
        channel = host.open("exec env")
        seen = dict(line.split("=", 1) for line in read_all(channel).decode().splitlines())
        channel.close()
        assert seen.pop("HOME") == str(tmp_path)
        assert set(seen) <= {"USER", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}
        assert "inherited" not in os.linesep.join(seen.values())

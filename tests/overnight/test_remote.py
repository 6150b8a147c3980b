"""Remote through the local host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from overnight.failures import HostError
from overnight.hosts.local import LocalHost
from overnight.remote import Remote
from tests.overnight.following import (
    BLOCK,
)
from tests.sshd import wait_until


class TestInstall:
    def test_installs_once_and_tells_facts(self, remote: Remote, tmp_path: Path) -> None:
        facts = remote.install()
        assert facts.root == str(tmp_path / ".overnight")
        assert facts.uid == os.getuid()
        assert facts.disk_free_bytes > 0
        assert remote.install() is facts
        assert len(list((tmp_path / ".overnight" / "lib").iterdir())) == 1

    def test_a_damaged_upload_is_replaced(self, remote: Remote, tmp_path: Path) -> None:
        remote.install()
        (path,) = (tmp_path / ".overnight" / "lib").iterdir()
        good = path.read_bytes()
        path.write_bytes(b"half of")
        Remote(LocalHost(home=tmp_path), python=sys.executable).install()
        assert path.read_bytes() == good

    def test_a_supervisor_that_was_cleaned_away_comes_back(self, remote: Remote, tmp_path: Path) -> None:
        remote.install()
        (path,) = (tmp_path / ".overnight" / "lib").iterdir()
        path.unlink()
        assert remote.execute(["/bin/true"]).code == 0, "what runs already needs no file"
        with pytest.raises(HostError, match="did not run our supervisor"):
            remote.follow()
        remote.follow().close()

    def test_login_files_may_print_what_they_like(self, tmp_path: Path) -> None:
        noisy = tmp_path / "noisy"
        noisy.write_text(f'#!/bin/sh\necho Welcome!\nprintf "no newline"\nexec {sys.executable} "$@"\n')
        noisy.chmod(0o755)
        remote = Remote(LocalHost(home=tmp_path), python=str(noisy))
        assert remote.execute(["/bin/echo", "clean"]).out == b"clean\n"
        remote.close()

    def test_a_host_without_python_is_unfit(self, tmp_path: Path) -> None:
        with pytest.raises(HostError) as raised:
            Remote(LocalHost(home=tmp_path), python="python-none").install()
        assert raised.value.failure.kind == "host-unfit"
        assert "exit code 127" in str(raised.value)
        assert "python-none" in str(raised.value)

    def test_a_root_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(HostError, match="supervisor could not be written"):
            Remote(LocalHost(home=tmp_path), root="file", python=sys.executable).install()

    def test_finds_commands_by_absolute_path(self, remote: Remote, tmp_path: Path) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\n")
        (tmp_path / "tool").chmod(0o755)
        found = remote.find(["tool", "sh", "no-such"], [str(tmp_path), "/bin"])
        assert found == {"tool": str(tmp_path / "tool"), "sh": "/bin/sh", "no-such": None}


class TestExecute:
    def test_code_output_and_errors(self, remote: Remote) -> None:
        done = remote.execute(["/bin/sh", "-c", "cat; echo bad >&2; exit 3"], input=BLOCK)
        assert (done.code, done.out, done.err, done.cannot_run) == (3, BLOCK, b"bad\n", None)

    def test_input_and_output_larger_than_any_buffer(self, remote: Remote) -> None:
        assert remote.execute(["/bin/cat"], input=BLOCK * 20).out == BLOCK * 20

    def test_output_beyond_the_limit_is_dropped_and_said(self, remote: Remote) -> None:
        done = remote.execute(["/bin/cat"], input=BLOCK, max_output_bytes=1000)
        assert (done.code, done.out, done.truncated) == (0, BLOCK[:1000], True)

    def test_the_environment_is_exact(self, remote: Remote, tmp_path: Path) -> None:
        done = remote.execute(["/bin/cat", "/proc/self/environ"], env={"ONLY": "this"}, cwd=str(tmp_path))
        assert done.out == b"ONLY=this\0"
        assert remote.execute(["/bin/pwd"], cwd=str(tmp_path)).out.decode() == f"{tmp_path}\n"

    def test_a_command_that_cannot_start_is_told_from_exit_127(self, remote: Remote) -> None:
        assert remote.execute(["/bin/sh", "-c", "exit 127"]).cannot_run is None
        done = remote.execute(["/no/such"])
        assert done.code == 127
        assert done.cannot_run == "exec: No such file or directory: /no/such"

    def test_time_runs_out_here_and_on_the_host(self, remote: Remote) -> None:
        argv = ["/bin/sleep", "61.25"]
        remote.install()
        with pytest.raises(TimeoutError):
            remote.execute(argv, timeout_s=0.5)
        wait_until(lambda: not any(process.info["cmdline"] == argv for process in psutil.process_iter(["cmdline"])))

    def test_a_pipe_is_the_command_itself(self, remote: Remote) -> None:
        channel = remote.pipe(["/bin/cat"])
        channel.send(BLOCK)
        received = b""
        while len(received) < len(BLOCK):
            received += channel.recv(65536, 5)
        assert received == BLOCK
        channel.close_input()
        assert channel.recv(1, 5) == b""
        assert channel.exit_code(5) == 0
        channel.close()

"""The supervisor through the local host: the real file, real processes, real files."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight.failures import HostError
from overnight.hosts.local import LocalHost
from overnight.remote import SOURCE, Remote, RunBounds, SecretSlot, StartAnswer, StartOrder
from tests.sshd import wait_until

pytestmark = pytest.mark.full  # many real processes: too slow for the fast tier

KEY = b"sk-fake-key-0123456789"
BOUNDS = RunBounds(total_s=30, grace_s=0.5, max_log_bytes=1_000_000, max_processes=200)


def shell(script: str, run_id: str = "run-1", **changes: Any) -> StartOrder:
    order = StartOrder(
        run_id=run_id,
        digest="d1",
        argv=("/bin/sh", "-c", script),
        limits=BOUNDS,
        env={"PATH": "/usr/bin:/bin", "HOME": "{home}", "TMPDIR": "{tmp}"},
    )
    return replace(order, **changes)


def record(answer: StartAnswer, name: str) -> dict[str, Any]:
    """One of the run's records, as soon as it is there."""
    path = Path(answer.run_dir) / name
    wait_until(path.exists, 15)
    read: dict[str, Any] = json.loads(path.read_bytes())
    return read


def output(answer: StartAnswer) -> bytes:
    record(answer, "exit.json")
    return (Path(answer.run_dir) / "out").read_bytes()


def living(run_id: str) -> list[int]:
    """Processes that carry the run's mark."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        marked = (process.info["environ"] or {}).get("OVERNIGHT_RUN_ID") == run_id
        if marked and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


class TestStart:
    def test_the_child_gets_exactly_the_ordered_environment(
        self, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "inherited")
        order = shell("", argv=("/bin/cat", "/proc/self/environ"), secrets=(SecretSlot("A_KEY", "zai"),))
        answer = remote.start(order, [KEY])
        run = answer.run_dir
        expected = {
            f"A_KEY={KEY.decode()}",
            f"HOME={run}/home",
            "OVERNIGHT_RUN_ID=run-1",
            "PATH=/usr/bin:/bin",
            f"TMPDIR={run}/tmp",
        }
        assert set(output(answer).decode().rstrip("\0").split("\0")) == expected

    def test_the_child_reads_from_nowhere_and_starts_in_its_home(self, remote: Remote) -> None:
        answer = remote.start(shell("readlink /proc/self/fd/0; pwd; ls /proc/self/fd | wc -l"))
        assert output(answer).decode() == f"/dev/null\n{answer.run_dir}/home\n4\n"  # 0, 1, 2 and that of ls itself

    def test_several_secrets_reach_their_own_variables(self, remote: Remote) -> None:
        order = shell('echo "$A-$B"', secrets=(SecretSlot("A", "x"), SecretSlot("B", "y")))
        assert output(remote.start(order, [b"first", b"second"])) == b"first-second\n"

    def test_a_secret_is_nowhere_but_in_the_child(self, remote: Remote, tmp_path: Path) -> None:
        answer = remote.start(shell("exec sleep 20", secrets=(SecretSlot("A_KEY", "zai"),)), [KEY])
        started = record(answer, "started.json")
        assert KEY in Path(f"/proc/{started['pid']}/environ").read_bytes()
        assert KEY not in memory(started["supervisor"])
        [server] = [p for p in psutil.Process().children() if p.cmdline()[-1:] == ["serve"]]
        assert KEY not in memory(server.pid), "through which it came, as others will"
        for process in psutil.process_iter(["cmdline"]):
            assert KEY.decode() not in " ".join(process.info["cmdline"] or [])
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or KEY not in path.read_bytes(), path
        os.kill(started["supervisor"], signal.SIGTERM)
        record(answer, "exit.json")

    def test_files_are_made_below_home_for_us_alone(self, remote: Remote) -> None:
        order = shell("cat $HOME/.config/agent/settings.json", files={".config/agent/settings.json": "{é}"})
        answer = remote.start(order)
        assert output(answer).decode() == "{é}"
        assert os.stat(answer.run_dir).st_mode & 0o777 == 0o700

    def test_a_file_outside_home_is_refused_and_nothing_starts(self, remote: Remote) -> None:
        with pytest.raises(HostError, match="not below home"):
            remote.start(shell("true", files={"../../evil": ""}))
        assert output(remote.start(shell("echo clean start"))) == b"clean start\n"

    def test_placeholders_are_filled_except_in_prose(self, remote: Remote) -> None:
        order = shell("", argv=("/bin/echo", "--settings={home}/s", "write {home} into the file"))
        answer = remote.start(order)
        assert output(answer).decode() == f"--settings={answer.run_dir}/home/s write {{home}} into the file\n"

    def test_six_starts_at_once_make_one_process(self, remote: Remote, tmp_path: Path) -> None:
        remote.install()
        count = tmp_path / "count"
        answers: list[StartAnswer] = []
        order = shell(f"echo $$ >> {count}; sleep 0.5")
        threads = [threading.Thread(target=lambda: answers.append(remote.start(order))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(answer.answer for answer in answers) == ["already"] * 5 + ["started"]
        record(answers[0], "exit.json")
        assert len(count.read_text().splitlines()) == 1
        assert remote.start(order).state == "finished"

    def test_another_order_under_the_same_id_is_a_conflict(self, remote: Remote) -> None:
        record(remote.start(shell("true")), "exit.json")
        assert remote.start(shell("false", digest="d2")).answer == "conflict"

    def test_secrets_that_never_come_leave_nothing_behind(self, remote: Remote) -> None:
        order = shell("echo again", secrets=(SecretSlot("A_KEY", "zai"),))
        path = remote.host.open(f"exec {sys.executable} -I -S {supervisor(remote)} start")
        path.send(json.dumps(order.record(".overnight", [KEY])).encode() + b"\n" + KEY[:4])
        path.close_input()
        said = b"".join(iter(lambda: path.recv(65536, 10), b""))
        path.close()
        assert b'"error"' in said
        assert b"connection ended" in said
        assert not (Path(remote.install().root) / "runs" / "run-1" / "claim").exists()
        assert remote.start(order, [KEY]).answer == "started"

    def test_a_connection_that_ends_during_the_start_does_not_end_the_run(self, remote: Remote) -> None:
        order = shell("sleep 0.3; echo survived", secrets=(SecretSlot("A_KEY", "zai"),))
        channel = remote.host.open(f"exec {sys.executable} -I -S {supervisor(remote)} start")
        channel.send(json.dumps(order.record(".overnight", [KEY])).encode() + b"\n" + KEY)
        channel.recv(10, 5)
        remote.host.drop()
        wait_until(lambda: remote.start(order, [KEY]).state == "finished")
        assert output(remote.start(order, [KEY])) == b"survived\n"

    def test_a_full_disk_is_named_and_leaves_no_claim(self, remote: Remote, tmp_path: Path) -> None:
        if os.getuid() != 0:
            pytest.skip("mounting a small file system needs root")
        root = tmp_path / "small"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", root], check=True)
        try:
            small = Remote(LocalHost(home=tmp_path), root=str(root), python=sys.executable)
            small.install()
            (root / "filler").write_bytes(b"x" * 4096)
            with contextlib.suppress(OSError), (root / "filler").open("ab") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
            with pytest.raises(HostError, match="No space left"):
                small.start(shell("true"))
            (root / "filler").unlink()
            assert output(small.start(shell("echo room"))) == b"room\n"
        finally:
            wait_until(lambda: not living("run-1"))
            time.sleep(0.3)  # the supervisor's last step
            subprocess.run(["umount", "-l", root], check=True)


class TestExecFailures:
    @pytest.mark.parametrize(
        ("first_line", "mode", "words"),
        [
            (None, 0, "No such file or directory"),
            ("#!/no/such/interpreter\n", 0o755, "interpreter its first line names is not"),
            ("echo no shebang\n", 0o755, "Exec format error"),
            ("#!/bin/sh\n", 0o644, "Permission denied"),
        ],
    )
    def test_a_command_that_cannot_start_is_no_exit_127(
        self, remote: Remote, tmp_path: Path, first_line: str | None, mode: int, words: str
    ) -> None:
        command = tmp_path / "agent"
        if first_line is not None:
            command.write_text(first_line)
            command.chmod(mode)
        end = record(remote.start(shell("", argv=(str(command),))), "exit.json")
        assert words in end["exec_error"]
        assert str(command) in end["exec_error"]

    def test_a_command_that_exits_127_is_not_an_exec_error(self, remote: Remote) -> None:
        end = record(remote.start(shell("exit 127")), "exit.json")
        assert (end["code"], end["exec_error"]) == (127, None)

    def test_a_missing_working_directory_is_named(self, remote: Remote) -> None:
        end = record(remote.start(shell("true", cwd="/no/such/place")), "exit.json")
        assert end["exec_error"] == "cwd: No such file or directory: /no/such/place"


class TestEnd:
    def test_code_signal_and_memory_are_recorded(self, remote: Remote) -> None:
        end = record(remote.start(shell("exit 7")), "exit.json")
        assert (end["reason"], end["code"], end["signal"], end["survivors"]) == ("exited", 7, None, 0)
        assert end["max_rss_bytes"] > 100_000
        end = record(remote.start(shell("kill -SEGV $$", "run-2")), "exit.json")
        assert (end["code"], end["signal"]) == (None, signal.SIGSEGV)

    def test_total_s_ends_the_tree(self, remote: Remote) -> None:
        order = shell("sleep 60 & setsid sleep 60 & wait", limits=replace(BOUNDS, total_s=0.5))
        end = record(remote.start(order), "exit.json")
        assert end["reason"] == "total_s"
        assert end["seconds"] < 3
        assert living("run-1") == []

    def test_a_log_that_grows_too_big_ends_the_run(self, remote: Remote) -> None:
        end = record(remote.start(shell("exec yes")), "exit.json")
        assert end["reason"] == "max_log_bytes"
        assert living("run-1") == []

    def test_what_ignores_term_and_daemonises_is_killed_after_grace(self, remote: Remote) -> None:
        stubborn = "trap '' TERM; (trap '' TERM; setsid sh -c 'sleep 60; sleep 60' &) ; while :; do sleep 1; done"
        answer = remote.start(shell(stubborn))
        wait_until(lambda: len(living("run-1")) >= 3)
        os.kill(record(answer, "started.json")["supervisor"], signal.SIGTERM)
        end = record(answer, "exit.json")
        assert (end["reason"], end["signal"]) == ("request", signal.SIGKILL)
        assert living("run-1") == []

    def test_a_chain_that_forks_and_dies_is_ended(self, remote: Remote) -> None:
        # bounded by itself as well: root is not bound by RLIMIT_NPROC
        chain = "import os, time\nfor _ in range(20000):\n    if os.fork(): os._exit(0)\n    time.sleep(0.001)\n"
        answer = remote.start(shell("", argv=(sys.executable, "-I", "-S", "-c", chain)))
        end = record(answer, "exit.json")
        assert end["reason"] == "exited"
        assert living("run-1") == []

    def test_leftovers_are_counted_and_ended(self, remote: Remote) -> None:
        end = record(remote.start(shell("setsid sleep 60 & sleep 60 & sleep 0.2; exit 0")), "exit.json")
        assert (end["reason"], end["code"], end["survivors"]) == ("exited", 0, 2)
        assert living("run-1") == []

    def test_the_child_is_confined(self, remote: Remote) -> None:
        processes = psutil.process_iter(["num_threads", "uids"])  # as dicts: one that ends meanwhile raises nothing
        before = sum(
            p.info["num_threads"] or 0 for p in processes if p.info["uids"] and p.info["uids"].real == os.getuid()
        )
        text = output(remote.start(shell("ulimit -c; cat /proc/self/limits; cat /proc/self/status")))
        lines = {line.split("  ")[0].strip(): line for line in text.decode().splitlines()}
        allowed = int(lines["Max processes"].split()[2])
        assert abs(allowed - before - 200) < 60
        assert text.startswith(b"0\n")
        ignored = next(line for line in text.decode().splitlines() if line.startswith("SigIgn"))
        reset = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGXFSZ)
        assert not int(ignored.split()[1], 16) & sum(1 << (number - 1) for number in reset)


class TestDeath:
    def state(self, remote: Remote) -> str | None:
        return remote.start(shell("exec sleep 60")).state

    def test_a_dead_supervisor_leaves_an_orphan(self, remote: Remote) -> None:
        answer = remote.start(shell("exec sleep 60"))
        started = record(answer, "started.json")
        assert self.state(remote) == "running"
        os.kill(started["supervisor"], signal.SIGKILL)
        wait_until(lambda: self.state(remote) == "orphaned")
        os.kill(started["pid"], signal.SIGKILL)
        wait_until(lambda: self.state(remote) == "lost")

    def test_another_boot_means_lost(self, remote: Remote) -> None:
        answer = remote.start(shell("exec sleep 60"))
        started = record(answer, "started.json")
        for name in ("supervisor", "pid"):
            os.kill(started[name], signal.SIGKILL)
        (Path(answer.run_dir) / "started.json").write_text(json.dumps({**started, "boot_id": "another"}))
        wait_until(lambda: self.state(remote) == "lost")

    def test_a_run_directory_that_vanishes_ends_the_run(self, remote: Remote) -> None:
        answer = remote.start(shell("exec sleep 60"))
        record(answer, "started.json")
        Path(answer.run_dir).rename(Path(answer.run_dir).with_name("moved"))
        wait_until(lambda: not living("run-1"))


def test_the_heartbeat_shows_work(remote: Remote, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    script = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; echo spoke; sleep 60"
    answer = remote.start(shell(script, cwd=str(work)))
    path = Path(answer.run_dir) / "hb"

    def beat() -> dict[str, Any]:
        read: dict[str, Any] = json.loads(path.read_bytes())
        return read

    wait_until(lambda: beat()["cpu_s"] > 0.05 and beat()["spoke_at_s"] > record(answer, "started.json")["boot_s"])
    assert path.stat().st_size == 4096
    assert beat()["processes"] == 2
    assert beat()["work_changed_at_s"] <= beat()["at_s"] <= time.monotonic()
    os.kill(record(answer, "started.json")["supervisor"], signal.SIGTERM)
    record(answer, "exit.json")


def test_the_file_is_readable_for_the_oldest_python_and_imports_nothing_of_ours() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def supervisor(remote: Remote) -> str:
    return str(next(Path(remote.install().root, "lib").glob("supervisor-*.py")))


def memory(pid: int) -> bytes:
    """Everything the process holds in writable memory."""
    held = bytearray()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(part, 16) for part in span.split("-"))
                mem.seek(start)
                with contextlib.suppress(OSError):
                    held += mem.read(end - start)
    return bytes(held)


def test_the_folder_it_works_in_can_be_named_in_its_environment(remote: Remote, tmp_path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "RULES": "{cwd}/AGENTS.md"}
    answer = remote.start(shell('echo "$RULES"', cwd=str(tmp_path), env=env))
    assert output(answer).decode() == f"{tmp_path}/AGENTS.md\n"

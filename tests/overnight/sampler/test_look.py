"""A look as the follower takes it: in a child of its own, beside everything else, whatever becomes of it."""

from __future__ import annotations

import ast
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight import sampler
from overnight.events import Output, Sampled, Started
from overnight.follow import Follower
from overnight.remote import SOURCE, Remote
from overnight.sample import Sample, read_sample
from overnight.sampler.look import sampled
from tests.overnight.following import Watching, kill_supervisor, python, shell
from tests.overnight.sampler.conftest import Run
from tests.sshd import wait_until

SUPERVISOR = runpy.run_path(str(SOURCE))


def look(run_dir: str, **changes: Any) -> Sample:
    """A look without a follower in between."""
    path = Path(run_dir)
    run = SUPERVISOR["RunDir"](str(path.parent.parent), path.name)
    return read_sample(json.loads(json.dumps(sampled(run, 0.1, {**SUPERVISOR, **changes}))))


def far_follower(home: Path) -> psutil.Process:
    (found,) = [
        each
        for each in psutil.process_iter(["cmdline", "cwd"])
        if each.info["cwd"] == str(home) and (each.info["cmdline"] or [""])[-1] == "follow"
    ]
    return found


@pytest.mark.full
class TestThroughTheFollower:
    def test_other_runs_are_told_meanwhile(self, run: Run, tmp_path: Path) -> None:
        chatty = "import time\nwhile True: print('x', flush=True); time.sleep(0.05)"
        run.start(python("r1", chatty))
        assert run.watching is not None
        run.watching.until(lambda event: isinstance(event, Output))
        before = len(run.watching.told)
        assert run.ask(seconds=2).sample is not None
        assert sum(isinstance(event, Output) for event in run.watching.told[before:]) > 2

    def test_two_who_ask_at_once_get_one_answer(self, run: Run, follower: Follower) -> None:
        run.start(shell("r1", "sleep 60"))
        follower.sample("r1", 1.0)
        run.ask(1.0)
        run.end()
        assert run.watching is not None
        assert sum(isinstance(event, Sampled) for event in run.watching.told) == 1
        run.watching = None

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("surprise", "NameError: name 'surprise' is not defined"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGALRM)", "the look did not come to its end, status 14"),
        ],
    )
    def test_a_look_that_fails_says_so(self, run: Run, monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
        run.start(shell("r1", "sleep 60"))
        with monkeypatch.context() as patch:
            patch.setattr(sampler, "code", lambda: [("overnight.sampler.look", code)])
            assert run.ask() == Sampled(None, words)
        assert run.ask().sample is not None

    def test_the_child_that_looks_is_none_of_the_run_and_is_collected(self, run: Run, tmp_path: Path) -> None:
        run.start(shell("r1", "sleep 60"))
        follower = far_follower(tmp_path)
        sample = run.ask().sample
        assert sample is not None
        assert sorted(each.command for each in sample.processes) in (["sleep 60"], ["/bin/sh -c sleep 60", "sleep 60"])
        assert follower.children() == []

    def test_no_look_outlives_its_follower(self, remote: Remote, tmp_path: Path) -> None:
        remote.start(shell("r1", "sleep 60"))
        follower = Follower(remote)
        watching = Watching(follower, "r1", tmp_path / "copies")
        watching.until(lambda event: isinstance(event, Started))
        watching.copy.close()
        far = far_follower(tmp_path)
        follower.sample("r1", 600)
        wait_until(lambda: bool(far.children()), 30)
        (child,) = far.children()
        follower.close()
        wait_until(lambda: not child.is_running(), 10)

    def test_a_run_that_is_not_watched_is_not_asked_for(self, follower: Follower) -> None:
        follower.sample("never")


@pytest.mark.full
class TestWithout:
    def test_a_run_whose_supervisor_died_is_known_by_its_mark(self, remote: Remote) -> None:
        answer = remote.start(shell("r1", "sleep 61; :"))
        kill_supervisor(answer.pid)
        seen = look(answer.run_dir)
        assert (seen.supervised, seen.ended) == (False, False)
        assert "sleep 61" in [each.command for each in seen.processes]

    def test_a_run_that_ended_has_no_processes(self, remote: Remote) -> None:
        answer = remote.start(shell("r1", "echo hi"))
        wait_until((Path(answer.run_dir) / "exit.json").exists, 30)
        seen = look(answer.run_dir)
        assert (seen.ended, seen.processes, seen.came, seen.out_bytes) == (True, (), None, 3)

    def test_system_calls_that_only_an_ancestor_may_read(self, remote: Remote) -> None:
        answer = remote.start(shell("r1", "sleep 61; :"))

        def calls() -> set[tuple[str, str]]:
            return {(each.command, each.syscall) for each in look(answer.run_dir, call_of=lambda pid: None).processes}

        wait_until(lambda: ("sleep 61", "clock_nanosleep") in calls(), 30)

    def test_what_may_not_be_read_is_named(self, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused() -> None:
            raise PermissionError(1, "no")

        answer = remote.start(shell("r1", "sleep 61; :"))
        monkeypatch.setattr("overnight.sampler.kernel.by_netlink", refused)
        monkeypatch.setattr("overnight.sampler.look.memory", refused)
        seen = look(answer.run_dir, call_of=lambda pid: None, kill=lambda pids, number: 0)
        assert {"connections by netlink", "memory", "system calls"} <= {each.split(":")[0] for each in seen.missing}
        assert seen.memory_available_bytes is None
        assert len(seen.processes) >= 1


def test_what_a_host_did_not_say_is_unknown_and_what_we_do_not_know_is_dropped() -> None:
    assert read_sample({}) == Sample()
    record = {"schema": 9, "new": 1, "processes": [{"pid": 7, "new": 1, "locks": [{"file": "/f", "new": 1}]}]}
    (process,) = read_sample(record).processes
    assert (process.pid, process.cpu_s, process.locks[0].file, process.locks[0].holder) == (7, None, "/f", None)


def test_the_modules_are_readable_for_the_oldest_python_and_import_each_other_in_order() -> None:
    known = set(sys.stdlib_module_names)
    for name, text in sampler.code():
        tree = ast.parse(text, feature_version=(3, 8))
        imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert all(module in known or module.split(".")[0] in sys.stdlib_module_names for module in imported), name
        known.add(name)


def test_every_module_travels() -> None:
    folder = Path(sampler.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(sampler.PARTS)
    assert os.path.basename(folder) == "sampler"

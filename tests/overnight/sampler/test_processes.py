"""What a sample shows of real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.overnight.following import KEY, python, shell
from tests.overnight.sampler.conftest import Run

pytestmark = pytest.mark.full  # each a real run with its follower


def test_the_main_process_and_a_sleeping_child(run: Run) -> None:
    run.start(shell("r1", "sleep 61; :"))
    child = run.child("sleep 61", lambda each: each.syscall)
    assert (child.syscall, child.stdin, child.main) == ("clock_nanosleep", "/dev/null", False)
    assert "nanosleep" in child.waits_in
    main = run.child("/bin/sh", lambda each: each.syscall)
    assert (main.pid, main.main, main.syscall) == (run.answer.pid, True, "wait4")
    assert child.parent == main.pid


def test_a_busy_child(run: Run) -> None:
    run.start(shell("r1", "cat /dev/zero > /dev/null & wait"))
    child = run.child("cat /dev/zero", lambda each: each.cpu_delta_s)
    assert child.wait_delta_s is not None
    assert (child.read_delta_bytes or 0) > 0


def test_a_child_that_waits_for_a_lock(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "the lock"
    run.start(shell("r1", f"exec 9>'{file}'; flock 9; flock '{file}' true & wait"))
    child = run.child("flock", lambda each: each.locks and each.syscall)
    assert child.syscall.startswith("flock(")
    (lock,) = child.locks
    assert (lock.file, lock.kind) == (str(file), "flock")


def test_a_child_that_waits_for_input(run: Run) -> None:
    program = "import subprocess; subprocess.Popen(['/bin/sh', '-c', 'cat'], stdin=subprocess.PIPE).wait()"
    run.start(python("r1", program))
    child = run.child("cat", lambda each: each.syscall == "read(0)")
    assert (child.stdin, child.fed_by, child.reads_stdin) == ("pipe", None, True)


def test_the_second_of_a_pipeline_waits_for_the_first(run: Run) -> None:
    run.start(shell("r1", "sleep 61 | cat; true"))
    child = run.child("cat", lambda each: each.fed_by)
    assert (child.fed_by, child.reads_stdin) == (run.child("sleep").pid, False)


def test_a_stopped_child(run: Run) -> None:
    run.start(shell("r1", "sleep 61 & kill -STOP $!; wait"))
    assert not run.child("", lambda each: each.state == "T").main


def test_children_that_come_and_go(run: Run) -> None:
    run.start(shell("r1", "while :; do sleep 0.01; done"))
    assert run.seen(lambda sample: sample.came and sample.went)


def test_a_key_in_arguments_is_masked_even_where_it_is_cut_off(run: Run) -> None:
    shells = "import os, subprocess; sh = ['/bin/sh', '-c', 'sleep 61; :', 'x', os.environ['A_KEY']]"
    twice = "subprocess.Popen(sh); sh[2:4] = ['sleep 62; :', 'x' * 160]; subprocess.run(sh)"
    run.start(python("r1", f"{shells}; {twice}", secret=True), KEY)
    assert run.child("/bin/sh -c sleep 61").command == "/bin/sh -c sleep 61; : x " + "*" * len(KEY)
    cut = run.child("/bin/sh -c sleep 62").command
    assert (len(cut), cut[-17:]) == (200, " " + "*" * 16)
    assert KEY[:8].decode() not in repr(run.ask())

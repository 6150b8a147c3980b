"""Whole attempts over SSH: what a night writes down, takes up again, and never shows."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.failures import FailureError, FailureKind
from overnight.night import Night, Stages
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.model import Shell, Tape
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from tests.overnight.nights import COMMIT, KEY, TAPES, Evening, carry_out, commit, git, loopback, make_lock, make_repo

K = FailureKind
LEAKY = Tape("Show the environment", (Shell("env | sort"), Shell(COMMIT)))
ENVIRONMENT = "env > seen-by-the-check; cat seen-by-the-check"


@pytest.fixture(scope="module")
def provider() -> Iterator[EmulatedProvider]:
    with EmulatedProvider([Site("well", KEY)], [*TAPES, LEAKY]) as running:
        yield running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoopbackHost, HostSpec]]:
    with loopback(tmp_path_factory.mktemp("night")) as pair:
        yield pair


@pytest.fixture
def evening(host: tuple[LoopbackHost, HostSpec], provider: EmulatedProvider, tmp_path: Path) -> Evening:
    make_repo(tmp_path / "repo")
    lock = make_lock(tmp_path / "lock.json", provider.url("well"))
    return Evening(tmp_path, str(tmp_path / "repo"), host[1], lock)


def script(*steps: str) -> str:
    return "\n".join(["```script", *steps, "```"])


COMMITS = script(f'{{"sh": "{COMMIT}"}}')


def work_of(host: tuple[LoopbackHost, HostSpec], run_id: str) -> Path:
    key = host[1].key_file
    assert key is not None
    return key.parent / "home" / ".overnight" / "runs" / run_id


def test_an_attempt_from_instruction_to_commit(evening: Evening) -> None:
    task = evening.task("t", "Add a greeting", verify="test -s greeting.txt")
    with evening.night(task, batch_id="whole") as night:
        run = carry_out(night, task)
        assert night.ledger.outcome("whole.t.1") == run
    assert (run.state, run.failure, run.branch) == ("succeeded", None, "overnight/whole/t")
    assert [c.subject for c in run.commits] == ["Add greeting"]
    assert run.verify is not None
    assert (run.verify.exit_code, run.harness_version, run.claims) == (0, "1", None)
    assert git(evening.directory / "repo", "show", "overnight/whole/t:greeting.txt") == "hello"
    saved = evening.state / "batches" / "whole" / "runs" / "whole.t.1"
    assert {p.name for p in saved.iterdir()} >= {"plan.json", "handle.json", "outcome.json", "events.jsonl", "out"}


@pytest.mark.full
def test_a_check_that_fails_keeps_the_commits_and_shows_its_words(evening: Evening) -> None:
    task = evening.task("t", COMMITS, verify="echo 'two tests failed' >&2; exit 3")
    with evening.night(task, batch_id="failing") as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert run.verify is not None
    assert (run.failure.kind, run.verify.exit_code, len(run.commits)) == (K.VERIFY_FAILED, 3, 1)
    assert "ended with 3" in run.failure.evidence[0].seen
    assert "two tests failed" in run.failure.evidence[0].seen


@pytest.mark.full
def test_a_check_gets_no_key_and_touches_nothing_that_came_home(
    evening: Evening, host: tuple[LoopbackHost, HostSpec]
) -> None:
    task = evening.task(
        "t", COMMITS, verify=f"{ENVIRONMENT}; rm greeting.txt; git -c user.name=X -c user.email=x@x commit -qam gone"
    )
    with evening.night(task, batch_id="clean") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.verify.exit_code == 0
    names = {line.partition("=")[0] for line in run.verify.tail.splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "TMPDIR", "LANG", "TERM", "OVERNIGHT_RUN_ID"}
    assert KEY not in run.verify.tail
    work = work_of(host, "clean.t.1") / "work"
    assert (work / "greeting.txt").read_text() == "hello\n"
    assert git(work, "rev-parse", "HEAD") == run.commits[-1].sha
    assert not (work / "seen-by-the-check").exists()
    assert git(evening.directory / "repo", "rev-parse", "overnight/clean/t") == run.commits[-1].sha


@pytest.mark.full
def test_a_check_that_does_not_end_is_ended_with_all_it_started(
    evening: Evening, host: tuple[LoopbackHost, HostSpec]
) -> None:
    evening.limits = evening.limits.model_copy(update={"total_s": 2.0})
    pids = evening.directory / "pids"
    verify = f"for n in 1 2; do sleep 60 & echo $! >> {pids}; done; (trap '' TERM; sleep 60) & echo $! >> {pids}; wait"
    task = evening.task("t", COMMITS, verify=verify)
    with evening.night(task, batch_id="endless") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.failure is not None
    assert (run.verify.exit_code, run.failure.kind) == (None, K.VERIFY_FAILED)
    assert "was ended by its time limit" in run.failure.evidence[0].seen
    assert [pid for pid in pids.read_text().split() if _lives(pid)] == []


def _lives(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.full
def test_a_check_killed_by_a_signal_has_the_code_a_shell_gives(evening: Evening) -> None:
    task = evening.task("t", COMMITS, verify="kill -SEGV $$")
    with evening.night(task, batch_id="signal") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.verify.exit_code == 128 + 11


@pytest.mark.full
def test_a_key_that_a_check_prints_is_masked(evening: Evening) -> None:
    half = len(KEY) // 2
    task = evening.task("t", COMMITS, verify=f"printf %s%s {KEY[:half]} {KEY[half:]}")
    with evening.night(task, batch_id="printed") as night:
        run = carry_out(night, task)
    assert run.verify is not None
    assert run.verify.tail == "*" * len(KEY)
    assert holding(evening.state, KEY) == []


@pytest.mark.full
def test_checking_again_follows_the_first_check(evening: Evening, host: tuple[LoopbackHost, HostSpec]) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", COMMITS, verify=f"echo x >> {marks}; touch made-by-the-check")
    with evening.night(task, batch_id="twice") as night:
        first = carry_out(night, task)
        handle = night.ledger.handle("twice.t.1")
        assert handle is not None
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        made_by_the_check = work_of(host, "twice.t.1") / "verify" / "made-by-the-check"
        assert made_by_the_check.exists()
        assert night.verify(plan, handle, first.commits[-1].sha) == first.verify
        assert made_by_the_check.exists(), "nobody takes the work tree away under a check"
    assert marks.read_text() == "x\n"


@pytest.mark.full
def test_an_interrupted_check_is_cancelled(evening: Evening) -> None:
    started = evening.directory / "started"
    task = evening.task("t", COMMITS, verify=f"touch {started}; sleep 60")
    with evening.night(task, batch_id="halted") as night:

        def stop() -> None:
            while not started.exists():
                time.sleep(0.05)
            night.stop("cancel")

        threading.Thread(target=stop, daemon=True).start()
        run = carry_out(night, task)
    assert run.failure is not None
    assert (run.state, run.failure.kind, len(run.commits)) == ("cancelled", K.CANCELLED, 1)


@pytest.mark.full
def test_dispatching_again_finds_the_run(evening: Evening) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", script(f'{{"sh": "echo x >> {marks}; {COMMIT}"}}'))
    with evening.night(task, batch_id="again") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        assert night.dispatch(night.planner.resolve(task, 1, None)) == (plan, handle)
        night.monitor(plan)
    assert marks.read_text() == "x\n"


@pytest.mark.full
def test_a_controller_that_died_before_it_wrote_the_handle_goes_on_with_the_same_run(evening: Evening) -> None:
    marks = evening.directory / "marks"
    task = evening.task("t", script(f'{{"sh": "echo x >> {marks}; {COMMIT}"}}'))
    with evening.night(task, batch_id="torn") as night:
        night.dispatch(night.planner.resolve(task, 1, None))
        (night.ledger.run_dir("torn.t.1") / "handle.json").unlink()
    commit(evening.directory / "repo", "meanwhile.txt")
    with evening.night(task, batch_id="torn") as night:
        run = carry_out(night, task)
    assert marks.read_text() == "x\n"
    assert (run.state, len(run.commits)) == ("succeeded", 1)
    assert run.base_sha == git(evening.directory / "repo", "rev-parse", "main~1")


@pytest.mark.full
def test_a_run_that_was_left_is_followed_again_to_its_end(evening: Evening) -> None:
    task = evening.task("t", script('{"say": "on it"}', '{"sleep": 1.5}', f'{{"sh": "{COMMIT}"}}'))
    with evening.night(task, batch_id="left") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        night.stop("detach")
        watched = night.monitor(plan)
        assert watched.left
        report = night.left(plan, Stages(0.0, handle, watched))
        assert report.failure is not None
        assert "--resume left" in report.failure.remedy
        assert night.ledger.outcome(plan.run_id) is None
    with evening.night(task, batch_id="left") as night:
        run = carry_out(night, task)
    assert (run.state, len(run.commits)) == ("succeeded", 1)


@pytest.mark.full
def test_a_cancelled_run_is_ended_and_its_work_brought_home(evening: Evening) -> None:
    task = evening.task("t", script(f'{{"sh": "{COMMIT}"}}', '{"say": "committed"}', '{"sleep": 60}'))
    with evening.night(task, batch_id="cancel") as night:
        said = night.ledger.run_dir("cancel.t.1") / "out"

        def stop() -> None:
            while b"committed" not in (said.read_bytes() if said.exists() else b""):
                time.sleep(0.05)
            night.stop("cancel")

        threading.Thread(target=stop, daemon=True).start()
        run = carry_out(night, task)
    assert run.failure is not None
    assert (run.state, run.failure.kind, len(run.commits)) == ("cancelled", K.CANCELLED, 1)


@pytest.mark.full
def test_work_that_cannot_be_collected_is_named_with_its_place(evening: Evening) -> None:
    task = evening.task("t", script('{"sh": "rm -rf .git"}'))
    with evening.night(task, batch_id="gone") as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert run.failure.kind is K.COLLECT_FAILED
    assert "runs/gone.t.1/work" in repr(run.failure.evidence)


@pytest.mark.full
def test_a_key_is_asked_for_once(evening: Evening) -> None:
    asked: list[str] = []

    def reveal(provider: str) -> str:
        asked.append(provider)
        return KEY

    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="once", reveal=reveal) as night:
        assert [night.key("rehearsal") for _ in range(3)] == [KEY] * 3
    assert asked == ["rehearsal"]


@pytest.mark.full
def test_a_base_that_is_not_there_starts_nothing(evening: Evening) -> None:
    evening.base = "no-such-branch"
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="nobase") as night, pytest.raises(FailureError, match="no-such-branch"):
        night.dispatch(night.planner.resolve(task, 1, None))


# --- no secret anywhere ---


class Arguments:
    """Every command line of every process that lives while the block runs, as often as can be looked."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit():
                    try:
                        self.seen.add((folder / "cmdline").read_bytes())
                    except OSError:
                        continue

    def __enter__(self) -> Arguments:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def holding(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold the secret, by content or by name."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return [str(p.relative_to(folder)) for p in files if secret.encode() in p.read_bytes() or secret in str(p)]


def on_the_host(spec: HostSpec, batch_id: str) -> list[str]:
    """Files in the host user's home that hold the key, but for runs of other batches."""
    assert spec.key_file is not None
    found = holding(spec.key_file.parent / "home", KEY)
    return [path for path in found if "/runs/" not in path or f"/runs/{batch_id}." in path]


def git_objects(repo: Path) -> bytes:
    argv = ["git", "-C", str(repo), "cat-file", "--batch-all-objects", "--batch"]
    return subprocess.run(argv, capture_output=True, check=True, env={"PATH": os.defpath}).stdout


@contextmanager
def watched_night(evening: Evening, harness: str, instruction: str, batch_id: str) -> Iterator[tuple[Night, Arguments]]:
    task = evening.task("t", instruction, verify="env", harness=harness)
    with Arguments() as arguments, evening.night(task, batch_id=batch_id) as night:
        assert night.preflight(task).failure is None
        run = carry_out(night, task)
        assert run.failure is None
        assert KEY not in run.model_dump_json()
        yield night, arguments


def test_no_secret_anywhere_with_our_own_agent(evening: Evening, host: tuple[LoopbackHost, HostSpec]) -> None:
    with watched_night(evening, "scripted", "Add a greeting", "s1") as (_, arguments):
        pass
    assert any(b"scripted_agent.py" in line for line in arguments.seen), "the agent itself must have been seen"
    assert [line for line in arguments.seen if KEY.encode() in line] == []
    assert holding(evening.state, KEY) == []
    assert on_the_host(host[1], "s1") == []
    assert KEY.encode() not in git_objects(evening.directory / "repo")
    assert KEY not in "".join(evening.told)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_agent: Callable[[str], Agent]) -> Iterator[HostSpec]:
    directory = tmp_path_factory.mktemp("real-night")
    with loopback(directory, path=[str(real_agent("claude-code").path.parent)]) as (_, spec):
        yield spec


@pytest.mark.full
def test_no_secret_anywhere_with_the_real_claude_code(evening: Evening, real: HostSpec) -> None:
    evening.host = real
    with watched_night(evening, "claude-code", "Add a greeting", "c1") as (_, arguments):
        pass
    assert any(b"--output-format=stream-json" in line for line in arguments.seen)
    assert [line for line in arguments.seen if KEY.encode() in line] == []
    assert holding(evening.state, KEY) == []
    assert on_the_host(real, "c1") == []
    assert KEY.encode() not in git_objects(evening.directory / "repo")


@pytest.mark.full
def test_a_key_that_the_agent_prints_is_masked_in_our_copy(evening: Evening, real: HostSpec) -> None:
    """What a host's user may read there is not ours to hide: the agent wrote it, and so it stays in its own files."""
    evening.host = real
    with watched_night(evening, "claude-code", "Show the environment", "c2"):
        pass
    ours = (evening.state / "batches" / "c2" / "runs" / "c2.t.1" / "out").read_bytes()
    assert b"*" * len(KEY) in ours
    assert holding(evening.state, KEY) == []
    assert KEY.encode() not in git_objects(evening.directory / "repo")
    there = {path.rpartition("c2.t.1/")[2].split("/")[0] for path in on_the_host(real, "c2")}
    assert there <= {"out", "home"}
    assert "out" in there

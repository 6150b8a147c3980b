"""What is brought to a run that goes on with an earlier one: by real git, on a real host, by our own small agent."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight import carry
from overnight.failures import FailureKind
from overnight.night import Night
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.ssh import LoopbackHost
from overnight.report import RunReport
from overnight.resume import resumption
from overnight.session import Resumed
from overnight.spec import HostSpec, TaskSpec
from tests.overnight.nights import COMMIT, Evening, carry_out, commit, git, script

WORK = (
    "echo 1 > one && git add -A && git commit -qm one && echo s > stashed && git add -A && git stash -q"
    " && echo 2 > two && git add two && mkdir -p ignored && echo 3 > ignored/three && ln -s one link && mkfifo pipe"
    " && touch .git/index.lock"
)
DIES = script(
    '{"say": "on it"}', json.dumps({"sh": WORK}), '{"kill": "KILL"}', '{"sh": "git add -A && git commit -qm two"}'
)


@pytest.fixture(scope="module")
def runs(host: tuple[LoopbackHost, HostSpec]) -> Path:
    """Where the host keeps its runs."""
    assert host[1].key_file is not None
    return host[1].key_file.parent / "home" / ".overnight" / "runs"


@contextmanager
def after_one(evening: Evening, batch_id: str, instruction: str = DIES) -> Iterator[tuple[Night, TaskSpec, RunReport]]:
    """A night whose first attempt has ended, and the task as its next one is asked to do it."""
    task = evening.task("a", instruction).model_copy(update={"resume_session": True})
    with evening.night(task, batch_id=batch_id) as night:
        first = carry_out(night, task)
        yield night, task.model_copy(update={"resumed": resumption(task, first)}), first


def print_of(folder: Path) -> dict[str, str]:
    """Every file of a folder with its type, mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = f"{told.st_mode:o} {told.st_mtime_ns} {hashlib.sha256(text).hexdigest()}"
    return found


def test_it_goes_on_in_the_same_tree_from_the_same_base(evening: Evening, runs: Path) -> None:
    with after_one(evening, "same") as (night, task, first):
        assert first.failure is not None
        assert (first.failure.kind, [c.subject for c in first.commits]) == (FailureKind.HARNESS_CRASHED, ["one"])
        before = print_of(runs / first.run_id)
        moved = commit(Path(evening.repo), "meanwhile.txt")
        second = carry_out(night, task, 2)
    assert second.state == "succeeded"
    assert second.resumed is not None
    assert (second.resumed.run_id, second.resumed.session, second.session) == (
        first.run_id,
        first.session,
        first.session,
    )
    assert second.base_sha == first.base_sha != moved
    assert [c.subject for c in second.commits] == ["one", "two"]
    assert second.commits[0] == first.commits[0]
    assert print_of(runs / first.run_id) == before, "nothing of the earlier run is changed"
    work = runs / second.run_id / "work"
    assert (work / "ignored" / "three").read_text() == "3\n"
    assert (work / "link").is_symlink()
    assert git(work, "stash", "list").count("stash@") == 1
    assert any(ref.endswith("stash") for ref in second.other_refs)


def test_one_that_was_lost_with_its_supervisor_goes_on(evening: Evening) -> None:
    supervisor = "$(sed 's/.*\"supervisor\": \\([0-9]*\\).*/\\1/' ../started.json)"
    dies = script(
        '{"sh": "echo 1 > one"}', json.dumps({"sh": f"kill -9 {supervisor} $PPID"}), json.dumps({"sh": COMMIT})
    )
    with after_one(evening, "lost", dies) as (night, task, first):
        second = carry_out(night, task, 2)
    assert first.state == "lost"
    assert second.resumed is not None
    assert (second.state, second.resumed.after, second.resumed.session) == (
        "succeeded",
        FailureKind.LOST,
        first.session,
    )


def test_every_tip_comes_home_under_its_own_ref(evening: Evening) -> None:
    with after_one(evening, "tips") as (night, task, first):
        second = carry_out(night, task, 2)
    home = Path(evening.repo)
    assert git(home, "rev-parse", f"refs/overnight/{first.run_id}/head") == first.commits[-1].sha
    assert git(home, "rev-parse", f"refs/overnight/{second.run_id}/head") == second.commits[-1].sha
    assert second.branch is not None
    assert git(home, "rev-parse", second.branch) == second.commits[-1].sha
    assert first.leftovers is not None
    assert git(home, "rev-parse", first.leftovers.ref) == first.leftovers.sha


def test_a_repeated_start_is_the_same_start(evening: Evening, runs: Path) -> None:
    with after_one(evening, "again") as (night, task, first):
        plan, handle = night.dispatch(night.planner.resolve(task, 2, None))
        shutil.rmtree(runs / first.run_id)
        (night.ledger.run_dir(plan.run_id) / "handle.json").unlink()
        again, found = night.dispatch(night.planner.resolve(task, 2, None))
        assert (again.digest, found.resumed, found.run_dir) == (plan.digest, handle.resumed, handle.run_dir)
        second = carry_out(night, task, 2)
    assert second.state == "succeeded"
    assert second.resumed == handle.resumed


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ("home/.overnight/sessions", "the files of its session are gone"),
        ("work", "its work tree is gone"),
        (".", "its folder is gone"),
    ],
)
def test_what_is_gone_is_said_and_the_attempt_begins_afresh(evening: Evening, runs: Path, gone: str, why: str) -> None:
    instruction = script(
        '{"sh": "[ -e ../../b ] || { touch ../../b; kill -9 $PPID; }; touch f; git add f; git commit -qm f"}'
    )
    (runs / "b").unlink(missing_ok=True)
    with after_one(evening, f"gone{len(gone)}", instruction) as (night, task, first):
        shutil.rmtree(runs / first.run_id / gone)
        second = carry_out(night, task, 2)
    assert second.state == "succeeded"
    assert second.resumed is not None
    assert (second.resumed.session, second.resumed.why) == (None, why)
    assert [c.subject for c in second.commits] == ["f"]


def test_another_model_begins_afresh(evening: Evening, provider: EmulatedProvider) -> None:
    asks = script('{"sh": "[ -e ../../c ] || { touch ../../c; kill -9 $PPID; }"}', '{"ask": true}') + "\nAdd a greeting"
    with after_one(evening, "other", asks) as (night, task, first):
        other = task.on(task.route.model_copy(update={"model": "rehearsal-small"}))
        other = other.model_copy(update={"resumed": resumption(other, first)})
        seen = len(provider.calls)
        second = carry_out(night, other, 2)
    assert second.state == "succeeded"
    assert second.resumed is not None
    assert second.resumed.session is None
    assert "rehearsal-large" in second.resumed.why
    assert [call.turn for call in provider.calls[seen:]] == [1, 2]


class TestSession:
    """The files of a session, as the script on the host copies them."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        old = tmp_path / "runs" / "b.a.1"
        (old / "home" / ".agent").mkdir(parents=True)
        return old

    def copied(self, old: Path, name: str, text: str, sums: list[dict[str, str]] | None = None) -> dict[str, str]:
        path = old / "home" / ".agent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        new = old.with_name("b.a.2")
        for each in carry.session_files(str(old / "home"), [".agent/**/*.jsonl"]):
            carry.copy_session(str(old), str(new), each, sums or [])
        home = new / "home"
        return (
            {str(p.relative_to(home)): p.read_text() for p in home.rglob("*") if p.is_file()} if home.exists() else {}
        )

    def test_it_names_the_new_place_wherever_it_named_the_old_one(self, old: Path) -> None:
        new = old.with_name("b.a.2")
        line = f'{{"cwd": "{old}/work", "file": "{old}/tmp/f", "other": "{old}0/work"}}\n'
        assert self.copied(old, "s.jsonl", line) == {".agent/s.jsonl": line.replace(f"{old}/", f"{new}/")}

    @pytest.mark.parametrize("kept", ["[^A-Za-z0-9]", "[/:]"])
    def test_so_do_the_folders_that_are_called_after_it(self, old: Path, kept: str) -> None:
        new = old.with_name("b.a.2")
        slug, other = (re.sub(kept, "-", f"{each}/work") for each in (old, new))
        assert list(self.copied(old, f"-{slug}-/s.jsonl", "{}\n")) == [f".agent/-{other}-/s.jsonl"]

    def test_a_home_that_a_link_leads_to_is_named_both_ways(self, tmp_path: Path) -> None:
        (tmp_path / "real" / "runs" / "b.a.1").mkdir(parents=True)
        (tmp_path / "link").symlink_to("real")
        (tmp_path / "real" / "runs" / "b.a.2").mkdir()
        told = self.copied(tmp_path / "link" / "runs" / "b.a.1", "s.jsonl", f"{tmp_path}/real/runs/b.a.1/work\n")
        assert told == {".agent/s.jsonl": f"{tmp_path}/real/runs/b.a.2/work\n"}

    def test_no_link_is_followed(self, old: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("mine\n")
        (old / "home" / ".agent" / "x.jsonl").symlink_to(tmp_path / "secret")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "y.jsonl").write_text("mine, too\n")
        (old / "home" / ".agent" / "sub").symlink_to(tmp_path / "folder")
        assert self.copied(old, "s.jsonl", "{}\n") == {".agent/s.jsonl": "{}\n"}

    def test_sums_stay_behind_and_what_only_looks_like_one_does_not(self, old: Path) -> None:
        lines = [
            '{"type": "sum", "p": {"of": "all"}}',
            '{"type": "text", "t": "{\\"type\\": \\"sum\\"}"}',
            '{"type": "su',
        ]
        found = self.copied(old, "s.jsonl", "\n".join(lines), [{"type": "sum", "p.of": "all"}])
        assert found == {".agent/s.jsonl": "\n".join(lines[1:])}


def test_a_run_that_lives_is_not_taken_for_one_that_ended(evening: Evening, runs: Path) -> None:
    waits = script('{"sh": "while [ ! -e ../../d ]; do sleep 0.1; done; touch f; git add f; git commit -qm f"}')
    task = evening.task("a", waits).model_copy(update={"resume_session": True})
    with evening.night(task, batch_id="lives") as night:
        plan, _ = night.dispatch(night.planner.resolve(task, 1, None))
        earlier = Resumed(run_id=plan.run_id, after=FailureKind.LOST, session="c89d7e2aa98c18dd")
        after = task.model_copy(update={"resumed": earlier})
        _, second = night.dispatch(night.planner.resolve(after, 2, None))
        (runs / "d").touch()
        for number in (1, 2):
            assert carry_out(night, task if number == 1 else after, number).state == "succeeded"
    assert second.resumed is not None
    assert (second.resumed.session, second.resumed.why) == (None, "it is running")


def test_a_tree_that_does_not_fit_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(carry.CannotGoOn, match="leaves too little free"):
        carry.check_room([str(tmp_path)], 1 << 62)
    carry.check_room([str(tmp_path)], 0)

"""A user's own batch rehearsed: a real sshd, the command as it is typed, and nothing of the user's touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.rehearse_own import Wish, rehearse_own
from overnight.failures import HostError
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.troubles import trouble
from overnight.report import BatchReport
from tests.flows.world import heed_signals
from tests.overnight.nights import PYTHON, git, make_repo
from tests.sshd import Sshd, free_port, serving, wait_until

pytestmark = pytest.mark.full
REAL_KEY = "real-key-of-the-user-1f2e3d"
OVERNIGHT = str(Path(sys.executable).with_name("overnight"))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@dataclass
class Own:
    """What a user has: a host, a repository and a batch file."""

    directory: Path
    sshd: Sshd

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def repo(self) -> Path:
        return self.directory / "repo"

    @property
    def report(self) -> BatchReport:
        [path] = self.state.glob("rehearsals/*/state/batches/*/report.json")
        return BatchReport.model_validate_json(path.read_text())

    @property
    def env(self) -> dict[str, str]:
        """Keys, proxies and a Prefect server of the user's, none of which may be used."""
        nowhere = f"http://127.0.0.1:{free_port()}"
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "OVERNIGHT_KEY_REHEARSAL": REAL_KEY,
            "HTTP_PROXY": nowhere,
            "http_proxy": nowhere,
            "PREFECT_API_URL": f"{nowhere}/api",
        }

    def batch(self, route: str = "scripted/rehearsal/rehearsal-large", path: str = PYTHON, **host: Any) -> Path:
        harness, provider, model = route.split("/")
        described = {**self.sshd.described(self.directory / "night", path, 2), **host}
        tasks = [
            {"id": "greet", "instruction": "Add a greeting", "verify": "test -e overnight-rehearsal.txt"},
            {"id": "fix", "instruction": "Fix the parser", "approve": True},
        ]
        way = {"host": "box", "harness": harness, "provider": provider, "model": model}
        below = {"repo": str(self.repo), "base": "main", "route": way}
        file = self.directory / "tonight.yaml"
        whole = {"schema": 1, "name": "tonight", "hosts": {"box": described}, "defaults": below, "tasks": tasks}
        file.write_text(json.dumps(whole))
        return file

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [OVERNIGHT, "rehearse", *map(str, args), "--state", str(self.state)],
            preexec_fn=heed_signals,
            env=self.env,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: str | Path, code: int) -> str:
        with self.start(*args) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{out}\n{err}"
        return out + err

    def nothing_is_left(self) -> None:
        """On the host, and of processes."""
        assert not list(self.directory.glob("night*"))
        mark = str(self.directory)
        processes = psutil.process_iter(["environ"])
        assert [p for p in processes if mark in str((p.info["environ"] or {}).get("HOME"))] == []


@pytest.fixture
def own(tmp_path: Path, sshd: Sshd) -> Own:
    make_repo(tmp_path / "repo")
    return Own(tmp_path, sshd)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_night_that_goes_well_touches_nothing_of_the_users(own: Own) -> None:
    before = everything_in(own.repo)
    said = own.run(own.batch(), code=0)
    assert "all goes well" in said
    assert "box: the same machine; works in" in said
    assert "greet: succeeded after" in said
    assert "nobody is asked to approve" in said
    assert everything_in(own.repo) == before
    own.nothing_is_left()
    for run in own.report.runs:
        assert run.branch is not None
        assert git(Path(run.repo or ""), "show", "--stat", "--format=", run.branch).startswith(
            "overnight-rehearsal.txt"
        )
    assert not any(REAL_KEY.encode() in content for content in everything_in(own.state).values())


def test_what_preflight_meets_starts_no_task(own: Own) -> None:
    said = own.run(own.batch(), "--fault", "auth-rejected", code=3)
    assert "greet: not started, auth-rejected" in said
    assert [route.failure.kind for route in own.report.routes if route.failure] == ["auth-rejected"]
    own.nothing_is_left()


def test_tapes_of_ones_own_and_a_host_kept_as_it_was_left(own: Own) -> None:
    tapes = own.directory / "tapes.yaml"
    step = {"write": {"path": "mine.txt", "text": "mine"}}
    tapes.write_text(json.dumps({"tapes": [{"match": "Fix", "steps": [step]}]}))
    own.run(own.batch(), "--tapes", tapes, "--only", "fix", "--keep", code=1)
    [run] = {run.task_id: run for run in own.report.runs}.values()
    assert run.failure is not None
    assert run.failure.kind == "no-commit"
    assert list(own.directory.glob("night-rehearsal/*/runs/*/*/mine.txt"))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--fault", "wentquiet"], "went-quiet"),
        (["--only", "gret"], "greet"),
        (["--only", ","], "--only"),
        (["--harness", "scripted"], "goes without FILE"),
        (["--tapes", "/no/such/tapes.yaml"], "/no/such/tapes.yaml"),
    ],
)
def test_bad_input_starts_nothing(own: Own, args: Sequence[str], named: str) -> None:
    assert named in own.run(own.batch(), *args, code=2)
    assert not own.state.exists()


def test_a_batch_that_cannot_be_planned_starts_nothing(own: Own) -> None:
    assert "Did you mean rehearsal-large" in own.run(own.batch("scripted/rehearsal/rehearsal-lage"), code=2)
    assert not own.state.exists()


def test_options_of_a_batch_need_one(own: Own) -> None:
    assert "Give FILE, too" in own.run("--fault", "went-quiet", code=2)


def through_a_forward(own: Own, file: Path, said: list[str]) -> int:
    """The provider is at another port here than on the host, so that it cannot be reached but by the forward."""
    wish = Wish([file], trouble(""), port=free_port())
    return rehearse_own(wish, own.state, own.env, said.append)


def test_hosts_reach_the_provider_by_a_reverse_forward(own: Own) -> None:
    said: list[str] = []
    assert through_a_forward(own, own.batch(), said) == 0
    assert any("reverse forward of port" in line for line in said)
    own.nothing_is_left()


def test_a_host_that_forwards_nothing_is_named_and_left_clean(own: Own, tmp_path: Path) -> None:
    (tmp_path / "strict").mkdir()
    with serving(tmp_path / "strict", "AllowTcpForwarding no") as strict, pytest.raises(HostError) as raised:
        through_a_forward(Own(tmp_path, strict), Own(tmp_path, strict).batch(), [])
    assert "AllowTcpForwarding" in raised.value.failure.remedy
    assert "box" in raised.value.failure.remedy
    own.nothing_is_left()


def test_an_interrupt_ends_the_night_and_cleans_the_host(own: Own) -> None:
    process = own.start(own.batch(), "--fault", "hang,spares_probes=yes")
    wait_until(lambda: bool(list(own.directory.glob("night-rehearsal/*/runs/*fix.1/started.json"))), 120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, f"{out}\n{err}"
    assert "fix: named cancelled" in out
    own.nothing_is_left()


def test_a_real_agent_shows_what_its_morning_would_look_like(own: Own, real_agent: Callable[[str], Agent]) -> None:
    agent = real_agent("claude-code")
    file = own.batch("claude-code/zai/glm-5.1", str(agent.path.parent))
    said = own.run(file, "--fault", "quota-window", "--only", "greet", code=1)
    assert "zai: emulated on this machine, in the words of zhipu" in said
    assert "quota-window (window-used-up,turn=2,lasting=yes)" in said
    assert "greet: named quota-window after" in said
    assert "fix" not in said
    own.nothing_is_left()

"""Without the state directory: what lives on a host is listed, followed, and brought home over a real sshd."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.private_server import private_server
from tests.flows.rounds import COMMITS, waits_for
from tests.flows.small import Small, small
from tests.flows.world import ROOT, Done, finished, heed_signals
from tests.overnight.following import marked
from tests.overnight.nights import COMMIT, KEY, git, script
from tests.sshd import Sshd, serving, wait_until

pytestmark = pytest.mark.full
API: dict[str, str] = {}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect API that stays while state directories come and go."""
    with private_server(tmp_path_factory.mktemp("api"), os.environ) as server:
        API.update({"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": server.auth})
        yield


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def over(here: Small, api: None) -> str:
    """A batch that ended long ago; its state directory is gone, and so is its branch."""
    idle = {"id": "idle", "instruction": script('{"sh": "echo draft > draft.txt"}')}
    done = here.run(here.batch("over", [{"id": "a", "instruction": COMMITS}, idle]), **API)
    assert done.code == 1, done.err
    batch_id = here.found("batches/over-*/batch.json").parent.name
    shutil.rmtree(here.state)
    for ref in here.git("for-each-ref", "--format=%(refname)", "refs/overnight", "refs/heads/overnight").split():
        here.git("update-ref", "-d", ref)
    return batch_id


def start(here: Small, sshd: Sshd, *args: object, **env: str) -> subprocess.Popen[str]:
    """`overnight attach` as a user types it, by address."""
    where = ["--host", f"{getpass.getuser()}@127.0.0.1:{sshd.port}", "--key-file", sshd.key_file]
    more = ["--host-key", sshd.host_key, "--directory", here.directory / "host", "--state", here.directory / "new"]
    return subprocess.Popen(
        [Path(sys.executable).with_name("overnight"), "attach", *map(str, [*where, *more, *args])],
        preexec_fn=heed_signals,
        cwd=ROOT,
        env={**here.env, **API, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def attached(here: Small, sshd: Sshd, *args: object) -> tuple[int, dict[str, dict[str, Any]]]:
    done = finished(start(here, sshd, *args, "--json"))
    assert done.code in (0, 1), done.err
    assert done.out, done.err
    return done.code, {row["run_id"]: row for row in json.loads(done.out)["runs"]}


def killed(here: Small, name: str, instruction: str) -> str:
    """The id of a living run whose controller died and whose records are gone."""
    process = here.start(here.batch(name, [{"id": "a", "instruction": instruction}]), **API)
    batch_id = here.found(f"batches/{name}-*/runs/*.a.1/handle.json").parents[2].name
    wait_until(lambda: (here.runs / f"{batch_id}.a.1" / "started.json").exists())
    process.kill()
    process.communicate()
    shutil.rmtree(here.state)
    return f"{batch_id}.a.1"


def test_what_is_there_is_listed_and_nothing_is_touched(here: Small, sshd: Sshd, over: str) -> None:
    code, rows = attached(here, sshd)
    assert code == 0
    row = rows[f"{over}.a.1"]
    told = (row["state"], row["task"], row["branch"], row["commits"], row["became"])
    assert told == ("finished", "a", f"overnight/{over}/a", 1, "listed")
    assert row["bytes"] > 10_000
    assert row["asks"].startswith("```script")
    assert (rows[f"{over}.idle.1"]["commits"], rows[f"{over}.idle.1"]["age_s"] > 0) == (0, True)
    assert here.git("for-each-ref", "refs/overnight") == ""
    shown = finished(start(here, sshd))
    assert "--repo PATH adopts them" in shown.out


def test_what_ended_comes_home_once_however_often(here: Small, sshd: Sshd, over: str) -> None:
    for _ in range(2):
        code, rows = attached(here, sshd, "--repo", here.repo)
        assert code == 0, rows
        assert rows[f"{over}.a.1"]["became"] == "adopted"
        assert rows[f"{over}.idle.1"]["refs"] == [f"refs/overnight/adopted/{over}.idle.1/wip"]
        probes = [row["became"] for name, row in rows.items() if ".probe-" in name]
        assert set(probes) == {"nothing"}
    adopted = f"refs/overnight/adopted/{over}.a.1/head"
    assert here.git("log", "--format=%s", f"main..{adopted}") == "Add greeting"
    assert here.git("show", f"refs/overnight/adopted/{over}.idle.1/wip:draft.txt") == "draft"
    assert here.git("branch", "--list", "overnight/*") == ""
    folder = here.directory / "new" / "adopted" / f"{over}.a.1"
    assert (folder / "out").read_bytes() == (here.runs / f"{over}.a.1" / "out").read_bytes()
    record = json.loads((folder / "adopted.json").read_text())
    assert record["refs"] == [adopted]


def test_another_repository_gets_nothing_and_says_why(here: Small, sshd: Sshd, over: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q")
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "another beginning")
    code, rows = attached(here, sshd, "--repo", tmp_path / "other", f"{over}.a.1")
    assert code == 1
    assert list(rows) == [f"{over}.a.1"]
    assert rows[f"{over}.a.1"]["became"] == "left"
    assert f"is not in {tmp_path / 'other'}; it lies in" in rows[f"{over}.a.1"]["words"]
    assert git(tmp_path / "other", "for-each-ref", "refs/overnight") == ""


def test_what_lives_is_followed_from_its_beginning_with_its_key_masked(here: Small, sshd: Sshd) -> None:
    door = f"while [ ! -e {here.directory / 'go'} ]; do sleep 0.1; done"
    says = '{"sh": "env | grep -i KEY= >> /proc/$PPID/fd/1; echo early >> /proc/$PPID/fd/1"}'
    run_id = killed(here, "alive", script(says, f'{{"sh": "{door}"}}', f'{{"sh": "{COMMIT}"}}'))
    process = start(here, sshd, "--repo", here.repo, run_id, "--json")
    log = here.directory / "new" / "adopted" / run_id / "out"
    wait_until(lambda: log.exists() and b"early" in log.read_bytes(), 60)
    (here.directory / "go").touch()
    done = finished(process)
    [row] = json.loads(done.out)["runs"]
    assert (done.code, row["became"], row["state"]) == (0, "adopted", "finished"), done.err
    assert here.git("log", "--format=%s", f"main..refs/overnight/adopted/{run_id}/head") == "Add greeting"
    host = (here.runs / run_id / "out").read_bytes()
    assert log.read_bytes() == host.replace(KEY.encode(), b"*" * len(KEY))
    assert row["logs"] == str(log.parent)


def test_without_the_key_the_output_is_left_out_and_the_commits_come(here: Small, sshd: Sshd) -> None:
    run_id = killed(here, "keyless", waits_for(here, "keyless-go"))
    process = start(here, sshd, "--repo", here.repo, run_id, "--json", OVERNIGHT_KEY_REHEARSAL="no key at all")
    assert process.stderr is not None
    said = next(line for line in process.stderr if run_id in line)
    assert "taken without its output, which could not be masked" in said
    (here.directory / "keyless-go").touch()
    done = finished(process)
    [row] = json.loads(done.out)["runs"]
    assert (done.code, row["became"], row["logs"]) == (0, "adopted", None), done.err
    assert not (here.directory / "new" / "adopted" / run_id / "out").exists()


def test_what_lives_can_be_ended_and_still_comes_home(here: Small, sshd: Sshd) -> None:
    door = f"while [ ! -e {here.directory / 'never-ended'} ]; do sleep 0.1; done"
    run_id = killed(here, "ended", script(f'{{"sh": "{COMMIT}"}}', f'{{"sh": "{door}"}}'))
    wait_until((here.runs / run_id / "work" / "greeting.txt").exists, 60)
    code, rows = attached(here, sshd, "--repo", here.repo, "--end", run_id)
    assert (code, rows[run_id]["became"]) == (0, "adopted")
    assert rows[run_id]["words"].startswith("ended by request; 1 commit")
    assert here.git("log", "--format=%s", f"main..refs/overnight/adopted/{run_id}/head") == "Add greeting"


def test_an_orphan_is_ended_since_nobody_would(here: Small, sshd: Sshd) -> None:
    run_id = killed(here, "orphan", waits_for(here, "never"))
    started = json.loads((here.runs / run_id / "started.json").read_text())
    subprocess.run(["kill", "-9", str(started["supervisor"])], check=True)
    code, rows = attached(here, sshd, "--repo", here.repo, run_id)
    assert (code, rows[run_id]["words"]) == (0, "ended by orphan; it committed nothing and left nothing")
    assert not [process for process in psutil.process_iter(["environ"]) if marked(process, run_id)]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nonsense"], "RUN_ID: no run 'nonsense' lies there"),
        (["--repo", "/nonexistent"], "--repo: "),
        (["--end"], "--end: ends what lives and brings it home"),
        (["--host-key", "nonsense"], "--host-key: needs a key type"),
    ],
)
def test_what_cannot_be_is_refused(here: Small, sshd: Sshd, over: str, args: list[str], words: str) -> None:
    done: Done = finished(start(here, sshd, *args))
    assert done.code == 2, done.out + done.err
    assert words in done.err
    assert "mend:" in done.err


def test_a_host_out_of_reach_is_an_answer(here: Small, sshd: Sshd) -> None:
    done = finished(start(here, sshd, "--host", f"{getpass.getuser()}@127.0.0.1:1"))
    assert done.code == 1
    assert "host-unreachable" in done.err

"""Room for logs: what its controller has safe is given back on the host, and no hole is ever told as output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.events import Exited, Killed, Output
from overnight.follow import Follower
from overnight.hosts.local import LocalHost
from overnight.remote import SOURCE, Remote
from overnight.runcopy import Gap, RunCopy, gaps
from tests.overnight.following import Watching, end_all, shell
from tests.sshd import wait_until

HEAD, SIZE = 262_144, 12_000_000
# numbered lines, so that a byte in the wrong place is seen
WRITES = f"seq -w 1 {SIZE // 8}; while [ ! -e go ]; do sleep 0.05; done; echo last"
EXPECTED = b"".join(b"%07d\n" % number for number in range(1, SIZE // 8 + 1)) + b"last\n"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A host that beats ten times a second, and so hears as often what is safe here."""
    source = tmp_path / "supervisor.py"
    source.write_text(SOURCE.read_text().replace("FOLLOW_BEAT_S = 5.0", "FOLLOW_BEAT_S = 0.1"))
    monkeypatch.setattr("overnight.remote.SOURCE", source)
    remote = Remote(LocalHost(home=tmp_path), python=sys.executable)
    yield remote
    remote.close()
    end_all(tmp_path)


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.full
def test_head_and_tail_stay_and_the_rest_is_given_back(remote: Remote, follower: Follower, tmp_path: Path) -> None:
    run_dir = Path(remote.start(shell("r1", WRITES)).run_dir)
    owner = Watching(follower, "r1", tmp_path / "owner", owns=True)
    wait_until(lambda: owner.copy.offset("out") >= SIZE and on_disk(run_dir / "out") < SIZE // 2, 60)
    there = (run_dir / "out").read_bytes()
    assert there[:HEAD] == EXPECTED[:HEAD]
    assert there[-1_000_000:] == EXPECTED[SIZE - 1_000_000 : SIZE]
    assert len(there) == SIZE, "sizes stay offsets"

    stranger = Watching(follower_of(remote), "r1", tmp_path / "stranger")
    (run_dir / "home" / "go").touch()
    assert isinstance(owner.ending(60), Exited)
    assert owner.copied("out") == EXPECTED
    assert gaps(owner.copy.directory) == []

    assert isinstance(stranger.ending(60), Exited)
    [gap] = gaps(stranger.copy.directory)
    assert (gap.stream, gap.begin) == ("out", HEAD)
    assert gap.end > SIZE // 3
    copied = stranger.copied("out")
    assert (copied[: gap.begin], copied[gap.end :]) == (EXPECTED[: gap.begin], EXPECTED[gap.end :])
    told = {event.offset: event.data for event in stranger.told if isinstance(event, Output)}
    assert all(EXPECTED[at : at + len(data)] == data for at, data in told.items()), "no hole was told as output"
    again = RunCopy(stranger.copy.directory)
    replayed = {event.offset: event.data for event in again.replay()}
    again.close()
    assert sum(map(len, replayed.values())) == len(EXPECTED) - (gap.end - gap.begin)
    assert all(EXPECTED[at : at + len(data)] == data for at, data in replayed.items())
    assert f"{gap.end - gap.begin} bytes of out, from {HEAD} on, are missing" in str(gap)


def follower_of(remote: Remote) -> Follower:
    """A second controller's follower. Ends with the connection."""
    return Follower(remote)


@pytest.mark.full
def test_who_only_looks_gives_nothing_back(remote: Remote, follower: Follower, tmp_path: Path) -> None:
    run_dir = Path(remote.start(shell("r1", WRITES)).run_dir)
    stranger = Watching(follower, "r1", tmp_path / "stranger")
    (run_dir / "home" / "go").touch()
    assert isinstance(stranger.ending(60), Exited)
    assert on_disk(run_dir / "out") >= SIZE
    assert (run_dir / "released").read_bytes().strip() == b""


@pytest.mark.full
def test_a_flood_is_ended_with_its_head_and_its_tail_here(remote: Remote, follower: Follower, tmp_path: Path) -> None:
    flood = shell("r1", "yes 0123456")
    run_dir = Path(remote.start(flood).run_dir)
    owner = Watching(follower, "r1", tmp_path / "owner", owns=True)
    end = owner.ending(120)
    assert isinstance(end, Killed)
    assert end.by == "max_log_bytes"
    size = (run_dir / "out").stat().st_size
    assert owner.copied("out") == (b"0123456\n" * (size // 8 + 1))[:size]


def test_a_copy_tells_only_what_is_on_its_disk_and_its_own(tmp_path: Path) -> None:
    for owns in (True, False):
        copy = RunCopy(tmp_path / str(owns), [b"secret"], owns=owns)
        assert copy.safe() is None
        copy.append("out", b"x" * 5_000_000 + b"secr")
        assert copy.safe() == ({"out": 5_000_000, "err": 0} if owns else None)
        assert copy.safe() is None, "told once"
        copy.skip("out", 6_000_000)
        assert copy.expects("out") == 6_000_000
        assert gaps(copy.directory) == [Gap("out", 5_000_004, 6_000_000)]
        copy.append("out", b"after")
        copy.flush("out")
        assert [event.offset for event in copy.replay()][-1] == 6_000_000
        copy.close()

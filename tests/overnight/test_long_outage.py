"""More than an hour without a link, within what a run may take: it is waited for, and every byte of it comes.

The wire is really cut, for seconds; to the one who waits each of them is some minutes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from overnight import attendance
from overnight.night import Stages
from overnight.rehearsal.ssh import LoopbackHost
from overnight.spec import HostSpec
from overnight.station import GIVE_UP_S
from tests.overnight.nights import COMMIT, Evening, carry_out, script
from tests.sshd import Relay, wait_until

pytestmark = pytest.mark.full
SPEED, CUT_S = 300.0, 14.0
# what is printed while the wire is cut, too
SAYS = "for n in $(seq 400); do seq -w 1 1000 >> /proc/$PPID/fd/1; sleep 0.05; done"


class Gate(Relay):
    """A relay that can be shut: what is connected is cut, and who comes is turned away."""

    def __init__(self, port: int) -> None:
        self.is_open = True
        super().__init__(port, lambda: 10**12)

    def _carry(self, source: socket.socket, sink: socket.socket, budget: int | None) -> None:
        if self.is_open:
            super()._carry(source, sink, budget)
        for end in (source, sink):
            end.close()

    def cut(self) -> None:
        self.is_open = False
        for link in self._links:
            link.close()


@pytest.fixture
def gate(host: tuple[LoopbackHost, HostSpec]) -> Iterator[Gate]:
    gate = Gate(host[1].port)
    yield gate
    gate.close()


@pytest.fixture
def fast(evening: Evening, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Evening:
    """A night behind the gate, whose waiting is counted by a fast clock."""
    evening.host = evening.host.model_copy(update={"port": gate.port})
    evening.limits = evening.limits.model_copy(update={"total_s": 7200})
    monkeypatch.setattr(attendance, "time", SimpleNamespace(monotonic=lambda: time.monotonic() * SPEED))
    return evening


def test_an_hour_is_always_waited_for_whatever_a_run_may_take() -> None:
    assert GIVE_UP_S >= 3600, "past the run's own limit, so any single hour lies within"


def test_after_more_than_an_hour_every_byte_is_there(fast: Evening, gate: Gate) -> None:
    assert CUT_S * SPEED > 3600
    assert fast.limits.total_s + GIVE_UP_S > CUT_S * SPEED
    marks = fast.directory / "marks"
    task = fast.task("t", script(f'{{"sh": "touch {marks}; {SAYS}; {COMMIT}"}}', '{"say": "Done."}'))
    cuts = threading.Thread(target=_cut_once, args=(gate, marks.exists))
    with fast.night(task, batch_id="hour") as night:
        cuts.start()
        run = carry_out(night, task)
        cuts.join()
        there = night.stations["box"].remote.execute(["cat", f"{night.stations['box'].run_dir('hour.t.1')}/out"])
    assert (run.state, len(run.commits)) == ("succeeded", 1)
    copied = (fast.state / "batches" / "hour" / "runs" / "hour.t.1" / "out").read_bytes()
    assert len(copied) > 1_000_000
    assert copied == there.out
    assert any("link | down" in line for line in fast.told)
    assert any("link | up again" in line for line in fast.told)


def test_what_stays_away_longer_than_that_is_left_with_its_place(fast: Evening, gate: Gate) -> None:
    fast.limits = fast.limits.model_copy(update={"total_s": 60})
    task = fast.task("t", script('{"sleep": 600}'))
    with fast.night(task, batch_id="gone") as night:
        plan, handle = night.dispatch(night.planner.resolve(task, 1, None))
        gate.cut()
        watched = night.monitor(plan)
        assert watched.undecided
        left = night.left(plan, Stages(0.0, handle), watched.lost)
    assert left.left_running
    assert "the run may still live in" in str(watched.lost)
    gate.is_open = True


def _cut_once(gate: Gate, begun: object) -> None:
    wait_until(begun, 60)  # type: ignore[arg-type]  # a bound method of a path
    gate.cut()
    time.sleep(CUT_S)
    gate.is_open = True
